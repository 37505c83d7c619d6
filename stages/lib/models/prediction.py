"""Loading a trained model of any kind to classify texts."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import torch
import transformers
from peft import PeftModel
from tqdm.auto import tqdm
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from stages.lib.core import manifest
from stages.lib.core.errors import InputError
from stages.lib.core.paths import BACKBONE
from stages.lib.encoder import first_token, inference, precision
from stages.lib.encoder import tokenizer as tokenizers
from stages.lib.models import registry
from stages.lib.vectors import linear

PROBE = "a gorgeous, witty, seductive movie"
# The longest text in tokens when neither the tokenizer nor the model has a limit.
MOST = 512


@dataclass(frozen=True)
class Model:
    """A model that computes the probabilities of `labels` from texts."""

    labels: Sequence[str]
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    network: PreTrainedModel | PeftModel
    # Selects the part to use from the network's output: [reviews, width].
    part: Callable[..., torch.Tensor]
    # Turns that part, float32 [reviews, width], into probabilities [reviews, labels].
    finish: Callable[[np.ndarray], np.ndarray]

    def probabilities(self, texts: Sequence[str], progress: tqdm | None = None) -> np.ndarray:
        """Compute the probabilities of the texts: float [texts, labels]."""
        encoded = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=self.max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        values = inference.run(
            lambda **batch: self.part(self.network(**batch)),
            [torch.tensor(ids) for ids in encoded["input_ids"]],
            pad_token_id=self.tokenizer.pad_token_id,
            tokens_per_batch=inference.TOKENS_PER_BATCH,
            device=self.network.device,
            progress=tqdm(disable=True) if progress is None else progress,
        )
        scores = self.finish(values)
        if not np.isfinite(scores).all():
            raise InputError("probabilities are not finite: the weights or --precision do that")
        return scores


def load(directory: Path, float_format: str) -> Model:
    """Load the model of a directory onto the device, in a format that `precision.resolve` returned.

    The directory holds a transformers classifier, a PEFT adapter (which is merged into its base),
    or the SVM's arrays (used with data/backbone). Raises InputError when it holds none of these or
    when its trained head is missing.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    loaders = {"classifier": _load_classifier, "adapter": _load_adapter, "svm": _load_svm}
    try:
        model = loaders[registry.kind(directory)](directory)
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise
        # Each library has types of its own for content that it does not understand.
        raise InputError(
            f"{directory}: cannot be loaded: {type(error).__name__}: {error}"
        ) from None
    _check_labels(directory, model)
    if model.tokenizer.pad_token_id is None:
        raise InputError(f"{directory}: its tokenizer has no padding token")
    first_token.keep_first(model.network)
    # What transformers wraps `to` in hides its arguments' types.
    model.network.to(precision.device(), precision.DTYPES[float_format])  # type: ignore[arg-type]
    model.network.eval()
    return model


def _check_labels(directory: Path, model: Model) -> None:
    """Raise InputError unless each text has one of several labels: the probabilities say so."""
    if len(model.labels) < 2:
        raise InputError(f"{directory}: it has one label: not a classifier of two or more")
    config = model.network.config
    if getattr(config, "problem_type", None) == "multi_label_classification":
        raise InputError(
            f"{directory}: a text may have several of its labels (problem_type in config.json); "
            "expected one label a text"
        )


def _load_classifier(directory: Path) -> Model:
    network, missing = _read_classifier(directory)
    _check_head(directory, missing)
    return _of_logits(directory, network)


def _read_classifier(directory: str | Path, **config: int) -> tuple[PreTrainedModel, set[str]]:
    """Read the classifier in float32; also returns the names of weights missing from its files."""
    network, report = AutoModelForSequenceClassification.from_pretrained(
        directory, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **config
    )
    return network.eval(), set(report["missing_keys"])


def _check_head(directory: Path, missing: set[str]) -> None:
    if missing:
        raise InputError(
            f"{directory}: no trained classifier: its weights lack {', '.join(sorted(missing)[:3])}"
        )


def _of_logits(directory: Path, network: PreTrainedModel | PeftModel) -> Model:
    named = network.config.id2label
    assert named is not None
    labels = _labels(directory) or [label for _, label in sorted(named.items())]
    tokenizer = AutoTokenizer.from_pretrained(directory)
    return Model(
        labels,
        tokenizer,
        min(tokenizer.model_max_length, _positions(network.config)),
        network,
        part=lambda output: output.logits,
        finish=lambda logits: torch.from_numpy(logits).softmax(-1).numpy(),
    )


def _positions(config: PreTrainedConfig) -> int:
    has_positions = hasattr(config, "max_position_embeddings")
    return tokenizers.positions(config) if has_positions else MOST


def _labels(directory: Path) -> Sequence[str] | None:
    """Read the label names saved with the pipeline's own models; None for other models."""
    return manifest.read(directory)["labels"] if (directory / manifest.FILE).is_file() else None


def _load_adapter(directory: Path) -> Model:
    base = _base(directory)
    labels = _labels(directory)
    config = {"num_labels": len(labels)} if labels else {}

    def read() -> PeftModel:
        network, missing = _read_classifier(base, **config)
        _check_head(directory, missing - _weights(directory))
        try:
            return PeftModel.from_pretrained(network, directory).eval()
        except RuntimeError as error:
            raise InputError(f"{directory}: does not fit its base {base}: {error}") from None

    model = read()
    merged = read().merge_and_unload() if hasattr(model.base_model, "merge_and_unload") else None
    tokenizer = AutoTokenizer.from_pretrained(directory)
    probe = tokenizer(PROBE, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        # A merged adapter is faster; one that cannot be merged exactly is used unmerged.
        same = merged and torch.allclose(
            merged(**probe).logits, model(**probe).logits, rtol=0, atol=1e-4
        )
    return _of_logits(directory, merged if merged and same else model)


def _base(directory: Path) -> str:
    config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    base = config["base_model_name_or_path"]
    try:
        # The pipeline's own backbone is a directory: never look its name up on the Hub.
        if base != str(BACKBONE) or BACKBONE.is_dir():
            AutoConfig.from_pretrained(base)
            return base
    except OSError:
        pass
    raise InputError(
        f"{directory}: its base model '{base}' does not exist; run this from the root of the "
        "project that has it (get it with 'dvc pull' or 'dvc repro')"
    )


def _weights(directory: Path) -> set[str]:
    """Read the names of the adapter's weights, named as in the base model."""
    with safetensors.safe_open(directory / "adapter_model.safetensors", "numpy") as file:
        return {name.removeprefix("base_model.model.") for name in file.keys()}  # noqa: SIM118


def _load_svm(directory: Path) -> Model:
    if not (BACKBONE / "config.json").is_file():
        raise InputError(
            f"{directory}: its backbone {BACKBONE} does not exist; run this from the project's "
            "root (get it with 'dvc pull' or 'dvc repro')"
        )
    svm, labels = linear.load(directory)
    network = AutoModel.from_pretrained(BACKBONE, dtype=torch.float32, use_safetensors=True)
    if len(svm.mean) != network.config.hidden_size:
        raise InputError(
            f"{directory}: it takes vectors of {len(svm.mean)} numbers, but those of {BACKBONE} "
            f"have {network.config.hidden_size}; the two do not belong together"
        )
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return Model(
        labels,
        AutoTokenizer.from_pretrained(BACKBONE),
        config["max_length"],
        network,
        part=lambda output: output.last_hidden_state[:, 0],
        finish=svm.probabilities,
    )
