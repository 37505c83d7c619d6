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
    title = "How should this encoder be adapted to these reviews?"
    if results.published_dataset:
        title = "How should a DistilBERT be adapted to movie reviews?"
    return f"Demonstration: {title}" if "subset" in results.download["reviews"] else title
