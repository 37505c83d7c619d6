"""The classification head as a model of its own, over cached [CLS] vectors."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling

from stages.lib.training import classifier


@dataclass(frozen=True)
class Vectors(Dataset):
    """One split: [CLS] vectors (float32 [reviews, dim]) and labels (int64 [reviews])."""

    cls: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        return self.cls[row], self.labels[row]


def collate(rows: list[tuple[np.ndarray, int]]) -> dict[str, torch.Tensor]:
    """A batch for `Head`."""
    cls, labels = zip(*rows, strict=True)
    return {"cls": torch.from_numpy(np.stack(cls)), "labels": torch.tensor(labels)}


class Cached(nn.Module):
    """In a backbone's place: texts of one token, whose hidden state is known.

    Keeps the backbone's pooler, where it has one.
    """

    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler

    def forward(
        self, *_: Any, inputs_embeds: torch.FloatTensor, **__: Any
    ) -> BaseModelOutput | BaseModelOutputWithPooling:
        """The vectors [reviews, 1, dim] as they are."""
        if self.pooler is None:
            return BaseModelOutput(inputs_embeds)
        return BaseModelOutputWithPooling(inputs_embeds, self.pooler(inputs_embeds))


class Head(nn.Module):
    """A sequence classifier of any family without its backbone.

    What comes after the backbone is the classifier's own code and layers, not copies of them:
    training the head trains the model that it was made from. A pooler that the backbone brought
    along stays frozen as the rest of it.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        pooler = getattr(model.base_model, "pooler", None)
        if pooler is not None:
            pooler.requires_grad_("pooler" in classifier.head(model))
        self.classifier = copy.copy(model)
        self.classifier._modules = model._modules | {model.base_model_prefix: Cached(pooler)}

    def forward(self, cls: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits [reviews, labels] of [CLS] vectors [reviews, dim]."""
        return {"logits": self.classifier(inputs_embeds=cls[:, None]).logits}


@torch.inference_mode()
def logits(head: Head, split: Vectors) -> np.ndarray:
    """Float32 [reviews, labels]."""
    head.eval()
    device = next(head.parameters()).device
    return head(torch.from_numpy(split.cls).to(device))["logits"].cpu().numpy()
