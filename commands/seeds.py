"""Compute the mean and standard deviation of each model over the seeds of finished experiments.

    dvc exp run --queue -S 'seed=1,2,3,4,5' && dvc queue start
    python -m commands.seeds

This command is not a stage. It reads the experiments of the current commit from `dvc exp show
--json`, and dvc.lock as each experiment left it. Runs of a model that differ in anything but the
seed (a parameter, code, data) have separate rows, labelled by what differs.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from typing import Any

from ruamel.yaml import YAML

from commands import ending
from stages.lib.core import declarations, stage
from stages.lib.core.errors import InputError

SCORES = ("validation.accuracy", "validation.f1", "test.accuracy", "test.f1")
HEADINGS = ("val. accuracy", "val. F1", "test accuracy", "test F1")
NOTE = "Mean ± standard deviation (n - 1) over seeds; a single seed has none."
HINT = "dvc exp run --queue -S 'seed=1,2,3,4,5', then dvc queue start"

Json = dict[str, Any]


def finished(shown: list[Json]) -> tuple[list[Json], Counter]:
    """Split the output of `dvc exp show --json` into the finished experiments and the others.

    Returns the finished experiments, and the number of the others by state.
    """
    experiments: list[Json] = []
    others: Counter[str] = Counter()
    for baseline in shown:
        for experiment in baseline.get("experiments") or []:
            state = (experiment.get("executor") or {}).get("state", "success")
            tip = experiment["revs"][0]
            if state == "success" and not tip.get("error"):
                experiments.append(tip)
            else:
                others["failed" if state == "success" else state] += 1
    return experiments, others


def flat(tree: Json, prefix: str = "") -> Json:
    """Flatten nested sections: {"lora": {"r": 8}} becomes {"lora.r": 8}."""
    result: Json = {}
    for key, value in tree.items():
        inner = isinstance(value, dict)
        result |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return result


def settings(model: str, lock: Json) -> Json | None:
    """Collect everything that the result of the stage `model` depends on.

    That is the parameters and the hashes of code and data, of the stage itself and of the stages it
    depends on. Returns None if one of these stages was run again without it.
    """
    producers = {out["path"]: name for name, stage in lock.items() for out in stage.get("outs", [])}
    result: Json = {}
    todo = [model]
    while todo:
        stage = lock[todo.pop()]
        for file, values in stage.get("params", {}).items():
            result |= flat(values, "" if file == "params.yaml" else f"{file}:")
        for dep in stage.get("deps", []):
            if producer := producers.get(dep["path"]):
                (made,) = (out for out in lock[producer]["outs"] if out["path"] == dep["path"])
                if made != dep:
                    return None
                todo.append(producer)
            else:
                result[dep["path"]] = str(dep.get("md5"))[:7]
    return result


def measured(experiment: Json, lock: Json) -> tuple[list[Json], set[str]]:
    """Collect the scores of an experiment.

    Returns a row for each model that the experiment ran (name, seed, settings and scores), and the
    names of the models whose scores are from an earlier run with other parameters.
    """
    params = flat(experiment["data"]["params"]["params.yaml"]["data"])
    rows, stale = [], set()
    for path, file in experiment["data"]["metrics"].items():
        scores = flat(file.get("data") or {})
        model = path.removeprefix("metrics/").removesuffix(".json")
        if model not in lock or any(score not in scores for score in SCORES):
            continue
        used = settings(model, lock)
        if used is None or any(used[key] != params[key] for key in used.keys() & params.keys()):
            stale.add(model)
        else:
            used.pop("seed", None)
            row = {"model": model, "seed": params["seed"], "settings": used}
            rows.append(row | {score: scores[score] for score in SCORES})
    return rows, stale


def summarize(rows: list[Json]) -> Any:
    """Summarize the rows in a pandas DataFrame with a row per model and settings.

    Its columns are model, settings (those that differ between the model's rows, as text), seeds
    (their number), and mean and std of each score; std is NaN for a single seed.
    """
    import pandas as pd

    by_model: dict[str, dict[str, list[Json]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_model[row["model"]][json.dumps(row["settings"], sort_keys=True)].append(row)
    summary = []
    for model, groups in by_model.items():
        used = [json.loads(key) for key in groups]
        names = sorted(set().union(*used))
        differ = [
            name
            for name in names
            if len({json.dumps(each.get(name), sort_keys=True) for each in used}) > 1
        ]
        for each, group in zip(used, groups.values(), strict=True):
            # Two runs with the same seed are the same run, and count once.
            table = pd.DataFrame(group).drop_duplicates("seed")
            summary.append(
                {
                    "model": model,
                    "settings": ", ".join(f"{name}={_text(each.get(name))}" for name in differ),
                    "seeds": len(table),
                }
                | {
                    f"{score} {statistic}": table[score].agg(statistic)
                    for score in SCORES
                    for statistic in ("mean", "std")
                }
            )
    return pd.DataFrame(summary)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def readable(summary: Any) -> Any:
    """Format the summary as text, with one cell per score; omit the settings if none differ."""
    import pandas as pd

    table = summary[["model", "settings", "seeds"]].astype(str)
    for score, heading in zip(SCORES, HEADINGS, strict=True):
        pairs = zip(summary[f"{score} mean"], summary[f"{score} std"], strict=True)
        table[heading] = [f"{m:.3f}" + ("" if pd.isna(s) else f" ± {s:.3f}") for m, s in pairs]
    return table if summary["settings"].any() else table.drop(columns="settings")


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError(f"{command[0]}: no such program here") from None
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise InputError(f"{' '.join(command[-3:])}: {reason.removeprefix('ERROR: ')}")
    return done.stdout


def _show(table: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in table:
        text = name in ("model", "settings")
        shown.add_column(
            name, justify="left" if text else "right", no_wrap=name != "settings", overflow="fold"
        )
    for row in table.itertuples(index=False):
        shown.add_row(*row)
    console = Console(
        # A pipe or a file has no width limit.
        width=None if sys.stdout.isatty() else 500,
        # Bold is not a colour, but a user who sets NO_COLOR wants plain text.
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        markup=False,
        highlight=False,
    )
    console.print(shown)
    console.print(NOTE, style="dim")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m commands.seeds",
        description="Mean and standard deviation of each model over the seeds of experiments.",
        epilog=f"Run experiments first: {HINT}",
    )
    form = parser.add_mutually_exclusive_group()
    for name in ("md", "csv", "json"):
        form.add_argument(f"--{name}", dest="form", action="store_const", const=name)
    parser.add_argument(
        "-A",
        "--all-commits",
        action="store_true",
        help="use the experiments of all commits, not only of HEAD",
    )
    arguments = parser.parse_args()
    if sys.stdout is None:
        raise InputError("standard output is closed: there is nowhere to print to")

    scope = ["--all-commits"] * arguments.all_commits
    dvc = (sys.executable, "-m", "dvc", "exp", "show", "--json")
    experiments, others = finished(json.loads(_run(*dvc, *scope)))
    yaml = YAML(typ="safe", pure=True)
    rows, stale = [], set()
    for experiment in experiments:
        lock = yaml.load(_run("git", "show", f"{experiment['rev']}:./dvc.lock"))["stages"]
        ran, earlier = measured(experiment, lock)
        rows += ran
        stale |= earlier
    if others:
        counts = ", ".join(f"{count} {state}" for state, count in sorted(others.items()))
        print(f"left out: experiments that are not finished: {counts}", file=sys.stderr)
    if left := sorted(stale - {row["model"] for row in rows}):
        print(f"left out: models that no experiment ran: {', '.join(left)}", file=sys.stderr)
    if not rows:
        where = (
            ""
            if arguments.all_commits
            else " of this commit (--all-commits includes those of other commits)"
        )
        raise InputError(f"no finished experiments{where}; run {HINT}")

    order = list(declarations.read_yaml("dvc.yaml")["stages"])
    summary = summarize(sorted(rows, key=lambda row: order.index(row["model"])))
    if arguments.form == "csv":
        print(summary.to_csv(index=False), end="")
    elif arguments.form == "json":
        print(summary.to_json(orient="records", indent=2))
    elif arguments.form == "md":
        table = readable(summary)
        print(table.to_markdown(index=False, disable_numparse=True), NOTE, sep="\n\n")
    else:
        _show(readable(summary))


def quietly() -> None:
    """`main`, as `ending.quietly` ends it."""
    ending.quietly(main)


if __name__ == "__main__":
    stage.run(quietly)
