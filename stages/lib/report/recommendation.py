"""The section "Which adaptation should I use?": scores, costs, and the recommendation they imply.

The choice is made on the validation split; the test split only shows what to expect of the chosen
model. Costs are ranked by trainable parameters, which are the same on every machine and in every
run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from statistics import mean, stdev

import numpy as np
from matplotlib.axes import Axes

from stages.lib.core.costs import ModelCosts
from stages.lib.core.metrics import Score
from stages.lib.report import data, drawing, others, spread, statistics
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
    plural,
    points,
    seconds,
    size,
    span,
)
from stages.lib.report.inputs import Results
from stages.lib.schema.params import Report


@dataclass(frozen=True)
class Choice:
    """The outcome of `decide`, from the cheapest model to the most expensive one.

    `best` has the highest validation accuracy, and so have its `ties`. `picked` is the share of
    draws in which the rule picks each candidate. `contenders` are the candidates picked most often,
    as few as make up the required share.
    """

    best: str
    ties: list[str]
    picked: dict[str, float]
    contenders: list[str]

    @property
    def recommended(self) -> str:
        """The model picked most often."""
        return max(self.picked, key=lambda name: self.picked[name])

    @property
    def statement(self) -> str:
        """The answer in one sentence."""
        if len(self.contenders) == 1:
            return f"Use {self.recommended}."
        return f"{listed(self.contenders)} cannot be told apart."


def decide(
    accuracies: dict[str, float],
    draws: dict[str, np.ndarray],
    costs: dict[str, int],
    rule: Report,
) -> Choice:
    """Apply the rule to bootstrap draws (float [draws]) of the models' accuracies.

    The rule picks the cheapest candidate that is at most `rule.margin` less accurate than the best
    one. Of the models with the same cost, only the most accurate is a candidate, because there is
    no reason to choose another. Applied to the accuracies alone, the rule could change its answer
    with a single review; in the draws, a model close to the margin is picked in some and not in
    others.
    """
    by_cost = sorted(accuracies, key=lambda name: (costs[name], -accuracies[name]))
    candidates = [next(group) for _, group in groupby(by_cost, key=lambda name: costs[name])]
    drawn = np.stack([draws[name] for name in candidates], axis=1)
    # Rounding must not decide on a model that is exactly at the margin.
    close_enough = drawn >= drawn.max(1, keepdims=True) - rule.margin - 1e-9
    shares = np.bincount(close_enough.argmax(1), minlength=len(candidates)) / len(drawn)
    picked = dict(zip(candidates, shares.tolist(), strict=True))
    contenders: list[str] = []
    for name in sorted(candidates, key=lambda name: -picked[name]):
        contenders.append(name)
        if sum(picked[one] for one in contenders) >= rule.share:
            break
    top = max(accuracies.values())
    best, *ties = [name for name in by_cost if accuracies[name] == top]
    return Choice(best, ties, picked, sorted(contenders, key=candidates.index))


def choose(results: Results) -> Choice:
    """Decide on the validation split."""
    return decide(
        {name: results.accuracy(name, "validation") for name in results.models},
        results.draws("validation"),
        {name: _cost(results, name) for name in results.models},
        results.rule,
    )


def section(results: Results, choice: Choice) -> Section:
    """Build the section: the answer, its picture, and the tables of scores and of the decision."""
    said, *reasons = answer(results, choice)
    return Section(
        "choice",
        "Which adaptation should I use?",
        [
            said,
            _figure(results, choice),
            _table(results),
            *others.compare(results),
            Text(_how_to_read(results)),
            *reasons,
            _picks(results, choice),
            *spread.strips(results),
        ],
    )


def answer(results: Results, choice: Choice) -> list[Block]:
    """State the recommendation and its reason, what to expect on test, the rule, and the seeds."""
    reason = _one(results, choice) if len(choice.contenders) == 1 else _several(results, choice)
    said = f"**{choice.statement}** {reason} {_expected(results, choice)}"
    return [Text(said, "answer"), Text(_rule(results)), Text(spread.sentence(results))]


def _one(results: Results, choice: Choice) -> str:
    """Say why one model is recommended."""
    name, best, ties = choice.recommended, choice.best, choice.ties
    top = _validation(results, best)
    picked = f"The rule below picks {name} in {_share(choice.picked[name])} of the draws."
    if name != best:
        have = f"{listed([best, *ties])} have" if ties else f"{best} has"
        return (
            f"{have} the highest validation accuracy ({top}), but {name} "
            f"({_validation(results, name)}) comes close enough: "
            f"{_difference(results, name, best)}. {name} {_saves(results, name, best)}. {picked}"
        )
    if not ties:
        said = f"It has the highest validation accuracy ({top})"
    elif _cost(results, ties[0]) == _cost(results, best):
        said = f"On validation, {listed([best, *ties])} have the same accuracy ({top})"
    else:
        said = (
            f"On validation, {listed([best, *ties])} have the same accuracy ({top}), and of these "
            f"{best} trains the fewest parameters"
        )
    cheaper = [one for one in results.models if _cost(results, one) < _cost(results, best)]
    if not cheaper:
        return f"{said}. No model trains fewer parameters. {picked}"
    closest = max(cheaper, key=lambda one: results.accuracy(one, "validation"))
    return (
        f"{said}. The best model that trains fewer parameters, {closest} "
        f"({_validation(results, closest)}), does not come close enough: "
        f"{_difference(results, closest, best)}. {picked}"
    )


def _several(results: Results, choice: Choice) -> str:
    """Say that there is no single answer, and give the choice that a reader can make."""
    names = choice.contenders
    shares = [
        f"{name} in {_share(choice.picked[name])}"
        for name in sorted(names, key=lambda name: -choice.picked[name])
    ]
    said = (
        f"On {plural(results.count('validation'), 'validation review')}, the rule below picks "
        f"{listed(shares)} of the draws."
    )
    cheap = names[0]
    good = max(names, key=lambda name: results.accuracy(name, "validation"))
    if cheap == good:
        said += (
            f" {cheap} trains the fewest parameters of them and has the highest validation "
            f"accuracy ({_validation(results, cheap)})."
        )
        better = max(
            results.difference(name, cheap, "validation").interval.high
            for name in names
            if name != cheap
        )
        if better < 0.0005:
            return f"{said} Take it: no other is likely to be better on new reviews."
        return (
            f"{said} Take it unless accuracy counts far more than cost: these reviews cannot "
            f"exclude that another one of them is up to {100 * better:.1f} points better on new "
            "reviews."
        )
    return (
        f"{said} Take {cheap} where cost counts more than the accuracy that it may lose: compared "
        f"with {good}, {_difference(results, cheap, good)}, but {cheap} "
        f"{_saves(results, cheap, good)}. "
        f"Take {good}, the most accurate of them on validation ({_validation(results, good)}), "
        "where accuracy counts more than cost."
    )


def _expected(results: Results, choice: Choice) -> str:
    """State the test accuracy of the contenders.

    Of more than two, only the cheapest and the most accurate are named, or the one picked most
    often where the cheapest is the most accurate.
    """
    names = choice.contenders
    if len(names) > 2:
        good = max(names, key=lambda name: results.accuracy(name, "validation"))
        names = [names[0], good] if good != names[0] else [good, choice.recommended]
    names = list(dict.fromkeys(names))

    def shown(name: str) -> str:
        what = "mean accuracy" if results.seeds.others[name] else "accuracy"
        interval = results.interval(name, "test")
        return (
            f"the {what} of {name} is {results.accuracy(name, 'test'):.3f} "
            f"(95% interval {interval.low:.3f} to {interval.high:.3f})"
        )

    return (
        "On the test split, which played no part in the choice, "
        f"{listed([shown(name) for name in names])}."
    )


def _rule(results: Results) -> str:
    margin, share = 100 * results.rule.margin, f"{100 * results.rule.share:g}%"
    resampled = "the validation reviews"
    if results.several_seeds:
        resampled += " and of the seeds (a hierarchical bootstrap; see the section on differences)"
    return (
        "The rule is to take, of the models whose validation accuracy is at most "
        f"{margin:g} percentage {'point' if margin == 1 else 'points'} below that of the best, "
        "the one with the fewest trainable parameters; among models with the same number, only "
        "the most accurate is considered. Which model this is may depend on a few reviews, so the "
        f"rule is applied to {statistics.DRAWS:,} bootstrap draws of {resampled}. If it picks one "
        f"model in at least {share} of the draws, that model is recommended. If not, the answer is "
        f"that the fewest models that together account for {share} of the draws cannot be told "
        "apart. Both figures are parameters, `report.margin` and `report.share`."
    )


def _cost(results: Results, name: str) -> int:
    return results.costs[name]["trainable_parameters"]


def _difference(results: Results, first: str, second: str) -> str:
    found = results.difference(first, second, "validation")
    return (
        f"the expected difference on new reviews is {points(found.difference)} points (95% "
        f"interval {between(found.interval.low, found.interval.high)})"
    )


def _saves(results: Results, name: str, other: str) -> str:
    mine, its = results.costs[name], results.costs[other]
    return (
        f"trains {mine['trainable_parameters']:,} parameters instead of "
        f"{its['trainable_parameters']:,}, took {seconds(mine['seconds'])} to train instead of "
        f"{seconds(its['seconds'])}, and takes {size(mine['size_bytes'])} on disk instead of "
        f"{size(its['size_bytes'])}"
    )


def _share(share: float) -> str:
    """Format a share of the draws; only all and none are 100% and 0%."""
    if 0 < share < 0.001:
        return "under 0.1%"
    if 0.999 < share < 1:
        return "over 99.9%"
    return f"{100 * share:.3g}%"


def _validation(results: Results, name: str) -> str:
    return f"{results.accuracy(name, 'validation'):.3f}"


def _picks(results: Results, choice: Choice) -> Table:
    rows: list[list[Cell | str]] = []
    models = sorted(
        results.models, key=lambda name: (_cost(results, name), name not in choice.picked)
    )
    for name in models:
        against: Cell | str = Cell("\N{EN DASH}")
        if name != choice.best:
            found = results.difference(name, choice.best, "validation")
            interval = found.interval
            against = Cell(points(found.difference), between(interval.low, interval.high))
        picked = _share(choice.picked[name]) if name in choice.picked else "not considered"
        rows.append([name, f"{_cost(results, name):,}", against, picked])
    return Table(
        "picks",
        "The decision, from the cheapest model to the most expensive one: the expected difference "
        f"in accuracy from {choice.best} on new reviews, in percentage points with its 95% "
        "interval, and the share of draws in which the rule picks the model.",
        ["model", "trainable parameters", f"difference from {choice.best}", "picked in"],
        rows,
    )


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
            row += others.PUBLISHED.get(name, ("", "", ""))
        rows.append(row + _costs(results.costs[name]))
    deviations = (
        ", their standard deviation over seeds, 95%" if results.several_seeds else " with 95%"
    )
    return Table(
        "scores",
        f"Scores{deviations} intervals, and costs.",
        columns,
        rows,
    )


def _score(results: Results, name: str, split: str, score: Score) -> str:
    """Format a score, with several seeds as mean and standard deviation (n - 1)."""
    values = results.by_seed(name, split, score)
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _accuracy(results: Results, name: str, split: str) -> Cell:
    interval = results.interval(name, split)
    return Cell(_score(results, name, split, "accuracy"), span(interval.low, interval.high))


def _f1(results: Results, name: str, split: str) -> Cell:
    shown = _score(results, name, split, "f1")
    if results.seeds.others[name]:
        return Cell(shown)
    table = results.predictions[name][split]
    interval = statistics.bootstrap_f1(table["label"], table["prediction"], results.labels)
    return Cell(shown, span(interval.low, interval.high))


def _costs(cost: ModelCosts) -> list[Cell | str]:
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
    if results.several_seeds:
        intervals = (
            "The number after ± is the standard deviation over seeds (n - 1). The 95% intervals "
            "are in small print or brackets: percentiles of the bootstrap draws for a mean over "
            "seeds, which cover reviews and seeds"
        )
        if all(results.seeds.others.values()):
            intervals += "."
        else:
            intervals += (
                ", and, for a model with one seed, Wilson's for accuracy and the percentile "
                "bootstrap for F1, which cover the reviews alone."
            )
    else:
        intervals = (
            "The 95% intervals are in small print or brackets: Wilson's for accuracy, the "
            f"percentile bootstrap for F1 ({statistics.RESAMPLES:,} resamples of the reviews). "
            "They reflect the sampling of reviews, not the variation between seeds."
        )
    return (
        f"{intervals} {f1}. Training time includes the "
        "evaluations (for the SVM, all values of C). Peak memory is that of the process (on a GPU, "
        "that of the GPU). Size on disk is what was saved; for LoRA that is the adapter and the "
        "head, which also need the backbone. The SVM and the head train on cached [CLS] vectors, "
        "whose extraction is not counted. Costs were measured once "
        f"({data.machines(results)})."
    )


def _figure(results: Results, choice: Choice) -> Figure:
    def panel(title: str, axis: str, cost: Callable[[ModelCosts], float]) -> Panel:
        def draw(ax: Axes, ink: Ink) -> None:
            for number, name in enumerate(results.models):
                accuracy, interval = (
                    results.accuracy(name, "test"),
                    results.interval(name, "test"),
                )
                drawing.point(ax, ink, number, cost(results.costs[name]), accuracy, interval)
            ax.set_xscale("log")
            ax.set_xlabel(axis)
            ax.set_ylabel("test accuracy")

        return Panel(title, draw)

    name = choice.recommended
    cheapest = min(results.models, key=lambda name: _cost(results, name))
    least, most = results.costs[cheapest], results.costs[name]
    finding = (
        f"Test accuracy against cost, on logarithmic scales. {cheapest} trains the fewest "
        f"parameters ({least['trainable_parameters']:,}) and scores "
        f"{results.accuracy(cheapest, 'test'):.3f}; {name}, the model picked most often, trains "
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
