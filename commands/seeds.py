"""Compute the mean and standard deviation of each model over the seeds of finished experiments.

    dvc exp run --queue -S 'seed=0,1,2,3,4' && dvc queue start
    dvc queue status    # until all have succeeded
    python -m commands.seeds --save && dvc repro report

This command is not a stage. It reads the experiments of the current commit from `dvc exp show
--json`, and dvc.lock as each experiment left it. Runs of a model that differ in anything but the
seed (a parameter, code, data) have separate rows, labelled by what differs. `--save` adds the runs
that differ from dvc.lock in nothing but the seed and the number of training reviews to
metrics/seeds.json, which the report reads. `--keep` keeps the runs there after a change to code
that changes no prediction.
"""

import argparse
import json
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from commands import collecting, ending, programs, terminal
from commands.experiments import SCORES, Json, finished, lock_at, measured
from stages.lib.core import declarations
from stages.lib.core.errors import InputError
from stages.lib.report import seeds as collection

if TYPE_CHECKING:
    from rich.console import Console

HEADINGS = ("val. accuracy", "val. F1", "test accuracy", "test F1")
NOTE = "Mean ± standard deviation (n - 1) over seeds; a single seed has none."
HINT = f"{collection.QUEUE}, then dvc queue start"


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
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--save",
        action="store_true",
        help=f"add the runs to {collection.PATH}, for the report",
    )
    mode.add_argument(
        "--keep",
        nargs="?",
        const="HEAD",
        metavar="REVISION",
        help=f"keep the runs in {collection.PATH} of each model whose predictions are the same as "
        "at a git revision (the last commit), although its code has changed",
    )
    arguments = parser.parse_args()
    if arguments.keep:
        collecting.keep(arguments.keep)
        return
    console = terminal.console()

    scope = ["--all-commits"] * arguments.all_commits
    dvc = (sys.executable, "-m", "dvc", "exp", "show", "--json")
    experiments, others = finished(json.loads(programs.output(*dvc, *scope)))
    locks = [lock_at(experiment["rev"]) for experiment in experiments]
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
        collecting.save(experiments, locks)
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
