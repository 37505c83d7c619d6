"""The section "Where do the models fail?": confusions, calibration, lengths, example reviews."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from scipy.stats import fisher_exact

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
    escape,
    listed,
    p_value,
    plural,
    points,
    span,
)
from stages.lib.report.differences import ALPHA
from stages.lib.report.inputs import Results

SHOWN = 12  # reviews in the list of those that all models get wrong
SHOWN_OF_EACH = 3  # reviews per model in the list of those that only one model gets right
NUMBERED = 8  # the most labels with which a confusion matrix shows counts
NAMED = 20  # the most labels with which it shows their names


def section(results: Results, chosen: str) -> Section:
    """Build the section; where a picture shows all models, the text describes `chosen`."""
    return Section(
        "failures",
        "Where do the models fail?",
        [
            Text(_finding(results), "answer"),
            *_confusions(results, chosen),
            *_calibration(results, chosen),
            *_lengths(results, chosen),
            *_all_wrong(results),
            *_only_one_right(results),
        ],
    )


def all_right(results: Results) -> np.ndarray:
    """Return which test reviews each model gets right: bool [models, reviews]."""
    return np.array([results.right(name, "test") for name in results.models])


def _finding(results: Results) -> str:
    right = all_right(results).sum(0)
    count = len(right)
    wrong, everyone, one = (int((right == n).sum()) for n in (0, len(results.models), 1))
    return (
        f"Of {plural(count, 'test review')}, all models get {everyone:,} right "
        f"({everyone / count:.0%}) and {wrong:,} wrong ({wrong / count:.0%}); on {one:,}, only one "
        "model is right."
    )


# Confusions


def _confusion(results: Results, name: str) -> np.ndarray:
    table = results.predictions[name]["test"]
    return statistics.confusion_matrix(table["label"], table["prediction"], results.labels)


def _confusions(results: Results, chosen: str) -> list[Block]:
    counts = {name: _confusion(results, name) for name in results.models}
    size = len(results.labels)
    figure = Figure(
        "confusion",
        "Confusion matrices on the test split: reviews by true and predicted label. The stronger a "
        "cell's colour, the larger its share of the row.",
        f"Confusion matrices of {listed(list(results.models))}. {_most_confused(results, chosen)}",
        [
            Panel(name, partial(_draw_confusion, counts=c, labels=results.labels))
            for name, c in counts.items()
        ],
        height=2.7 if size <= 6 else 3.6,
    )
    rows = []
    for number, label in enumerate(results.labels):
        row: list[Cell | str] = [label, f"{counts[chosen][number].sum():,}"]
        for name in results.models:
            of_label = counts[name][number]
            total = of_label.sum()
            row.append(
                Cell(
                    f"{of_label[number] / total:.3f}" if total else "\N{EN DASH}",
                    f"{of_label[number]:,}",
                )
            )
        rows.append(row)
    table = Table(
        "recall",
        "Recall: the share of each label's test reviews that the model classifies correctly, and "
        "their number.",
        ["true label", "reviews", *results.models],
        rows,
    )
    return [figure, Text(_most_confused(results, chosen)), table]


def _most_confused(results: Results, name: str) -> str:
    counts = _confusion(results, name).copy()
    np.fill_diagonal(counts, 0)
    if not counts.any():
        return f"{name} makes no error on the test split."
    total, most = int(counts.sum()), int(counts.max())
    names = [
        " taken for ".join(escape(results.labels[number]) for number in cell)
        for cell in np.argwhere(counts == most)
    ]
    if total == 1:
        return f"{name} makes one error on the test split: {names[0]}."
    errors = f"{name} makes {total:,} errors on the test split"
    times = "once" if most == 1 else f"{most:,} times"
    if len(names) > 3:
        return f"{errors}. No label is taken for another more than {times}."
    if len(names) > 1:
        return f"{errors}. The most common ones are {listed(names)} ({times} each)."
    return f"{errors}. The most common one is {names[0]} ({times})."


def _draw_confusion(ax: Axes, ink: Ink, counts: np.ndarray, labels: Sequence[str]) -> None:
    size = len(labels)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    # With many labels, most cells are empty; those are not drawn.
    cells = np.ndindex(counts.shape) if size <= NUMBERED else map(tuple, np.argwhere(counts))
    for row, column in cells:
        ax.add_patch(
            Rectangle(
                (column - 0.5, row - 0.5), 1, 1, facecolor=ink.series[0],
                alpha=0.5 * shares[row, column], lw=0,
            )
        )  # fmt: skip
        if size <= NUMBERED:
            ax.text(
                column, row, f"{counts[row, column]:,}", color=ink.text, ha="center", va="center",
                fontsize=9 if size <= 4 else 7,
            )  # fmt: skip
    ax.grid(visible=False)
    ax.set_xlim(-0.5, size - 0.5)
    ax.set_ylim(size - 0.5, -0.5)
    if size <= NAMED:
        names = [drawing.label(label) for label in labels]
        small: dict[str, Any] = {"fontsize": 8 if size <= 4 else 6}
        ax.set_xticks(range(size), names, rotation=0 if len("".join(names)) <= 24 else 90, **small)
        ax.set_yticks(range(size), names, **small)
    ax.tick_params(length=0)
    ax.set_aspect("equal")
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")


# Calibration


def _calibration(results: Results, chosen: str) -> list[Block]:
    bins = {name: bins_of_reliability(results, name) for name in results.models}
    errors = {name: statistics.calibration_error(table) for name, table in bins.items()}

    low = min(0.5, *(table[["confidence", "accuracy"]].min().min() for table in bins.values()))

    def panel(number: int, name: str) -> Panel:
        def draw(ax: Axes, ink: Ink) -> None:
            ax.plot([low, 1], [low, 1], color=ink.text, linewidth=0.8)
            table = bins[name]
            drawing.line(ax, ink, number, list(table["confidence"]), list(table["accuracy"]))
            ax.set_xlabel("mean probability of the prediction")
            ax.set_ylabel("test accuracy")

        return Panel(f"{name}: ECE {errors[name]:.3f}", draw)

    rows = []
    for name in results.models:
        score = float(results.predictions[name]["test"]["score"].mean())
        accuracy = float(results.right(name, "test").mean())
        rows.append(
            [
                name,
                f"{errors[name]:.3f}",
                f"{score:.3f}",
                f"{accuracy:.3f}",
                points(score - accuracy),
            ]
        )
    most = max(errors, key=errors.__getitem__)
    least = min(errors, key=errors.__getitem__)
    said = (
        f"{least} is the best calibrated (ECE {errors[least]:.3f}) and {most} the worst "
        f"({errors[most]:.3f}); {chosen} {_confidence(results, chosen)}."
    )
    return [
        Figure(
            "reliability",
            "Reliability diagrams: accuracy against the model's confidence. A calibrated model is "
            "on the diagonal; below the diagonal, a model is overconfident.",
            said,
            [panel(number, name) for number, name in enumerate(results.models)],
        ),
        Text(said),
        Table(
            "calibration",
            "Calibration on the test split: expected calibration error (ECE), mean confidence, "
            "accuracy, and overconfidence (confidence minus accuracy) in percentage points.",
            ["model", "ECE", "confidence", "accuracy", "overconfidence"],
            rows,
        ),
        Text(
            "Confidence is the probability of the predicted label. For the ECE, the test reviews "
            f"are sorted by confidence into {statistics.BINS} bins of about equal size (fewer when "
            "there are few reviews). The ECE is the mean absolute difference between accuracy and "
            "mean confidence over the bins, weighted by their numbers of reviews. It is 0 for a "
            "perfectly calibrated model; chance alone makes it larger than 0, and the more so the "
            "fewer the reviews."
        ),
    ]


def bins_of_reliability(results: Results, name: str) -> pd.DataFrame:
    """Return confidence, accuracy and number of reviews by bin, on the test split."""
    score = results.predictions[name]["test"]["score"].to_numpy()
    return statistics.reliability(results.right(name, "test"), score)


def _confidence(results: Results, name: str) -> str:
    right = results.right(name, "test")
    gap = float(results.predictions[name]["test"]["score"].mean()) - float(right.mean())
    interval = statistics.wilson(int(right.sum()), len(right))
    if interval.low <= gap + right.mean() <= interval.high:
        return "is about as confident as it is accurate"
    return f"is {'over' if gap > 0 else 'under'}confident by {abs(100 * gap):.1f} points"


# Lengths


@dataclass(frozen=True)
class Lengths:
    """Bins of the test reviews by number of words.

    `names` and `means` are the range and the mean of each bin in words; `counts` has, for each
    model, (reviews that it gets right, reviews) of each bin.
    """

    names: list[str]
    means: list[float]
    counts: dict[str, list[tuple[int, int]]]


def accuracy_by_length(results: Results) -> Lengths:
    """Count the test reviews that each model gets right, by length."""
    words = np.array([len(text.split()) for text in results.texts])
    numbers, ranges = statistics.length_bins(words)
    bins = [numbers == number for number in range(len(ranges))]
    return Lengths(
        names=[f"{low}" if low == high else f"{low} to {high}" for low, high in ranges],
        means=[float(words[chosen].mean()) for chosen in bins],
        counts={
            model: [(int(right[chosen].sum()), int(chosen.sum())) for chosen in bins]
            for model in results.models
            for right in [results.right(model, "test")]
        },
    )


def _lengths(results: Results, chosen: str) -> list[Block]:
    lengths = accuracy_by_length(results)
    names, counts = lengths.names, lengths.counts

    def draw(ax: Axes, ink: Ink) -> None:
        for number, model in enumerate(results.models):
            # The models are drawn side by side, so that intervals do not hide one another.
            shift = 0.54 * ((number + 0.5) / len(results.models) - 0.5)
            for place, (right, total) in enumerate(counts[model]):
                drawing.point(
                    ax, ink, number, place + shift, right / total, statistics.wilson(right, total)
                )
        ax.set_xticks(range(len(names)), names)
        ax.set_xlabel("words")
        ax.set_ylabel("test accuracy")

    said = _trend(chosen, names, counts[chosen])
    rows = []
    for place, name in enumerate(names):
        row: list[Cell | str] = [name, f"{counts[chosen][place][1]:,}"]
        for model in results.models:
            right, total = counts[model][place]
            interval = statistics.wilson(right, total)
            row.append(Cell(f"{right / total:.3f}", span(interval.low, interval.high)))
        rows.append(row)
    return [
        Figure(
            "length",
            "Test accuracy by review length, with 95% intervals (Wilson).",
            said,
            [Panel("Accuracy by length", draw)],
            {name: number for number, name in enumerate(results.models)},
            height=3.0,
        ),
        Text(said),
        Table(
            "length-table",
            "Test accuracy by number of words, in bins of about equal size, with 95% intervals "
            "(Wilson).",
            ["words", "reviews", *results.models],
            rows,
        ),
    ]


def _trend(model: str, names: list[str], counts: list[tuple[int, int]]) -> str:
    if len(names) < 2:
        return "The test reviews are too few, or too similar in length, to compare lengths."
    (short, of_short), (long, of_long) = counts[0], counts[-1]
    p = float(fisher_exact([[short, of_short - short], [long, of_long - long]]).pvalue)
    words = "word" if names[0] == "1" else "words"
    shares = (
        f"accuracy is {short / of_short:.3f} at {names[0]} {words} "
        f"and {long / of_long:.3f} at {names[-1]} words (Fisher's exact test, {p_value(p)})"
    )
    if p >= ALPHA:
        return (
            f"The data do not show whether {model} does better on the shortest reviews or on the "
            f"longest: {shares}."
        )
    better, other = ("shortest", "longest") if short / of_short > long / of_long else (
        "longest", "shortest"
    )  # fmt: skip
    return f"{model} does better on the {better} reviews than on the {other}: {shares}."


# Reviews


def _score(results: Results, name: str, index: int) -> Cell:
    row = results.predictions[name]["test"].iloc[index]
    if len(results.labels) == 2:
        return Cell(f"{row['score']:.2f}")
    return Cell(f"{row['score']:.2f}", row["prediction"])


def _all_wrong(results: Results) -> list[Block]:
    wrong = np.flatnonzero(all_right(results).sum(0) == 0)
    if not len(wrong):
        return [Text("No test review is misclassified by all models.")]
    scores = np.array([results.predictions[name]["test"]["score"] for name in results.models])
    rows = sorted(wrong, key=lambda index: (-scores[:, index].mean(), index))
    labels = results.predictions[results.models[0]]["test"]["label"]
    many = f"; the {SHOWN} with the highest mean confidence are shown" if len(rows) > SHOWN else ""
    what = "the prediction of each model and " if len(results.labels) > 2 else ""
    return [
        Table(
            "all-wrong",
            f"{plural(len(rows), 'test review')} that all models get wrong{many}, with {what}the "
            "probability that each model gives to its wrong prediction.",
            ["review", "true label", *results.models],
            [
                [
                    Cell(results.texts[index], kind="review"),
                    labels[index],
                    *(_score(results, name, index) for name in results.models),
                ]
                for index in rows[:SHOWN]
            ],
            prose=["review", "true label"],
        )
    ]


def _only_one_right(results: Results) -> list[Block]:
    right = all_right(results)
    alone = right.sum(0) == 1
    if not alone.any():
        return [Text("No test review is classified correctly by exactly one model.")]
    scores = np.array([results.predictions[name]["test"]["score"] for name in results.models])
    labels = results.predictions[results.models[0]]["test"]["label"]
    rows, counts, cut = [], [], False
    for number, name in enumerate(results.models):
        mine = np.flatnonzero(alone & right[number])
        counts.append(f"{name} {len(mine):,}")
        ranked = sorted(mine, key=lambda index: (-scores[number, index], index))
        cut |= len(mine) > SHOWN_OF_EACH
        for index in ranked[:SHOWN_OF_EACH]:
            others = np.delete(scores[:, index], number)
            rows.append(
                [
                    Cell(results.texts[index], kind="review"),
                    labels[index],
                    name,
                    f"{scores[number, index]:.2f}",
                    f"{others.mean():.2f}",
                ]
            )
    shown = (
        f"; up to {SHOWN_OF_EACH} per model, those with the highest probability, are shown"
        if cut
        else ""
    )
    return [
        Table(
            "only-one-right",
            f"{plural(int(alone.sum()), 'test review')} that only one model gets right "
            f"({', '.join(counts)}){shown}, with the probability that this model gives to its "
            "prediction and the mean of those that the other models give to their wrong "
            "predictions.",
            ["review", "true label", "only right model", "its probability", "mean of the others"],
            rows,
            prose=["review", "true label", "only right model"],
        )
    ]
