"""The section "How many labels do I need?": accuracy against the number of training reviews."""

from collections.abc import Sequence
from itertools import takewhile

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from stages.lib.report import drawing, recommendation, statistics
from stages.lib.report.content import Figure, Ink, Panel, Section, Table, Text, between, listed
from stages.lib.report.inputs import Results
from stages.lib.report.recommendation import Choice

KEY = "learning"

# By number of training reviews: the choice, and the draws that it follows from [draws, models].
Decisions = dict[int, tuple[Choice, np.ndarray]]


def sections(results: Results) -> list[Section]:
    """Build the section, or none where no model was trained on several numbers of reviews."""
    models, sizes = compared(results)
    if not models:
        return []
    decided = {size: _decide(results, models, size) for size in sizes}
    return [
        Section(
            KEY,
            "How many labels do I need?",
            [
                Text(_finding(results, models, decided), "answer"),
                _figure(results, models),
                _table(results, models, decided),
                Text(
                    "Training reviews are chosen by `dataset.train`, stratified by label, and "
                    "each larger set contains the smaller ones; validation and test are always "
                    "whole. Epochs of a small set pass over it several times, until a training "
                    "has `min_steps` steps. Scores are means over seeds, and the last column "
                    "applies the rule of the first section at each size."
                ),
            ],
        )
    ]


def compared(results: Results) -> tuple[list[str], list[int]]:
    """Return the models that were trained on several numbers of reviews, and the numbers that all
    of them have; both are empty if there are fewer than two such numbers."""
    found = {name: results.by_size(name, "test") for name in results.models}
    models = [name for name, by_size in found.items() if len(by_size) > 1]
    sizes = sorted(set.intersection(*(set(found[name]) for name in models))) if models else []
    return (models, sizes) if len(sizes) > 1 else ([], [])


def table(results: Results, model: str) -> pd.DataFrame:
    """Return a row for each number of training reviews: seeds, and test accuracy by seed.

    The columns are reviews, seeds, accuracy (the mean), lowest and highest.
    """
    rows = []
    for size, right in results.by_size(model, "test").items():
        accuracies = right.mean(1)
        rows.append(
            {
                "reviews": size,
                "seeds": len(accuracies),
                "accuracy": accuracies.mean(),
                "lowest": accuracies.min(),
                "highest": accuracies.max(),
            }
        )
    return pd.DataFrame(rows)


def _decide(results: Results, models: Sequence[str], size: int) -> tuple[Choice, np.ndarray]:
    """Apply the rule of the recommendation at one size; also returns the draws [draws, models]."""
    runs = [results.by_size(name, "validation")[size] for name in models]
    draws = statistics.draw_accuracies(runs)
    choice = recommendation.decide(
        {name: float(right.mean()) for name, right in zip(models, runs, strict=True)},
        dict(zip(models, draws.T, strict=True)),
        {name: results.costs[name]["trainable_parameters"] for name in models},
        results.rule,
    )
    return choice, draws


def _finding(results: Results, models: list[str], decided: Decisions) -> str:
    said = [_cheapest(results, models, decided)] if len(models) > 1 else []
    *_, before, last = decided
    names = [decided[size][0].best for size in (before, last)]
    first, second = (
        _mean(results, name, "test", size) for name, size in zip(names, (before, last), strict=True)
    )
    more = "more labels may still help" if second - first > results.rule.margin else (
        "more labels would hardly help"
    )  # fmt: skip
    said.append(
        f"From {before:,} to {last:,} reviews, the test accuracy of the best model on "
        f"validation goes from {first:.3f} ({names[0]}) to {second:.3f} ({names[1]}), so {more}."
    )
    return " ".join(said)


def _cheapest(results: Results, models: list[str], decided: Decisions) -> str:
    """Say up to how many reviews the cheapest model is as good as the others."""
    sizes = list(decided)
    cheap = min(models, key=lambda name: results.costs[name]["trainable_parameters"])
    enough = list(takewhile(lambda size: cheap in decided[size][0].contenders, sizes))
    every = len(models) == len(results.models)
    of_them = "" if every else f" of {listed(models)}"
    least = f"{cheap}, which trains the fewest parameters{of_them},"
    if enough:
        of = "up to" if enough == sizes else "no more than"
        said = (
            f"With {of} {enough[-1]:,} training reviews, {least} is as good as any other "
            f"{'model' if every else 'of these'}, as far as the validation reviews can tell."
        )
    else:
        best = "the best choice" if every else "the best choice of these"
        said = f"Even with {sizes[0]:,} training reviews, {least} is not {best}."
    if len(enough) < len(sizes):
        size = sizes[len(enough)]
        choice, draws = decided[size]
        better = choice.recommended
        difference = statistics.difference(
            draws[:, models.index(better)],
            draws[:, models.index(cheap)],
            _mean(results, better, "validation", size) - _mean(results, cheap, "validation", size),
        )
        interval = difference.interval
        said += (
            f" With {size:,}, {better} is {100 * difference.difference:.1f} points better on "
            f"validation (95% interval {between(interval.low, interval.high)})."
        )
    return said


def _mean(results: Results, model: str, split: str, size: int) -> float:
    return float(results.by_size(model, split)[size].mean())


def _figure(results: Results, models: list[str]) -> Figure:
    curves = {name: table(results, name) for name in models}
    sizes = sorted({int(size) for rows in curves.values() for size in rows["reviews"]})

    def draw(ax: Axes, ink: Ink) -> None:
        for number, name in enumerate(results.models):
            if name in curves:
                rows = curves[name]
                drawing.line(ax, ink, number, list(rows["reviews"]), list(rows["accuracy"]))
                drawing.ranges(
                    ax, ink, number, list(rows["reviews"]), rows["lowest"], rows["highest"]
                )
        ax.set_xscale("log")
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
        ax.minorticks_off()
        ax.set_xlabel("training reviews")
        ax.set_ylabel("test accuracy")

    ends = [
        f"{name} from {rows['accuracy'].iloc[0]:.3f} with {rows['reviews'].iloc[0]:,} reviews to "
        f"{rows['accuracy'].iloc[-1]:.3f} with {rows['reviews'].iloc[-1]:,}"
        for name, rows in curves.items()
    ]
    return Figure(
        KEY,
        "Test accuracy against the number of training reviews, on a logarithmic scale: means over "
        "seeds, with bars from the lowest to the highest seed.",
        f"Test accuracy by the number of training reviews: {'; '.join(ends)}.",
        [Panel("Learning curve", draw)],
        {name: number for number, name in enumerate(results.models) if name in curves},
        height=3.4,
    )


def _table(results: Results, models: list[str], decided: Decisions) -> Table:
    rows = []
    for size, (choice, _) in decided.items():
        cells = [f"{size:,}"]
        for name in models:
            accuracies = results.by_size(name, "test")[size].mean(1)
            spread = f" ± {accuracies.std(ddof=1):.3f}" if len(accuracies) > 1 else ""
            cells.append(f"{accuracies.mean():.3f}{spread}")
        rows.append([*cells, choice.statement])
    return Table(
        f"{KEY}-table",
        "Test accuracy by the number of training reviews, with the standard deviation over seeds "
        "(one seed has none), and what the rule says about models trained on as many.",
        ["training reviews", *models, "choice"],
        rows,
        prose=["choice"],
    )
