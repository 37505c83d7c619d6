"""What others measured with distilbert-base-uncased on the official Rotten Tomatoes splits."""

from stages.lib.report.content import Text, listed, span
from stages.lib.report.inputs import Results

# Figures of the experiment that this pipeline repeats: validation accuracy, validation F1 and test
# accuracy; empty where none was published.
PUBLISHED = {
    "svm": ("0.82", "", "0.80"),
    "finetune-head": ("0.78", "0.77", ""),
    "finetune-full": ("0.80", "0.80", ""),
    "lora-2e-5": ("0.817", "0.812", ""),
    "lora-2e-4": ("0.841", "0.840", ""),
}
# The lowest and highest test accuracy in model cards and course notebooks on the Hub.
REPORTED = {
    "svm": (0.765, 0.807),
    "finetune-full": (0.83, 0.854),
    "lora-2e-4": (0.81, 0.843),
}


def ranges() -> dict[str, tuple[float, float]]:
    """Return the range of test accuracies of each model, with the published one.

    Published validation figures are on another split, so they are left to the table of scores.
    """
    found = {}
    for name, reported in REPORTED.items():
        published = PUBLISHED[name][2]
        known = [*reported, *([float(published)] if published else [])]
        found[name] = min(known), max(known)
    return found


def compare(results: Results) -> list[Text]:
    """Say which test accuracies are outside what others report.

    Nothing is said of other data or another backbone, to which these figures do not apply.
    """
    if not (results.official_reviews and results.official_backbone):
        return []
    here = {name: round(results.accuracy(name, "test"), 3) for name in ranges()}
    outside = [
        f"{name} with {here[name]:.3f} ({span(low, high)})"
        for name, (low, high) in ranges().items()
        if not low <= here[name] <= high
    ]
    source = (
        "model cards and course notebooks on the Hub for the same reviews and backbone, and the "
        "published experiment"
    )
    if not outside:
        within = [f"{name} ({span(low, high)})" for name, (low, high) in ranges().items()]
        return [
            Text(
                f"The test accuracies of {listed(within)} are within the ranges (in brackets) "
                f"that others report in {source}."
            )
        ]
    return [
        Text(
            f"**Outside what others report:** the test accuracy of {listed(outside)}. In brackets "
            f"is the range in {source}. This is a hint that something is set up wrongly, unless "
            "the settings in params.yaml were changed on purpose.",
            "warning",
        )
    ]
