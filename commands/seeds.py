"""Compute the mean and standard deviation of each model over the seeds of finished experiments.

    dvc exp run --queue -S 'seed=0,1,2,3,4' && dvc queue start
    python -m commands.seeds --save && dvc repro report

This command is not a stage. It reads the experiments of the current commit from `dvc exp show
--json`, and dvc.lock as each experiment left it. Runs of a model that differ in anything but the
seed (a parameter, code, data) have separate rows, labelled by what differs. `--save` adds the runs
that differ from dvc.lock in nothing but the seed and the number of training reviews to
metrics/seeds.json, which the report reads.
"""

import argparse
import io
import json
import sys
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from commands import ending, programs, terminal
from stages.lib.core import declarations, metrics
from stages.lib.core.errors import InputError
from stages.lib.core.metrics import Download
from stages.lib.core.paths import COSTS, METRICS, PREDICTIONS
from stages.lib.models import registry
from stages.lib.report import seeds as collection
from stages.lib.report.seeds import Run

if TYPE_CHECKING:
    from rich.console import Console

SCORES = ("validation.accuracy", "validation.f1", "test.accuracy", "test.f1")
HEADINGS = ("val. accuracy", "val. F1", "test accuracy", "test F1")
NOTE = "Mean ± standard deviation (n - 1) over seeds; a single seed has none."
HINT = f"{collection.QUEUE}, then dvc queue start"

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
    chain = collection.upstream(lock, model)
    if chain is None:
        return None
    made = collection.producers(lock)
    result: Json = {}
    for entry in chain.values():
        for file, values in entry.get("params", {}).items():
            result |= flat(values, "" if file == "params.yaml" else f"{file}:")
        for dep in entry.get("deps", []):
            if dep["path"] not in made:
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
            # A model that reads no seed has the same run in each experiment.
            seed = used.pop("seed", None)
            row = {"model": model, "seed": seed, "settings": used}
            rows.append(row | {score: scores[score] for score in SCORES})
    return rows, stale


def identities(lock: Json, download: Download) -> dict[str, tuple[str, int | None]]:
    """Return the fingerprint and the seed of each model that dvc.lock has."""
    found = {
        name: collection.identify(lock, name, download["reviews"]) for name in registry.names()
    }
    return {name: identity for name, identity in found.items() if identity}


def runs(
    experiment: Json, wanted: dict[str, tuple[str, int | None]], download: Download
) -> list[Run]:
    """Collect the runs of the models in `wanted` from an experiment, with the reviews that they get
    right.

    `wanted` has their fingerprints and seeds. Raises InputError if predictions are not at hand.
    """
    import pandas as pd
    from dvc.api import DVCFileSystem

    rev = experiment["rev"]
    files = DVCFileSystem(rev=rev)
    collected = []
    for model, (fingerprint, seed) in wanted.items():
        if seed is None:
            continue
        path = f"{PREDICTIONS}/{model}.csv"
        try:
            text = files.read_text(path, encoding="utf-8")
        except FileNotFoundError:
            raise InputError(
                f"{path}: experiment {rev[:7]} has none in DVC's cache: 'dvc exp pull' fetches "
                "it, or run the experiment again"
            ) from None
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
        costs = json.loads(programs.at(rev, COSTS / f"{model}.json"))
        scores = experiment["data"]["metrics"][f"metrics/{model}.json"]["data"]
        collected.append(
            Run(
                model=model,
                seed=seed,
                train=download["train"]["reviews"],
                fingerprint=fingerprint,
                device=str(costs["device"]),
                precision=str(costs["precision"]),
                scores=scores,
                right={
                    str(split): (rows["label"] == rows["prediction"]).to_numpy()
                    for split, rows in table.groupby("split")
                },
            )
        )
    return collected


def merge(before: list[Run], collected: list[Run], current: dict[str, str]) -> list[Run]:
    """Merge collected runs into the earlier ones, without the runs that no longer count.

    The result has one run for each model, number of training reviews and seed, namely the last one
    collected, and is sorted by these three.
    """
    latest = {
        (run.model, run.train, run.seed): run
        for run in [*before, *collected]
        if current.get(run.model) == run.fingerprint
    }
    order = list(current)
    return sorted(latest.values(), key=lambda run: (order.index(run.model), run.train, run.seed))


def lock_of(experiment: Json) -> Json:
    """Return the stages of dvc.lock as the experiment left it."""
    text = programs.at(experiment["rev"], "dvc.lock")
    stages: Json = YAML(typ="safe", pure=True).load(text)["stages"]
    return stages


def save(experiments: list[Json], locks: list[Json]) -> None:
    """Add the runs of experiments that count to metrics/seeds.json."""
    here = metrics.read(METRICS / "download.json", Download)
    lock_here = declarations.read_yaml("dvc.lock")["stages"]
    current = {name: identity[0] for name, identity in identities(lock_here, here).items()}
    collected: list[Run] = []
    outdated: set[str] = set()
    for experiment, lock in zip(experiments, locks, strict=True):
        download: Download = json.loads(programs.at(experiment["rev"], METRICS / "download.json"))
        models = {row["model"] for row in measured(experiment, lock)[0]}
        count = {
            name: identity
            for name, identity in identities(lock, download).items()
            if name in models and identity[0] == current.get(name)
        }
        outdated |= models - count.keys()
        collected += runs(experiment, count, download) if count else []
    write(collected, current, outdated)


def write(collected: list[Run], current: dict[str, str], others: set[str]) -> None:
    """Write metrics/seeds.json, and say what it has now; `others` are models with runs that do not
    count. Raises InputError if dvc.lock does not say which runs of a model count."""
    before = collection.read()
    known = {run.model for run in before} & set(registry.names())
    if stale := sorted(known - current.keys()):
        raise InputError(
            f"dvc.lock: {', '.join(stale)}: not up to date, so that the runs collected before "
            "would be lost: run 'dvc repro' first"
        )
    merged = merge(before, collected, current)
    collection.write(merged)
    removed = {run.model for run in before if run.fingerprint != current.get(run.model)}
    if removed:
        print(
            f"removed: runs with earlier code, data or parameters, of {', '.join(sorted(removed))}",
            file=sys.stderr,
        )
    counts = Counter(run.model for run in merged)
    shown = ", ".join(f"{count} of {model}" for model, count in counts.items()) or "none"
    print(f"runs in {collection.PATH} now: {shown}; 'dvc repro report' uses them", file=sys.stderr)
    if others:
        print(
            f"not saved: runs of {', '.join(sorted(others))} whose code, data or parameters "
            "differ from those in dvc.lock; 'dvc repro' brings dvc.lock up to date",
            file=sys.stderr,
        )


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


def _show(console: "Console", table: Any) -> None:
    shown = terminal.table()
    for name in table:
        text = name in ("model", "settings")
        shown.add_column(
            name, justify="left" if text else "right", no_wrap=name != "settings", overflow="fold"
        )
    for row in table.itertuples(index=False):
        shown.add_row(*row)
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
    parser.add_argument(
        "--save",
        action="store_true",
        help=f"add the runs to {collection.PATH}, for the report",
    )
    arguments = parser.parse_args()
    console = terminal.console()

    scope = ["--all-commits"] * arguments.all_commits
    dvc = (sys.executable, "-m", "dvc", "exp", "show", "--json")
    experiments, others = finished(json.loads(programs.output(*dvc, *scope)))
    locks = [lock_of(experiment) for experiment in experiments]
    rows, stale = [], set()
    for experiment, lock in zip(experiments, locks, strict=True):
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

    if arguments.save:
        save(experiments, locks)
    stages = declarations.read_yaml("dvc.yaml")["stages"]
    order = {name: place for place, name in enumerate(stages)}
    # Experiments of other commits may have models that dvc.yaml no longer has.
    summary = summarize(sorted(rows, key=lambda row: order.get(row["model"], len(order))))
    if arguments.form == "csv":
        print(summary.to_csv(index=False), end="")
    elif arguments.form == "json":
        print(summary.to_json(orient="records", indent=2))
    elif arguments.form == "md":
        table = readable(summary)
        print(table.to_markdown(index=False, disable_numparse=True), NOTE, sep="\n\n")
    else:
        _show(console, readable(summary))


if __name__ == "__main__":
    ending.run(main)
