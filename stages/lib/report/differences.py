"""The section "Are the differences real?": paired tests between all models."""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from stages.lib.report import statistics
from stages.lib.report.content import (
    Cell,
    Section,
    Table,
    Text,
    between,
    listed,
    p_value,
    plural,
    points,
)
from stages.lib.report.inputs import Results
from stages.lib.report.statistics import Difference, Pair

ALPHA = 0.05


@dataclass(frozen=True)
class Comparison:
    """Comparison of a first model with a second; `p` is corrected for the number of comparisons."""

    pair: Difference
    p: float

    @property
    def verdict(self) -> str:
        if self.p >= ALPHA:
            return "cannot tell"
        return "better" if self.pair.difference > 0 else "worse"


Comparisons = dict[tuple[str, str], Comparison]


def turned(comparison: Comparison) -> Comparison:
    """Swap the two models: compare the second with the first."""
    pair = comparison.pair
    interval = statistics.Interval(-pair.interval.high, -pair.interval.low)
    changes: dict[str, Any] = {"difference": -pair.difference, "interval": interval}
    if isinstance(pair, Pair):
        changes |= {"only_first": pair.only_second, "only_second": pair.only_first}
    return Comparison(replace(pair, **changes), comparison.p)


def difference(results: Results, split: str, first: str, second: str) -> Difference:
    """Compare two models on a split: by McNemar's exact test if every model has one seed, otherwise
    by the bootstrap draws of seeds and reviews."""
    if not results.several_seeds:
        return statistics.compare(results.right(first, split), results.right(second, split))
    return results.difference(first, second, split)


def of_all(results: Results) -> Comparisons:
    """Compare all pairs of models on the test split, p corrected by Holm's method.

    The result has each pair in both orders.
    """
    pairs = list(combinations(results.models, 2))
    found = [difference(results, "test", *pair) for pair in pairs]
    corrected = statistics.holm([pair.p for pair in found])
    compared = {
        names: Comparison(pair, p) for names, pair, p in zip(pairs, found, corrected, strict=True)
    }
    return compared | {(b, a): turned(comparison) for (a, b), comparison in compared.items()}


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
            Text(f"{_method(results)} {_correction(results, len(pairs))}"),
            _counts(pairs, comparisons),
        ],
    )


def _method(results: Results) -> str:
    if not results.several_seeds:
        return (
            "Each pair is compared by McNemar's exact test on the same test reviews. It asks "
            "whether the reviews that only one of the two models gets right could be divided so "
            "unevenly between them by chance."
        )
    return (
        "Each pair is compared by a hierarchical bootstrap, as Dror et al. (ACL 2018) recommend "
        "for reviews and Bouthillier et al. (MLSys 2021) for seeds. Each of "
        f"{statistics.DRAWS:,} draws takes test reviews with replacement, the same for both "
        "models, and seeds of each model with replacement, one fewer than there are, because few "
        "seeds would otherwise look too much alike (Rao and Wu, 1988). The p-value is twice the "
        "share of draws in which the order of the two models is reversed."
    )


def _correction(results: Results, count: int) -> str:
    said = (
        f"The p-values are corrected for {plural(count, 'comparison')} by Holm's method; the "
        f"significance level is {ALPHA:.0%}. “Cannot tell” does not mean that two models are "
        "equal: the intervals below show how far apart they may be."
    )
    single = [name for name in results.models if not results.seeds.others[name]]
    if not results.several_seeds:
        return f"{said} Variation between seeds is not included."
    if single:
        return f"{said} The variation between seeds of {listed(single)} is not included."
    return said


def _finding(results: Results, comparisons: Comparisons, pairs: list[tuple[str, str]]) -> str:
    unclear = [pair for pair in pairs if comparisons[pair].verdict == "cannot tell"]
    reviews = plural(results.count("test"), "test review")
    if not unclear:
        return f"Yes: on {reviews}, all {len(pairs)} pairs of models differ significantly."
    shown = "; ".join(f"{first} and {second}" for first, second in unclear)
    if len(unclear) == len(pairs):
        return f"We cannot tell: on {reviews}, no two models differ significantly."
    if len(unclear) > 6:
        shown = f"{unclear[0][0]} and {unclear[0][1]}, for example"
    others = "pair" if len(unclear) == 1 else f"{len(unclear):,} pairs"
    clear = len(pairs) - len(unclear)
    return (
        f"**{clear} of {len(pairs)} {'is' if clear == 1 else 'are'}.** On {reviews}, the "
        f"other {others} cannot be told apart: {shown}."
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
    counted = True
    for first, second in pairs:
        found = comparisons[first, second]
        pair = found.pair
        row: list[Cell | str] = [f"{first}, {second}"]
        if counted := isinstance(pair, Pair):
            row += [f"{pair.only_first:,}", f"{pair.only_second:,}"]
        row.append(Cell(points(pair.difference), between(pair.interval.low, pair.interval.high)))
        row += [p_value(p).removeprefix("p = ").removeprefix("p ") for p in (pair.p, found.p)]
        rows.append(row)
    of_one_seed = ["only first right", "only second right"] if counted else []
    what, method = (
        (
            "The counts behind the tests: reviews that only one of the two models gets right; the "
            "difference in accuracy",
            "Agresti and Min's, for paired data",
        )
        if counted
        else (
            "The figures behind the verdicts: the difference in mean accuracy",
            "percentiles of the draws, so it covers reviews and seeds",
        )
    )
    return Table(
        "pairs",
        f"{what} in percentage points with its 95% interval ({method}); p uncorrected and "
        "corrected.",
        ["pair", *of_one_seed, "difference", "p", "p (Holm)"],
        rows,
    )
