"""The linear SVM as arrays: what it takes to score [CLS] vectors without scikit-learn."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from scipy.special import softmax


@dataclass(frozen=True)
class Linear:
    """Standardization, hyperplanes and temperature; arrays are float64."""

    mean: np.ndarray  # [dim]
    scale: np.ndarray  # [dim]
    coef: np.ndarray  # [1, dim] for two labels, else [labels, dim]
    intercept: np.ndarray  # [1] or [labels]
    temperature: float

    def margins(self, vectors: np.ndarray) -> np.ndarray:
        """Signed distances, float64 [reviews, 1 or labels], of [CLS] vectors [reviews, dim]."""
        return (vectors - self.mean) / self.scale @ self.coef.T + self.intercept

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """Float64 [reviews, labels] of [CLS] vectors [reviews, dim]."""
        return probabilities(self.margins(vectors), self.temperature)

    def save(self, directory: Path, labels: Sequence[str], **facts: float) -> None:
        """Write model.safetensors, and config.json with the labels and `facts`."""
        # scikit-learn keeps hyperplanes in Fortran order, which safetensors would scramble.
        arrays = {name: np.array(value, order="C") for name, value in asdict(self).items()}
        safetensors.numpy.save_file(arrays, directory / "model.safetensors")
        config = {"model_type": "linear-svm", "labels": list(labels)} | facts
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (directory / "config.json").write_text(text + "\n", encoding="utf-8")


def load(directory: Path) -> tuple[Linear, list[str]]:
    """What `Linear.save` wrote: the SVM and its labels."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    arrays: dict[str, Any] = safetensors.numpy.load_file(directory / "model.safetensors")
    return Linear(**arrays), config["labels"]


def probabilities(margins: np.ndarray, temperature: float) -> np.ndarray:
    """Softmax of signed distances [reviews] or [reviews, labels], divided by the temperature
    (temperature scaling, https://arxiv.org/abs/1706.04599): no prediction changes."""
    margins = margins.reshape(len(margins), -1)
    if margins.shape[1] == 1:
        margins = np.hstack([-margins, margins]) / 2
    return softmax(margins / temperature, axis=1)
