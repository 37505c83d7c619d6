"""DistilBERT's classification head as a model of its own, over cached [CLS] vectors."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel


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


class Head(nn.Module):
    """The layers of a DistilBertForSequenceClassification after its backbone, not copies of them:
    training the head trains the model that it was made from."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.pre_classifier = model.pre_classifier
        self.dropout = model.dropout
        self.classifier = model.classifier

    def forward(
        self, cls: torch.Tensor, labels: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Logits [reviews, labels] of [CLS] vectors [reviews, dim], with the loss where labels are
        given."""
        logits = self.classifier(self.dropout(self.pre_classifier(cls).relu()))
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


@torch.inference_mode()
def logits(head: Head, split: Vectors) -> np.ndarray:
    """Float32 [reviews, labels]."""
    head.eval()
    device = head.classifier.weight.device
    return head(torch.from_numpy(split.cls).to(device))["logits"].cpu().numpy()
