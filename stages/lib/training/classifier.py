"""The sequence classifier: creating it from the backbone and saving it for transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import safetensors
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from stages.lib.core import manifest
from stages.lib.core.paths import BACKBONE
from stages.lib.encoder import tokenizer as tokenizers

if TYPE_CHECKING:
    from peft import PeftModel


def create(labels: Sequence[str]) -> PreTrainedModel:
    """Create a float32 classifier for `labels` with the backbone's weights.

    The head is initialized at random from PyTorch's global generator.
    """
    tokenizers.check_present(BACKBONE)
    # transformers would warn each time that the head is newly initialized.
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
    """Return the names of the modules to train when the backbone is frozen.

    These are the modules after the backbone, and its pooler if the backbone's weights lack one, so
    that the pooler was initialized at random like the head.
    """
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


class Parameters(TypedDict):
    """The parameters of a model.

    {"trainable": 222338, "total": 22786946}
    """

    trainable: int
    total: int


def parameters(model: torch.nn.Module) -> Parameters:
    """Count trainable and total parameters.

    If PEFT trains a copy of a module, only the copy counts.
    """
    counts = [
        (parameter.numel(), parameter.requires_grad)
        for name, parameter in model.named_parameters()
        if ".original_module." not in name
    ]
    trainable = sum(count for count, requires_grad in counts if requires_grad)
    return {"trainable": trainable, "total": sum(count for count, _ in counts)}


def save(model: "PreTrainedModel | PeftModel", directory: Path, data: manifest.Manifest) -> None:
    """Write the model or adapter with its tokenizer and the about.json of its `data`.

    Weights are saved only as safetensors, with equal bytes for equal weights. The tokenizer's
    maximum length is the one used in training.
    """
    for config in getattr(model, "peft_config", {}).values():
        # PEFT makes them sets, whose order in the file would differ from run to run.
        config.target_modules = sorted(config.target_modules)
        config.modules_to_save = sorted(set(config.modules_to_save))
    model.save_pretrained(str(directory))
    # PEFT writes a model card template; the cards stage writes the complete card.
    (directory / "README.md").unlink(missing_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(BACKBONE, model_max_length=data["max_length"])
    for way in ("is_local", "local_files_only"):
        # The way it was loaded here, such as with HF_HUB_OFFLINE, must not change the saved file.
        tokenizer.init_kwargs.pop(way, None)
    tokenizer.save_pretrained(directory)
    manifest.write(directory, data)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of logits, float32 [reviews, labels], in the same shape."""
    return torch.from_numpy(logits).softmax(-1).numpy()
