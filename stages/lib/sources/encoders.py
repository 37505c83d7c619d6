"""The supported encoder families and the files of an encoder, which all sources check alike."""

import json
import shutil
from pathlib import Path
from typing import Any

from stages.lib.core.errors import InputError

# Values of `model_type` in config.json. `AUTO` in stages/lora.py has the target modules of each.
FAMILIES = ("distilbert", "bert", "roberta", "electra", "modernbert")

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
# Those that exist are copied. Pickled files never are.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
# A tokenizer can be loaded from any of these sets of files.
_TOKENIZERS = ({"tokenizer.json"}, {"vocab.txt"}, {"vocab.json", "merges.txt"})


def check_files(names: set[str], where: str) -> None:
    """Raise InputError unless `names` has a config, safetensors weights and a tokenizer."""
    if CONFIG not in names:
        raise InputError(f"{where} lacks {CONFIG}")
    if WEIGHTS not in names:
        pickled = sorted(name for name in names if name.endswith(".bin"))
        parts = sorted(name for name in names if name.endswith(".safetensors"))
        if parts:
            hint = f"; {parts[0]} is not read: save all weights in one file"
        elif pickled:
            hint = f"; {pickled[0]} is pickled and is not read: save it as safetensors"
        else:
            hint = ""
        raise InputError(f"{where} lacks {WEIGHTS}{hint}")
    if not any(files <= names for files in _TOKENIZERS):
        raise InputError(f"{where} lacks tokenizer.json")


def read_config(path: Path, where: str) -> dict[str, Any]:
    """Read config.json. Raises InputError if it is not JSON, and for a model type that is not in
    `FAMILIES`."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = config["model_type"]
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}") from None
    except (KeyError, TypeError):
        raise InputError(f"{where} has no model_type") from None
    if kind not in FAMILIES:
        known = ", ".join(map(repr, FAMILIES))
        raise InputError(f"{where}: model_type is {kind!r}, expected one of {known}")
    return config


def install(paths: dict[str, Path], config: dict[str, Any], directory: Path) -> None:
    """Copy files to `directory`; `paths` maps their new names to their paths.

    ModernBERT's config is changed so that a classifier reads [CLS]. Some of its checkpoints specify
    mean pooling instead, which the cached [CLS] features do not match.
    """
    for name, path in paths.items():
        shutil.copyfile(path, directory / name)
    if config.get("classifier_pooling", "cls") != "cls":
        text = json.dumps(config | {"classifier_pooling": "cls"}, indent=2, ensure_ascii=False)
        (directory / CONFIG).write_text(text + "\n", encoding="utf-8")
