"""The text of the report: every figure and every statement in it follows from the metrics."""

from typing import Any

import pandas as pd
from scipy.stats import binomtest

# Of the experiment that this pipeline repeats: distilbert-base-uncased, the official splits.
# Validation accuracy, validation F1 and test accuracy, where they were given.
PUBLISHED = {
    "svm": ("0.82", "", "0.80"),
    "finetune-head": ("0.78", "0.77", ""),
    "finetune-full": ("0.80", "0.80", ""),
    "lora-2e-5": ("0.817", "0.812", ""),
    "lora-2e-4": ("0.841", "0.840", ""),
    "lora": ("", "", ""),
}

LIKE_FOR_LIKE = """\
Reviews and backbone are those of the published experiment, so the columns can be compared."""

NOT_LIKE_FOR_LIKE = """\
**Not like for like:** the published figures are of distilbert-base-uncased on the official \
splits, these are not. Compare the order of the models, not the digits."""


def write(
    download: dict[str, Any],
    scores: dict[str, dict[str, Any]],
    costs: dict[str, dict[str, Any]],
    pictures: str,
) -> str:
    """The report in Markdown, from the metrics of download and the scores and costs by model."""
    reviews = {split: download[split]["reviews"] for split in ("train", "validation", "test")}
    backbone = download["backbone"]
    official = download["reviews"]["source"] == backbone["source"] == "hub"
    machine = costs["finetune-full"]
    return f"""\
# How should a DistilBERT be adapted to movie reviews?

{_winner(scores, reviews)}

- **Reviews:** {_provenance(download["reviews"])}; {reviews["train"]:,} for training, \
{reviews["validation"]:,} for validation, {reviews["test"]:,} for test
- **Backbone:** {_provenance(backbone)}
- **Machine:** {machine["device"]}, {machine["precision"]}

{LIKE_FOR_LIKE if official else NOT_LIKE_FOR_LIKE}

## Scores

{_scores_table(scores, reviews["test"])}

± is half of the 95% interval (Wilson) of the test accuracy. Models and settings were chosen on \
validation; test was read once, at the end. F1 is that of the positive class.

{_finding(scores)}

## Costs

{_costs_table(costs)}

Time is that of training with its evaluations (the SVM: of all values of C), memory the peak of \
the process (on a GPU, of the GPU), size what was saved. The SVM and the head train on cached \
[CLS] vectors; extracting them is not counted here.

## Training

![Loss and validation accuracy of the trained models]({pictures}/curves.png)

## Confusion matrices

![Confusion matrices of all models on the test split]({pictures}/confusion.png)

## Data

{_data_table(download)}
"""


def _provenance(facts: dict[str, Any]) -> str:
    if facts["source"] == "hub":
        return f"the Hub, {_code(facts['repository'])} at revision {_code(facts['revision'][:12])}"
    if facts["source"] == "local":
        return f"local files, {_code(facts['path'])}"
    what = f"{facts['model']}, " if "model" in facts else ""
    return f"{what}the embedded source, {_code(facts['package'])} (`source: pypi`)"


def _code(text: str) -> str:
    return f"`{text.replace('`', '')}`"


def _winner(scores: dict[str, dict[str, Any]], reviews: dict[str, int]) -> str:
    ranked = sorted(scores, key=lambda name: -scores[name]["validation"]["accuracy"])
    best, second = ranked[:2]
    lead = scores[best]["validation"]["accuracy"] - scores[second]["validation"]["accuracy"]
    test = scores[best]["test"]["accuracy"]
    low, high = _interval(test, reviews["test"])
    sentence = (
        f"**{best}** is best on validation: {scores[best]['validation']['accuracy']:.3f}, "
        f"{100 * lead:.1f} points before {second}. On test it scores {test:.3f} "
        f"(95% interval {low:.3f} to {high:.3f})."
    )
    within = [name for name in ranked[1:] if low <= scores[name]["test"]["accuracy"] <= high]
    if within:
        sentence += f" Also within that interval: {', '.join(within)}."
    return sentence


def _interval(accuracy: float, count: int) -> tuple[float, float]:
    interval = binomtest(round(accuracy * count), count).proportion_ci(method="wilson")
    return interval.low, interval.high


def _finding(scores: dict[str, dict[str, Any]]) -> str:
    slow, fast, svm = (
        scores[name]["validation"]["accuracy"] for name in ("lora-2e-5", "lora-2e-4", "svm")
    )
    if slow >= svm:
        return (
            f"LoRA at the published learning rates: {slow:.3f} on validation at 2e-5, "
            f"{fast:.3f} at 2e-4; the SVM has {svm:.3f}."
        )
    return (
        f"At the published learning rate of 2e-5 LoRA learns little in its epochs: {slow:.3f} on "
        f"validation, less than the SVM's {svm:.3f} on the frozen features. Ten times the rate "
        f"gives {fast:.3f}."
    )


def _scores_table(scores: dict[str, dict[str, Any]], count: int) -> str:
    rows = {}
    for name, score in scores.items():
        validation, test = score["validation"], score["test"]
        low, high = _interval(test["accuracy"], count)
        published = PUBLISHED[name]
        rows[name] = {
            "val. accuracy": f"{validation['accuracy']:.3f}",
            "val. F1": f"{validation['f1']:.3f}",
            "test accuracy": f"{test['accuracy']:.3f} ± {(high - low) / 2:.3f}",
            "test F1": f"{test['f1']:.3f}",
            "published: val. accuracy": published[0],
            "val. F1 ": published[1],
            "test accuracy ": published[2],
        }
    return _markdown(rows)


def _costs_table(costs: dict[str, dict[str, Any]]) -> str:
    return _markdown(
        {
            name: {
                "trainable parameters": f"{cost['trainable_parameters']:,}",
                "of": f"{cost['total_parameters']:,}",
                "seconds": f"{cost['seconds']:.0f}",
                "reviews/s": f"{cost['samples_per_second']:,.0f}",
                "memory": f"{cost['peak_memory_mb']:,.0f} MB",
                "size on disk": f"{cost['size_bytes'] / 1e6:,.2f} MB",
            }
            for name, cost in costs.items()
        }
    )


def _data_table(download: dict[str, Any]) -> str:
    return _markdown(
        {
            split: {
                "reviews": f"{facts['reviews']:,}",
                **{name: f"{count:,}" for name, count in facts["labels"].items()},
                "words, mean": f"{facts['words']['mean']:.1f}",
                "words, 95%": f"{facts['words']['p95']:.0f}",
                "duplicates": facts["duplicates"],
            }
            for split, facts in (
                (split, download[split]) for split in ("train", "validation", "test")
            )
        }
    )


def _markdown(rows: dict[str, dict[str, Any]]) -> str:
    table = pd.DataFrame(rows.values(), index=pd.Index(rows, name="model"))
    return table.to_markdown(
        colalign=("left", *["right"] * len(table.columns)), disable_numparse=True
    )
