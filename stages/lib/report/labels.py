"""The section "Which labels look wrong?": the first suspects, and what ratings say of the list."""

from scipy.stats import binomtest

from stages.lib.labels import issues
from stages.lib.labels.issues import Ratings
from stages.lib.report.content import (
    Block,
    Cell,
    Section,
    Table,
    Text,
    code,
    listed,
    p_value,
    plural,
)
from stages.lib.report.differences import ALPHA
from stages.lib.report.inputs import SUSPECTS, Results


def section(results: Results) -> Section:
    """Build the section; its table has the first suspects."""
    blocks: list[Block] = [Text(_finding(results), "answer")]
    if len(results.suspects):
        ratings = results.label_issues["ratings"]
        blocks += [Text(_ratings(ratings))] if ratings else []
        blocks.append(_table(results))
    blocks.append(
        Text(
            "The method is confident learning (Northcutt et al., 2021, doi 10.1613/jair.1.12125, "
            "by cleanlab), with probabilities from five-fold cross-validation of a logistic "
            "regression on the [CLS] vectors of the frozen backbone. It estimates how many reviews "
            "of each label are mislabelled, and suspects that many, those with the clearest "
            "probabilities. The list begins with the least probable label."
        )
    )
    return Section("labels", "Which labels look wrong?", blocks)


def _finding(results: Results) -> str:
    facts = results.label_issues
    count, reviews = sum(facts["suspects"].values()), plural(facts["reviews"], "training review")
    if not count:
        return f"No label looks wrong among {reviews}."
    return (
        f"Of {reviews}, {count:,} ({count / facts['reviews']:.1%}) "
        f"{'has a label that looks' if count == 1 else 'have labels that look'} wrong: "
        "a linear model that was not fitted on the review finds another label more probable. Read "
        f"{code(str(issues.PATH))} from the top, and correct the wrong labels in your data. "
        "A suspect may also be the model's mistake: it gets "
        f"{facts['accuracy']:.1%} of the labels right."
    )


def _ratings(ratings: Ratings) -> str:
    base, precision = ratings["base_rate"], ratings["precision"]
    *first, (count, share) = ((int(count), share) for count, share in precision.items())
    shares = [f"{share:.1%} of the first {count:,}" for count, share in first]
    shares.append(f"{share:.1%} of {'all' if first else 'the'} {plural(count, 'suspect')}")
    p = float(binomtest(round(count * share), count, base, alternative="greater").pvalue)
    judged = (
        "so the list finds such labels more often than chance"
        if p < ALPHA
        else "which is no evidence that the list finds such labels more often than chance"
    )
    return (
        "People rated these reviews, too. Their mean rating contradicts the labels of "
        f"{listed(shares)}, against {base:.1%} of all training reviews, {judged} (binomial test, "
        f"{p_value(p)})."
    )


def _table(results: Results) -> Table:
    table = results.suspects
    total = sum(results.label_issues["suspects"].values())
    many = f"; the {SUSPECTS} least probable are shown" if total > len(table) else ""
    return Table(
        "suspects",
        f"{plural(total, 'suspected label')}{many}, with the label that the model suggests, the "
        "probability that it gives to the present one, and the row in data/raw/train.parquet, "
        "counted from 1.",
        ["review", "label", "suggested label", "probability", "row"],
        [
            [
                Cell(row.text, kind="review"),
                row.label,
                row.suggested_label,
                f"{row.confidence:.2f}",
                f"{row.row}",
            ]
            for row in table.itertuples()
        ],
        prose=["review", "label", "suggested label"],
    )
