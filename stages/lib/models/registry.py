"""The list of models, and the kind of model in a directory."""

import json
from pathlib import Path
from typing import Literal

from stages.lib.core import declarations
from stages.lib.core.errors import InputError

# The dvc.yaml of this project, whatever the working directory is.
DECLARED = Path(__file__).parents[3] / "dvc.yaml"

Kind = Literal["svm", "adapter", "classifier"]


def names(declared: Path = DECLARED) -> tuple[str, ...]:
    """List the models in the order of dvc.yaml, where each is an artifact."""
    return tuple(declarations.read_yaml(str(declared))["artifacts"])


def kind(directory: Path) -> Kind:
    """Find what `directory` holds: the SVM's arrays, a PEFT adapter or a transformers classifier.

    Raises InputError when it is none of these, or when its weights are not safetensors.
    """
    found: Kind
    if (directory / "adapter_config.json").is_file():
        found, weights = "adapter", "adapter_model"
    elif (directory / "config.json").is_file():
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        found = "svm" if config.get("model_type") == "linear-svm" else "classifier"
        weights = "model"
    else:
        raise InputError(f"{directory}: not a model: it has no config.json or adapter_config.json")
    if not any(directory.glob(f"{weights}*.safetensors")):
        raise InputError(
            f"{directory}: no {weights}.safetensors; weights in another format are not read"
        )
    return found
