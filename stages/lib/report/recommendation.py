"""The section "Which adaptation should I use?": scores, costs, and the recommendation they imply.

The choice is made on the validation split; the test split only shows what to expect of the chosen
model. Costs are ranked by trainable parameters, which are the same on every machine and in every
run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from stages.lib.report import drawing, statistics
from stages.lib.report.content import (
    Block,
    Cell,
    Figure,
    Ink,
    Panel,
    Section,
    Table,
    Text,
    between,
    escape,
    listed,
    megabytes,
    p_value,
    plural,
    points,
    seconds,
    size,
    span,
)
from stages.lib.report.differences import MARGIN, Comparison, compare
from stages.lib.report.inputs import Results

# Figures of the experiment that this pipeline repeats (distilbert-base-uncased, official splits):
# validation accuracy, validation F1 and test accuracy; empty where none was published.
PUBLISHED = {
    "svm": ("0.82", "", "0.80"),
    "finetune-head": ("0.78", "0.77", ""),
    "finetune-full": ("0.80", "0.80", ""),
    "lora-2e-5": ("0.817", "0.812", ""),
    "lora-2e-4": ("0.841", "0.840", ""),
}


@dataclass(frozen=True)
class Choice:
    """The outcome of `choose`.

    `ties` are the other models with the same validation accuracy as `best`; `against_best` compares
    every other model with `best` on the validation split.
    """

    best: str
    ties: list[str]
    recommended: str
    against_best: dict[str, Comparison]


def choose(results: Results) -> Choice:
    """Find the best model on validation, and the cheapest model that is as good.

    As good means not significantly worse (McNemar, Holm), with a 95% interval of the difference
    that excludes a loss above MARGIN. With few reviews no other model meets this, so a model is not
    recommended for being cheap when there are too little data to tell it from the best.
    """

    def cost(name: str) -> tuple[int, float]:
        return results.costs[name]["trainable_parameters"], -results.accuracy(name, "validation")

    top = max(results.accuracy(name, "validation") for name in results.models)
    first = [name for name in results.models if results.accuracy(name, "validation") == top]
    best = min(first, key=cost)
    others = [name for name in results.models if name != best]
    compared = compare(results, "validation", [(name, best) for name in others])
    against_best = {name: compared[name, best] for name in others}
    as_good = [name for name in others if against_best[name].as_good]
    recommended = min([best, *as_good], key=cost)
    return Choice(best, [name for name in first if name != best], recommended, against_best)


def section(results: Results, choice: Choice) -> Section:
    """Build the section: the answer, its picture, and the table of scores and costs."""
    said, rule = answer(results, choice)
    return Section(
        "choice",
        "Which adaptation should I use?",
        [
            said,
            _figure(results, choice),
            _table(results),
            rule,
            Text(_how_to_read(results)),
        ],
    )


def answer(results: Results, choice: Choice) -> list[Block]:
    """State the recommendation, what it saves, what to expect of it, and the rule behind it."""
    name, best = choice.recommended, choice.best
    sentences = [f"**Use {name}.**"]
    if choice.ties:
        tied = listed([*choice.ties, best])
        sentences.append(
            f"On validation, {tied} have the same accuracy, {_validation(results, best)}; the one "
            "with the fewest trainable parameters counts as the best."
        )
    if name == best:
        sentences.append(_best_is_best(results, choice))
    else:
        found = choice.against_best[name]
        sentences.append(
            f"On validation, {best} has the highest accuracy ({_validation(results, best)}), but "
            f"{name} ({_validation(results, name)}) cannot be told apart from it: "
            f"{_difference(found)}, {p_value(found.p)}. {_saves(results, name, best)}"
        )
    interval = _wilson(results, name, "test")
    sentences.append(
        f"On the test split, which played no part in the choice, the accuracy of {name} is "
        f"{results.accuracy(name, 'test'):.3f} "
        f"(95% interval {interval.low:.3f} to {interval.high:.3f})."
    )
    return [Text(" ".join(sentences), "answer"), Text(_rule(results, choice))]


def _rule(results: Results, choice: Choice) -> str:
    unclear = [
        name
        for name, found in choice.against_best.items()
        if found.verdict == "cannot tell" and not found.as_good
    ]
    rule = (
        "The rule is to recommend, of the models that are as good as the best on validation, the "
        "one with the fewest trainable parameters. “As good” means not significantly worse "
        "(McNemar's test, Holm's correction) and, by the 95% interval of the difference, at most "
        f"{100 * MARGIN:.0f} percentage points behind."
    )
    if unclear:
        rule += (
            f" {plural(results.count('validation'), 'validation review')} are too few to tell "
            f"whether {listed(unclear, 'or')} is as good."
        )
    return rule


def _best_is_best(results: Results, choice: Choice) -> str:
    def parameters(name: str) -> int:
        return results.costs[name]["trainable_parameters"]

    best = choice.best
    said = (
        ""
        if choice.ties
        else f"It has the highest validation accuracy ({_validation(results, best)})"
    )
    cheaper = [name for name in choice.against_best if parameters(name) < parameters(best)]
    if not cheaper:
        return f"{said}, and no model has fewer trainable parameters." if said else ""
    closest = max(cheaper, key=lambda name: results.accuracy(name, "validation"))
    found = choice.against_best[closest]
    rest = (
        "no model with fewer trainable parameters is as good: the closest, "
        f"{closest} ({_validation(results, closest)}), is "
        f"{'worse' if found.verdict == 'worse' else 'not shown to be as good'} "
        f"({_difference(found)}, {p_value(found.p)})."
    )
    return f"{said}, and {rest}" if said else rest[0].upper() + rest[1:]


def _difference(found: Comparison) -> str:
    interval = found.pair.interval
    return (
        f"{points(found.pair.difference)} points, 95% interval "
        f"{between(interval.low, interval.high)}"
    )


def _saves(results: Results, name: str, best: str) -> str:
    mine, its = results.costs[name], results.costs[best]
    return (
        f"It trains {mine['trainable_parameters']:,} parameters instead of "
        f"{its['trainable_parameters']:,}, took {seconds(mine['seconds'])} to train instead of "
        f"{seconds(its['seconds'])}, and takes {size(mine['size_bytes'])} on disk instead of "
        f"{size(its['size_bytes'])}."
    )


def _validation(results: Results, name: str) -> str:
    return f"{results.accuracy(name, 'validation'):.3f}"


def _wilson(results: Results, name: str, split: str) -> statistics.Interval:
    right = results.right(name, split)
    return statistics.wilson(int(right.sum()), len(right))


def _table(results: Results) -> Table:
    columns = ["model", "val. accuracy", "val. F1", "test accuracy", "test F1"]
    if results.published_dataset:
        columns += ["published val. accuracy", "published val. F1", "published test accuracy"]
    columns += ["trainable parameters", "training time", "peak memory", "on disk"]
    rows = []
    for name in results.models:
        row: list[Cell | str] = [name]
        for split in ("validation", "test"):
            row += [_accuracy(results, name, split), _f1(results, name, split)]
        if results.published_dataset:
            row += PUBLISHED.get(name, ("", "", ""))
        rows.append(row + _costs(results.costs[name]))
    return Table(
        "scores",
        "Scores with 95% intervals, and costs.",
        columns,
        rows,
    )


def _accuracy(results: Results, name: str, split: str) -> Cell:
    shown = results.scores[name][split]["accuracy"]
    return _with_interval(shown, _wilson(results, name, split))


def _f1(results: Results, name: str, split: str) -> Cell:
    table = results.predictions[name][split]
    interval = statistics.bootstrap_f1(table["label"], table["prediction"], results.labels)
    return _with_interval(results.scores[name][split]["f1"], interval)


def _with_interval(value: float, interval: statistics.Interval) -> Cell:
    return Cell(f"{value:.3f}", span(interval.low, interval.high))


def _costs(cost: dict[str, Any]) -> list[Cell | str]:
    return [
        f"{cost['trainable_parameters']:,}",
        seconds(cost["seconds"]),
        megabytes(cost["peak_memory_mb"]),
        size(cost["size_bytes"]),
    ]


def _how_to_read(results: Results) -> str:
    if len(results.labels) == 2:
        f1 = f"F1 is for the label {escape(results.labels[1])}"
    else:
        f1 = f"F1 is the mean over the {len(results.labels)} labels (macro)"
    machine = results.costs["finetune-full"]
    return (
        "The 95% intervals are in small print or brackets: Wilson's for accuracy, the percentile "
        f"bootstrap for F1 ({statistics.RESAMPLES:,} resamples of the reviews, seed 0). They "
        f"reflect the sampling of reviews, not the variation between seeds. {f1}. Training time "
        "includes the "
        "evaluations (for the SVM, all values of C). Peak memory is that of the process (on a GPU, "
        "that of the GPU). Size on disk is what was saved; for LoRA that is the adapter and the "
        "head, which also need the backbone. The SVM and the head train on cached [CLS] vectors, "
        "whose extraction is not counted. Costs were measured once "
        f"({escape(machine['device'])}, {escape(machine['precision'])})."
    )


def _figure(results: Results, choice: Choice) -> Figure:
    def panel(title: str, axis: str, cost: Callable[[dict[str, Any]], float]) -> Panel:
        def draw(ax: Axes, ink: Ink) -> None:
            for number, name in enumerate(results.models):
                accuracy, interval = results.accuracy(name, "test"), _wilson(results, name, "test")
                drawing.point(ax, ink, number, cost(results.costs[name]), accuracy, interval)
            ax.set_xscale("log")
            ax.set_xlabel(axis)
            ax.set_ylabel("test accuracy")

        return Panel(title, draw)

    name = choice.recommended
    cheapest = min(results.models, key=lambda n: results.costs[n]["trainable_parameters"])
    least, most = results.costs[cheapest], results.costs[name]
    finding = (
        f"Test accuracy against cost, on logarithmic scales. {cheapest} trains the fewest "
        f"parameters ({least['trainable_parameters']:,}) and scores "
        f"{results.accuracy(cheapest, 'test'):.3f}; {name}, the recommended model, trains "
        f"{most['trainable_parameters']:,} and scores {results.accuracy(name, 'test'):.3f}."
    )
    return Figure(
        "cost",
        "Score against cost: test accuracy with its 95% interval against three costs. Up and to "
        "the left is better.",
        finding,
        [
            panel("by parameters trained", "parameters", lambda cost: cost["trainable_parameters"]),
            panel("by training time", "seconds", lambda cost: cost["seconds"]),
            panel("by size on disk", "MB", lambda cost: cost["size_bytes"] / 1e6),
        ],
        {name: number for number, name in enumerate(results.models)},
    )
