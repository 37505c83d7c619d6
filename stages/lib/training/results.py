"""The outputs of a stage that has trained a classifier: predictions, the model and the costs."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from stages.lib.core import costs, outputs, predictions
from stages.lib.core.manifest import Manifest
from stages.lib.core.paths import MODELS
from stages.lib.encoder import precision
from stages.lib.schema.params import Training
from stages.lib.training import checkpoints, classifier

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def write(
    name: str,
    model: "PreTrainedModel | PeftModel",
    data: Manifest,
    *,
    logits: dict[str, tuple[np.ndarray, np.ndarray]],
    trained: torch.nn.Module,
    reviews: int,
    seconds: float,
    settings: Training,
    passes: int,
    seed: int,
    float_format: str,
) -> None:
    """Write predictions, the model and costs, and delete the checkpoints.

    `logits` has the true labels (int [reviews]) and the logits (float32 [reviews, labels]) of each
    split. `trained` is the part of `model` whose trainable parameters count. `reviews` is the
    number of training reviews, over which each of the epochs passed `passes` times.
    """
    predictions.write(
        name,
        data["labels"],
        {split: (labels, classifier.probabilities(of)) for split, (labels, of) in logits.items()},
    )
    path = MODELS / name
    with outputs.replacing_directory(path) as directory:
        classifier.save(model, directory, data)
    costs.write(
        name,
        seconds=seconds,
        samples=reviews * settings.epochs * passes,
        size=path,
        trainable=classifier.parameters(trained)["trainable"],
        total=classifier.parameters(model)["total"],
        settings=settings.model_dump() | {"passes_per_epoch": passes, "seed": seed},
        **precision.describe(float_format),
    )
    checkpoints.remove(name)
