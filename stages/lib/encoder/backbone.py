"""Loading the backbone, and verifying that it is what the stages take it for."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel

from stages.lib.core.errors import InputError
from stages.lib.encoder import tokenizer as tokenizers

PROBE = ["a gorgeous, witty, seductive movie", "simplistic, silly and tedious"]


def load_verified(directory: Path) -> tuple[PreTrainedModel, int, dict[str, Any]]:
    """The backbone in eval mode and float32, its padding id, and the facts that were verified.

    A pooler, which comes after the hidden states, is left out. Raises InputError when weights are
    missing, when the tokenizer has more tokens than the embedding has rows or is not what
    `tokenizer.load` expects, when the last hidden state of a known batch is not [batch, tokens,
    dim], or when it is not finite.
    """
    tokenizer = tokenizers.load(directory)
    model, report = AutoModel.from_pretrained(
        directory, dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    model.eval()
    if hasattr(model, "pooler"):
        model.pooler = None
    if missing := sorted(name for name in report["missing_keys"] if name in model.state_dict()):
        raise InputError(f"{directory}: the weights lack {missing[0]} and {len(missing) - 1} more")
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise InputError(
            f"{directory}: the tokenizer has {len(tokenizer)} tokens but the embedding has {rows} "
            "rows; they do not belong together"
        )
    batch = tokenizer(PROBE, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    expected = (*batch["input_ids"].shape, model.config.hidden_size)
    if hidden.shape != expected:
        raise InputError(f"{directory}: hidden state is {tuple(hidden.shape)}, expected {expected}")
    if not hidden.isfinite().all():
        raise InputError(f"{directory}: hidden states are not finite: the weights are broken")
    facts = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "layers": model.config.num_hidden_layers,
        "dim": model.config.hidden_size,
        "vocabulary": len(tokenizer),
        "embedding_rows": rows,
        "probe_shape": list(hidden.shape),
        "probe_dtype": str(hidden.dtype).removeprefix("torch."),
        "probe_finite": True,
    }
    return model, tokenizer.pad_token_id, facts
