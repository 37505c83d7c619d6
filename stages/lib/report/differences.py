"""The section "Are the differences real?": paired tests between all models."""

from dataclasses import dataclass
from itertools import combinations

from stages.lib.report import statistics
from stages.lib.report.content import (
    Cell,
    Section,
    Table,
    Text,
    between,
    p_value,
    plural,
    points,
)
from stages.lib.report.inputs import Results
from stages.lib.report.statistics import Pair

ALPHA = 0.05
# A model is as good as another when, by the 95% interval, its accuracy is at most this much lower.
MARGIN = 0.03


@dataclass(frozen=True)
class Comparison:
    """Comparison of a first model with a second; `p` is corrected for the number of comparisons."""

    pair: Pair
    p: float

    @property
    def verdict(self) -> str:
        if self.p >= ALPHA:
            return "cannot tell"
        return "better" if self.pair.difference > 0 else "worse"

    @property
    def as_good(self) -> bool:
        """Whether the first model is not worse, and the interval excludes a loss above MARGIN."""
        return self.verdict != "worse" and self.pair.interval.low >= -MARGIN


Comparisons = dict[tuple[str, str], Comparison]


def turned(comparison: Comparison) -> Comparison:
    """Swap the two models: compare the second with the first."""
    pair = comparison.pair
    interval = statistics.Interval(-pair.interval.high, -pair.interval.low)
    return Comparison(
        Pair(pair.only_second, pair.only_first, pair.reviews, pair.p, interval), comparison.p
    )


def compare(results: Results, split: str, pairs: list[tuple[str, str]]) -> Comparisons:
    """Compare each pair on the split by McNemar's exact test, p corrected by Holm's method.

    The result has each pair in both orders.
    """
    found = [
        statistics.compare(results.right(first, split), results.right(second, split))
        for first, second in pairs
    ]
    corrected = statistics.holm([pair.p for pair in found])
    compared = {
        names: Comparison(pair, p) for names, pair, p in zip(pairs, found, corrected, strict=True)
    }
    return compared | {(b, a): turned(comparison) for (a, b), comparison in compared.items()}


def of_all(results: Results) -> Comparisons:
    """Compare all pairs of models on the test split."""
    return compare(results, "test", list(combinations(results.models, 2)))


def section(results: Results, comparisons: Comparisons) -> Section:
    """Build the section with the matrix of verdicts and the counts behind it."""
    ranked = sorted(results.models, key=lambda name: -results.accuracy(name, "test"))
    pairs = list(combinations(ranked, 2))
    return Section(
        "differences",
        "Are the differences real?",
        [
            Text(_finding(results, comparisons, pairs), "answer"),
            _matrix(ranked, comparisons),
            Text(
                "Each pair is compared by McNemar's exact test on the same test reviews. It asks "
                "whether the reviews that only one of the two models gets right could be divided "
                "so unevenly between them by chance. The p-values are corrected for "
                f"{plural(len(pairs), 'comparison')} by Holm's method; the significance level is "
                f"{ALPHA:.0%}. “Cannot tell” does not mean that two models are equal: the "
                "intervals below show how far apart they may be. Variation between seeds is not "
                "included."
            ),
            _counts(pairs, comparisons),
        ],
    )


def _finding(results: Results, comparisons: Comparisons, pairs: list[tuple[str, str]]) -> str:
    unclear = [pair for pair in pairs if comparisons[pair].verdict == "cannot tell"]
    reviews = plural(results.count("test"), "test review")
    if not unclear:
        return f"Yes: on {reviews}, all {len(pairs)} pairs of models differ significantly."
    shown = "; ".join(f"{first} and {second}" for first, second in unclear)
    if len(unclear) == len(pairs):
        return f"We cannot tell: on {reviews}, no two models differ significantly."
    if len(unclear) > 6:
        shown = f"among them {unclear[0][0]} and {unclear[0][1]}"
    others = "pair" if len(unclear) == 1 else f"{len(unclear):,} pairs"
    return (
        f"**{len(pairs) - len(unclear)} of {len(pairs)} are.** On {reviews}, the other {others} "
        f"cannot be told apart: {shown}."
    )


def _matrix(ranked: list[str], comparisons: Comparisons) -> Table:
    rows = []
    for row in ranked:
        cells: list[Cell | str] = [row]
        for column in ranked:
            if row == column:
                cells.append(Cell("\N{EN DASH}", kind="none"))
                continue
            found = comparisons[row, column]
            detail = f"{points(found.pair.difference)}, {p_value(found.p)}"
            cells.append(Cell(found.verdict, detail, found.verdict.replace(" ", "-")))
        rows.append(cells)
    return Table(
        "matrix",
        "The model in the row compared with the model in the column: verdict, difference in test "
        "accuracy in percentage points, corrected p. The model with the best test accuracy comes "
        "first.",
        ["row compared with column", *ranked],
        rows,
        prose=ranked,
    )


def _counts(pairs: list[tuple[str, str]], comparisons: Comparisons) -> Table:
    rows: list[list[Cell | str]] = []
    for first, second in pairs:
        found = comparisons[first, second]
        pair = found.pair
        rows.append(
            [
                f"{first}, {second}",
                f"{pair.only_first:,}",
                f"{pair.only_second:,}",
                Cell(
                    points(pair.difference),
                    between(pair.interval.low, pair.interval.high),
                ),
                p_value(pair.p).removeprefix("p = ").removeprefix("p "),
                p_value(found.p).removeprefix("p = ").removeprefix("p "),
            ]
        )
    return Table(
        "pairs",
        "The counts behind the tests: reviews that only one of the two models gets right; the "
        "difference in accuracy in percentage points with its 95% interval (Agresti and Min's, for "
        "paired data); p uncorrected and corrected.",
        ["pair", "only first right", "only second right", "difference", "p", "p (Holm)"],
        rows,
    )
