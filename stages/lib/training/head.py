"""The classification head as a separate model over cached [CLS] vectors."""

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
    """A split: [CLS] vectors (float32 [reviews, dim]) and labels (int64 [reviews])."""

    cls: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        return self.cls[row], self.labels[row]


def collate(rows: list[tuple[np.ndarray, int]]) -> dict[str, torch.Tensor]:
    """Make a batch for `Head`."""
    cls, labels = zip(*rows, strict=True)
    return {"cls": torch.from_numpy(np.stack(cls)), "labels": torch.tensor(labels)}


class Cached(nn.Module):
    """A stand-in for the backbone, for texts of one token whose hidden state is known.

    It keeps the backbone's pooler if there is one.
    """

    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler

    def forward(
        self, *_: Any, inputs_embeds: torch.FloatTensor, **__: Any
    ) -> BaseModelOutput | BaseModelOutputWithPooling:
        """Return the vectors [reviews, 1, dim] unchanged as hidden states."""
        if self.pooler is None:
            return BaseModelOutput(inputs_embeds)
        return BaseModelOutputWithPooling(inputs_embeds, self.pooler(inputs_embeds))


class Head(nn.Module):
    """A sequence classifier of any family without its backbone.

    The layers after the backbone are shared with the classifier, not copied: training the head
    trains the model that it was made from. A pooler from the backbone's weights stays frozen like
    the rest of the backbone.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        pooler = getattr(model.base_model, "pooler", None)
        if pooler is not None:
            pooler.requires_grad_("pooler" in classifier.head(model))
        self.classifier = copy.copy(model)
        self.classifier._modules = model._modules | {model.base_model_prefix: Cached(pooler)}

    def forward(self, cls: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute logits [reviews, labels] from [CLS] vectors [reviews, dim]."""
        return {"logits": self.classifier(inputs_embeds=cls[:, None]).logits}


@torch.inference_mode()
def logits(head: Head, split: Vectors) -> np.ndarray:
    """Compute the logits of a split, float32 [reviews, labels]."""
    head.eval()
    device = next(head.parameters()).device
    return head(torch.from_numpy(split.cls).to(device))["logits"].cpu().numpy()
