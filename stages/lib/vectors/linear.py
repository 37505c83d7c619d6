"""The linear SVM as arrays, to score [CLS] vectors without scikit-learn."""

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
    """The standardization, hyperplanes and temperature of an SVM; arrays are float64."""

    mean: np.ndarray  # [dim]
    scale: np.ndarray  # [dim]
    coef: np.ndarray  # [1, dim] for two labels, otherwise [labels, dim]
    intercept: np.ndarray  # [1] or [labels]
    temperature: float

    def margins(self, vectors: np.ndarray) -> np.ndarray:
        """Return the margins (decision function values) of [CLS] vectors [reviews, dim].

        They are float64 [reviews, 1 or labels].
        """
        return (vectors - self.mean) / self.scale @ self.coef.T + self.intercept

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """Return the label probabilities of [CLS] vectors [reviews, dim].

        They are float64 [reviews, labels].
        """
        return probabilities(self.margins(vectors), self.temperature)

    def save(self, directory: Path, labels: Sequence[str], **facts: float) -> None:
        """Write model.safetensors, and config.json with the label names and `facts`."""
        # scikit-learn stores hyperplanes in Fortran order, which safetensors would scramble.
        arrays = {name: np.array(value, order="C") for name, value in asdict(self).items()}
        safetensors.numpy.save_file(arrays, directory / "model.safetensors")
        config = {"model_type": "linear-svm", "labels": list(labels)} | facts
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (directory / "config.json").write_text(text + "\n", encoding="utf-8")


def load(directory: Path) -> tuple[Linear, list[str]]:
    """Load the SVM and its label names, as written by `Linear.save`."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    arrays: dict[str, Any] = safetensors.numpy.load_file(directory / "model.safetensors")
    return Linear(**arrays), config["labels"]


def probabilities(margins: np.ndarray, temperature: float) -> np.ndarray:
    """Return the softmax of margins [reviews] or [reviews, 1 or labels] over the temperature.

    Temperature scaling (https://arxiv.org/abs/1706.04599) changes no prediction.
    """
    margins = margins.reshape(len(margins), -1)
    if margins.shape[1] == 1:
        margins = np.hstack([-margins, margins]) / 2
    return softmax(margins / temperature, axis=1)
