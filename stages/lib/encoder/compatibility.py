"""Checking that a backbone's config, tokenizer and weights belong together, without loading it."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import safetensors
import torch
import transformers
from transformers import AutoConfig, AutoModel

from stages.lib.core.errors import InputError
from stages.lib.encoder import tokenizer as tokenizers

# No vocabulary has it whole: a tokenizer without a token for what it does not know stops here.
_UNKNOWN = "\ue000"
_FLOATS = ("F64", "F32", "F16", "BF16")
_OF_A_LAYER = re.compile(r"\blayers?\.\d+\.")


def check(directory: Path, place: str) -> list[str]:
    """Compare the backbone's files with each other and return the warnings.

    `place` names the backbone in messages, as the user knows it. The model is built on the meta
    device, which has shapes but no data. Raises InputError, which names the file, for a config that
    transformers does not accept, a tokenizer that cannot be loaded or has more tokens than the
    embedding has rows, and weights that contradict the config.
    """
    with _named(f"{place}/config.json"):
        config = AutoConfig.from_pretrained(directory)
    if not config.return_dict:
        raise InputError(
            f"{place}/config.json: return_dict is false, expected true, or no such key"
        )
    if config.num_hidden_layers < 1:
        raise InputError(
            f"{place}/config.json: {config.num_hidden_layers} layers, expected at least 1"
        )
    with _named(f"{place}/tokenizer.json"):
        try:
            tokenizer = tokenizers.load(directory)
        except InputError as error:
            raise InputError(str(error).replace(str(directory), place)) from None
        tokenizer(_UNKNOWN)
    try:
        with safetensors.safe_open(directory / "model.safetensors", "numpy") as weights:
            kinds = {
                name: weights.get_slice(name).get_dtype()
                for name in weights.keys()  # noqa: SIM118
            }
    except safetensors.SafetensorError as error:
        raise InputError(
            f"{place}/model.safetensors: not a complete safetensors file: {error}"
        ) from None
    with _named(f"{place}/config.json"):
        model, report = AutoModel.from_pretrained(
            directory,
            device_map="meta",
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    contradiction = "config.json and model.safetensors do not belong together"
    # A missing pooler is allowed: it comes after the hidden states and is trained with the head.
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{place}: the weights lack {missing[0]}{others}: {contradiction}")
    for name, found, expected in sorted(report["mismatched_keys"]):
        raise InputError(
            f"{place}: {name} is {list(found)} in the weights and {list(expected)} by the config: "
            f"{contradiction}"
        )
    for name, kind in kinds.items():
        # Read without the scales that belong to them, they would be taken for the weights.
        if name.endswith((".weight", ".bias")) and kind not in _FLOATS:
            raise InputError(
                f"{place}/model.safetensors: {name} is {kind}, expected one of "
                f"{', '.join(_FLOATS)}; quantized weights are not read"
            )
    rows = model.get_input_embeddings().num_embeddings
    # A vocabulary may skip numbers.
    tokens = max(len(tokenizer), *(number + 1 for number in tokenizer.get_vocab().values()))
    if tokens > rows:
        raise InputError(
            f"{place}: the tokenizer has {tokens} tokens but the embedding has {rows} rows; they "
            "do not belong together"
        )
    warnings = []
    if unused := sum(bool(_OF_A_LAYER.search(name)) for name in report["unexpected_keys"]):
        warnings.append(
            f"{place}: the config has {config.num_hidden_layers} layers and the weights have more: "
            f"{unused} tensors are not used"
        )
    if constant := _constant_matrices(directory / "model.safetensors"):
        others = f" and of {len(constant) - 1} more" if len(constant) > 1 else ""
        warnings.append(
            f"{place}/model.safetensors: all values of {constant[0]}{others} are the same: the "
            "weights are not those of a trained model"
        )
    return warnings


def _constant_matrices(path: Path) -> list[str]:
    """Return the names of matrices that have one value only, such as zeros.

    Biases and normalizations may be constant, and so may an embedding with a single row.
    """
    with safetensors.safe_open(path, "pt") as weights:
        shapes = {
            name: weights.get_slice(name).get_shape()
            for name in weights.keys()  # noqa: SIM118
        }
        matrices = (name for name, shape in shapes.items() if len(shape) > 1 and shape[0] > 1)
        return [name for name in matrices if _is_constant(weights.get_tensor(name))]


def _is_constant(tensor: torch.Tensor) -> bool:
    return bool(tensor.min() == tensor.max())


@contextlib.contextmanager
def _named(file: str) -> Iterator[None]:
    """Turn a library's error about the content of `file` into an InputError that names it."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise
        # Each library raises its own exception types for content that it cannot parse.
        raise InputError(f"{file}: cannot be used: {type(error).__name__}: {error}") from None
    finally:
        transformers.logging.set_verbosity(verbosity)
