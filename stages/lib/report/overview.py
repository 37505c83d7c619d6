"""The report as a whole: the lead, and the six questions in order."""

from stages.lib.report import (
    claims,
    data,
    differences,
    failures,
    recommendation,
    training,
)
from stages.lib.report.content import Report
from stages.lib.report.inputs import Results


def write(results: Results) -> Report:
    """Build the content of the report, the same for every renderer."""
    choice = recommendation.choose(results)
    comparisons = differences.of_all(results)
    return Report(
        _title(results),
        [data.likeness(results), data.provenance(results)],
        [
            recommendation.section(results, choice),
            differences.section(results, comparisons),
            claims.section(claims.judge(results, comparisons)),
            training.section(results),
            failures.section(results, choice.recommended),
            data.section(results),
        ],
    )


def _title(results: Results) -> str:
    if results.published_dataset:
        return "How should a DistilBERT be adapted to movie reviews?"
    return "How should this encoder be adapted to these reviews?"
