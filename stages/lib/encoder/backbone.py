"""Loading the backbone, and verifying that it is what the stages take it for."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModel, PreTrainedModel

from stages.lib.core.errors import InputError
from stages.lib.encoder import tokenizer as tokenizers

PROBE = ["a gorgeous, witty, seductive movie", "simplistic, silly and tedious"]


def load_verified(directory: Path) -> tuple[PreTrainedModel, int, dict[str, Any]]:
    """The backbone in eval mode and float32, its padding id, and the facts that were verified.

    That its files belong together was checked when they were fetched (see `compatibility.check`).
    A pooler, which comes after the hidden states, is left out. Raises InputError when the last
    hidden state of a known batch is not [batch, tokens, dim] or is not finite.
    """
    tokenizer = tokenizers.load(directory)
    # It would report each tensor that the files have too many or too few, such as a pooler's.
    transformers.logging.set_verbosity_error()
    model = AutoModel.from_pretrained(directory, dtype=torch.float32, use_safetensors=True)
    model.eval()
    if hasattr(model, "pooler"):
        model.pooler = None
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
        "embedding_rows": model.get_input_embeddings().num_embeddings,
        "probe_shape": list(hidden.shape),
        "probe_dtype": str(hidden.dtype).removeprefix("torch."),
        "probe_finite": True,
    }
    return model, tokenizer.pad_token_id, facts
