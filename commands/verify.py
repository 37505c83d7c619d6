"""Verify that the committed scores can be reproduced on this machine.

    make verify, or python -m commands.verify
    python -m commands.verify --subset 256

The pipeline runs up to the scores in a git worktree of the last commit, with an empty DVC cache of
its own, so that nothing is restored: only pip's and the Hub's downloads are reused. The reviews and
the backbone are taken from the source that the committed results are from, even where
`source: auto` would now choose another one. Each model is then compared with the commit:

- "same bytes": the hash of its predictions is the one in dvc.lock.
- "within the seeds' spread": on validation and on test, its accuracy differs from the committed one
  by at most two standard deviations of a difference between two seeds. The standard deviation of a
  difference is √2 times that over seeds. This rule applies if at least three seeds of the model
  count, which are those of metrics/seeds.json and the committed run, and if they vary.
- "within the 95% interval": for other models, its accuracy on validation and on test is in Wilson's
  95% interval of the committed accuracy, which covers the choice of reviews but not that of seeds
  (the intervals in the README cover both). A limit of one point would be too narrow:
  two runs of one seed in bf16 with different roundings (tests/lib/report/runs) differ by 1.6 points
  in the test accuracy of lora. A paired comparison of the predictions would call that difference
  real (p = 0.04), and a clone does not have the committed predictions.
- "differs by": otherwise. Then the exit status is 1.

F1 plays no part: in those two runs, that of finetune-head on test differs by 2.4 points while the
accuracy is the same.

With `--subset N` the pipeline runs on N reviews per split, in fp32, which every machine has. The
committed figures are those of metrics/verify-subset.json, which `--save` writes, because dvc.lock
is about all reviews. To run the subset twice instead would only show that a machine repeats itself.
There are no seeds of a subset, so the intervals apply.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import stdev
from typing import TYPE_CHECKING, TypedDict

from commands import apart, ending, programs, repro, terminal
from stages.lib.core import declarations, metrics, outputs, paths
from stages.lib.core.costs import ModelCosts
from stages.lib.core.errors import InputError
from stages.lib.core.metrics import Download
from stages.lib.models import registry
from stages.lib.report import content, seeds
from stages.lib.schema import params
from stages.lib.sources import local

if TYPE_CHECKING:
    from rich.console import Console

SAVED = paths.METRICS / "verify-subset.json"
DECLARED, LOCK = Path("dvc.yaml"), Path("dvc.lock")
DOWNLOAD = paths.METRICS / "download.json"
SEEDS_NEEDED = 3
# A difference between two runs varies more than a run.
DEVIATIONS = 2 * math.sqrt(2)
# Accuracies are written with six digits.
ROUNDING = 1e-6


class Accuracy(TypedDict):
    accuracy: float
    reviews: int


class Figures(TypedDict):
    """What is compared of a model: the MD5 of its predictions, where they are from, and scores."""

    predictions: str
    machine: str
    validation: Accuracy
    test: Accuracy


class Subset(TypedDict):
    """metrics/verify-subset.json; `subset` is the number of reviews per split."""

    subset: int
    models: dict[str, Figures]


def judge(
    committed: Figures, here: Figures, others: Mapping[str, Sequence[float]]
) -> tuple[str, bool]:
    """Return the verdict on a model, and whether its committed accuracies came out.

    `others` are the accuracies of the model's other seeds by split. The rule is that of the module.
    """
    if committed["predictions"] == here["predictions"]:
        return "same bytes", True
    before = {"validation": committed["validation"], "test": committed["test"]}
    after = {"validation": here["validation"], "test": here["test"]}
    found = {split: after[split]["accuracy"] - before[split]["accuracy"] for split in before}
    spread = {
        split: stdev([before[split]["accuracy"], *others[split]])
        for split in others
        if len(others[split]) + 1 >= SEEDS_NEEDED
    }
    if spread and min(spread.values()) > 0:
        name = "the seeds' spread"
        bounds = {split: (-DEVIATIONS * s, DEVIATIONS * s) for split, s in spread.items()}
    else:
        name = "the 95% interval"
        bounds = {split: _interval(accuracy) for split, accuracy in before.items()}
    outside = [
        f"{content.points(found[split])} points on {split} (limits: {content.between(low, high)})"
        for split, (low, high) in bounds.items()
        if not low - ROUNDING <= found[split] <= high + ROUNDING
    ]
    if outside:
        return f"differs by {content.listed(outside)}", False
    return f"within {name}", True


def _interval(accuracy: Accuracy) -> tuple[float, float]:
    """Return Wilson's 95% interval of an accuracy, relative to it."""
    from stages.lib.report import statistics

    right = round(accuracy["accuracy"] * accuracy["reviews"])
    interval = statistics.wilson(right, accuracy["reviews"])
    return interval.low - accuracy["accuracy"], interval.high - accuracy["accuracy"]


def read(project: Path) -> dict[str, Figures]:
    """Read the figures of each model in a project. Raises InputError if one is missing."""
    lock = declarations.read_yaml(str(project / LOCK))["stages"]
    hashes = {out["path"]: out["md5"] for each in lock.values() for out in each.get("outs", [])}
    facts = metrics.read(project / DOWNLOAD, Download)
    figures: dict[str, Figures] = {}
    for name in registry.names(project / DECLARED):
        scores = json.loads((project / _scores(name)).read_text(encoding="utf-8"))
        costs = metrics.read(project / paths.COSTS / f"{name}.json", ModelCosts)
        predictions = f"{paths.PREDICTIONS}/{name}.csv"
        if predictions not in hashes:
            raise InputError(f"{LOCK}: no {predictions}; 'dvc repro {name}' writes it")
        figures[name] = {
            "predictions": hashes[predictions],
            "machine": f"{costs['device']}, {costs['precision']}",
            "validation": {
                "accuracy": scores["validation"]["accuracy"],
                "reviews": facts["validation"]["reviews"],
            },
            "test": {
                "accuracy": scores["test"]["accuracy"],
                "reviews": facts["test"]["reviews"],
            },
        }
    return figures


def _scores(model: str) -> Path:
    return paths.METRICS / f"{model}.json"


def check(project: Path) -> None:
    """Raise InputError unless the commit has what its results are compared with."""
    files = [DECLARED, LOCK, DOWNLOAD, seeds.PATH]
    for file in files:
        _check_committed(project, file)
    for name in registry.names(project / DECLARED):
        _check_committed(project, _scores(name))
        _check_committed(project, paths.COSTS / f"{name}.json")


def _check_committed(project: Path, file: Path) -> None:
    if not (project / file).is_file():
        raise InputError(
            f"{file}: not in the last commit, which is what is verified; run 'dvc repro', then "
            "commit dvc.lock and metrics/"
        )


def other_seeds(project: Path, models: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Return the accuracies of the other seeds that count, by model and split."""
    lock = declarations.read_yaml(str(project / LOCK))["stages"]
    facts = metrics.read(project / DOWNLOAD, Download)
    counting = seeds.group(seeds.read(project / seeds.PATH), lock, models, facts).others
    return {
        name: {split: [run.scores[split]["accuracy"] for run in runs] for split in seeds.SPLITS}
        for name, runs in counting.items()
    }


def saved(project: Path, subset: int, models: Sequence[str]) -> dict[str, Figures]:
    """Read the committed figures of a subset. Raises InputError if there are none of this size and
    of these models."""
    again = f"'python -m commands.verify --subset {subset} --save' writes it; then commit it"
    if not (project / SAVED).is_file():
        raise InputError(f"{SAVED}: not in the last commit; {again}")
    found = metrics.read(project / SAVED, Subset)
    if found["subset"] != subset:
        raise InputError(
            f"{SAVED}: has figures of {found['subset']} reviews per split, not {subset}; {again}"
        )
    if wrong := sorted(set(models) ^ set(found["models"])):
        raise InputError(f"{SAVED}: has other models than dvc.yaml ({', '.join(wrong)}); {again}")
    return found["models"]


def source(project: Path) -> dict[str, str]:
    """Return the parameter `source` of the committed results, unless all data are the user's."""
    facts = metrics.read(project / DOWNLOAD, Download)
    found = {facts["reviews"]["source"], facts["backbone"]["source"]} - {"local"}
    return {"source": found.pop()} if found else {}


def own_data(project: Path) -> list[str]:
    """List the sections of params.yaml that gave the committed results the user's own data.

    Raises InputError if those data are neither in the commit nor in the workspace.
    """
    facts = metrics.read(project / DOWNLOAD, Download)
    settings = declarations.read_yaml(str(project / params.PATH))
    found = []
    for section, source in (
        ("dataset", facts["reviews"]["source"]),
        ("backbone", facts["backbone"]["source"]),
    ):
        if source != "local":
            continue
        path = Path(settings[section]["path"])
        if not any(each.exists() and local.is_given(each) for each in (project / path, path)):
            raise InputError(
                f"params.yaml: {section}.path: the committed results are of your own data in "
                f"{path}, which are neither here nor in the commit"
            )
        found.append(section)
    return found


def show(
    console: "Console",
    committed: Mapping[str, Figures],
    here: Mapping[str, Figures],
    verdicts: Mapping[str, str],
) -> None:
    """Print the accuracies of both runs, the machines that they are from, and the verdicts."""
    table = terminal.table()
    table.add_column("model", no_wrap=True)
    for name in ("val. accuracy", "here", "test accuracy", "here"):
        table.add_column(name, justify="right")
    table.add_column("verdict", overflow="fold")
    for model, verdict in verdicts.items():
        before, after = committed[model], here[model]
        accuracies = (
            before["validation"],
            after["validation"],
            before["test"],
            after["test"],
        )
        table.add_row(model, *(f"{each['accuracy']:.3f}" for each in accuracies), verdict)
    console.print("", table, "")
    console.print(f"Committed: {_machines(committed)}. Here: {_machines(here)}.")


def _extent(committed: Mapping[str, Figures], subset: int | None, project: Path) -> str:
    """Describe what is run, and how long it took where it was committed."""
    if subset is not None:
        return f"on {subset} reviews per split"
    files = sorted((project / paths.COSTS).glob("*.json"))
    seconds = sum(json.loads(file.read_text(encoding="utf-8")).get("seconds", 0) for file in files)
    return f"on all reviews, which took {content.seconds(seconds)} on {_machines(committed)}"


def _machines(figures: Mapping[str, Figures]) -> str:
    return "; ".join(dict.fromkeys(each["machine"] for each in figures.values()))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m commands.verify",
        description="Run the last commit's pipeline anew, and compare with its committed scores.",
    )
    parser.add_argument(
        "--subset",
        type=int,
        metavar="N",
        help=f"only N reviews per split, in fp32; compare with {SAVED}",
    )
    parser.add_argument(
        "--save", action="store_true", help="with --subset, write that file instead of comparing"
    )
    arguments = parser.parse_args()
    subset = arguments.subset
    if arguments.save and subset is None:
        raise InputError(
            "--save: only with --subset; scores of all reviews are those that you commit"
        )
    console = terminal.console()
    commit = programs.output("git", "rev-parse", "--short", "HEAD").strip()
    if changed := programs.changed():
        print(
            f"warning: {changed}: changed since the last commit, so not verified", file=sys.stderr
        )
    with apart.worktree("verify") as project:
        check(project)
        models = registry.names(project / DECLARED)
        if subset is None:
            committed, others = read(project), other_seeds(project, models)
        else:
            committed = {} if arguments.save else saved(project, subset, models)
            others = {name: {} for name in models}
        apart.isolate(project, project / ".dvc/cache")
        small = {} if subset is None else {"dataset__subset": subset, "precision": "fp32"}
        apart.set_params(project, own_data(project), **source(project), **small)
        print(f"Verifying commit {commit} {_extent(committed, subset, project)}", flush=True)
        # The stage that computes a model's scores has the model's name.
        if status := repro.reproduce(project, "--force", *models):
            sys.exit(status)
        here = read(project)
    if arguments.save:
        outputs.write_json(SAVED, Subset(subset=subset, models=here))
        print(f"saved in {SAVED}: commit it")
        return
    judged = {name: judge(committed[name], here[name], others[name]) for name in models}
    show(console, committed, here, {name: verdict for name, (verdict, _) in judged.items()})
    if failed := [name for name, (_, holds) in judged.items() if not holds]:
        print(f"Not reproduced: {content.listed(failed)}.")
        sys.exit(1)
    print(f"Reproduced: the committed scores of {content.plural(len(models), 'model')}.")


if __name__ == "__main__":
    ending.run(main)
