"""The sequence classifier: made from the backbone, saved so that transformers loads it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from stages.lib.core import manifest
from stages.lib.core.paths import BACKBONE
from stages.lib.encoder import tokenizer as tokenizers


def create(labels: Sequence[str]) -> PreTrainedModel:
    """A classifier of `labels` in float32: the backbone's weights, a head drawn from PyTorch's
    generator."""
    tokenizers.check_present(BACKBONE)
    # Each time it would tell that the head is new.
    transformers.logging.set_verbosity_error()
    return AutoModelForSequenceClassification.from_pretrained(
        BACKBONE,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        # Whatever the backbone was trained for: the saved model would be read as that.
        problem_type=None,
        dtype=torch.float32,
        use_safetensors=True,
    )


def head(model: PreTrainedModel) -> list[str]:
    """Names of the modules that are trained where the backbone is frozen: those after it, and its
    pooler where the backbone's weights lack one, so that it was drawn as the head was."""
    names = [
        name
        for name, child in model.named_children()
        if child is not model.base_model and any(True for _ in child.parameters())
    ]
    if getattr(model.base_model, "pooler", None) is not None and not _brings_a_pooler():
        names.append("pooler")
    return names


def _brings_a_pooler() -> bool:
    with safetensors.safe_open(BACKBONE / "model.safetensors", "pt") as weights:
        return any("pooler.dense." in name for name in weights.keys())  # noqa: SIM118


def parameters(model: torch.nn.Module) -> dict[str, int]:
    """Trainable and total parameters. Of a module that PEFT trains a copy of, the copy counts."""
    counts = [
        (parameter.numel(), parameter.requires_grad)
        for name, parameter in model.named_parameters()
        if ".original_module." not in name
    ]
    trainable = sum(count for count, requires_grad in counts if requires_grad)
    return {"trainable": trainable, "total": sum(count for count, _ in counts)}


def save(model: PreTrainedModel, directory: Path, data: dict[str, Any]) -> None:
    """Write the model, or the adapter, with its tokenizer and the about.json of its `data`:
    safetensors only, the same bytes for the same weights.

    The tokenizer's own limit is that of the training.
    """
    for config in getattr(model, "peft_config", {}).values():
        # A set in PEFT's hands, written in an order that differs between processes.
        config.target_modules = sorted(config.target_modules)
        config.modules_to_save = sorted(config.modules_to_save)
    model.save_pretrained(directory)
    # PEFT writes a card of its own, a form to fill in; the cards stage writes a filled one.
    (directory / "README.md").unlink(missing_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(BACKBONE, model_max_length=data["max_length"])
    for way in ("is_local", "local_files_only"):
        # How it was loaded here, HF_HUB_OFFLINE included, is no fact about the tokenizer.
        tokenizer.init_kwargs.pop(way, None)
    tokenizer.save_pretrained(directory)
    manifest.write(directory, data)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Float32 [reviews, labels] of logits of the same shape."""
    return torch.from_numpy(logits).softmax(-1).numpy()
