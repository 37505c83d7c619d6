"""Loading the backbone and verifying the properties that the stages rely on."""

from pathlib import Path

import torch
import transformers
from transformers import AutoModel, PreTrainedModel

from stages.lib.core.errors import InputError
from stages.lib.core.metrics import Encoder
from stages.lib.encoder import tokenizer as tokenizers

PROBE = ["a gorgeous, witty, seductive movie", "simplistic, silly and tedious"]


def load_verified(directory: Path) -> tuple[PreTrainedModel, int, Encoder]:
    """Return the backbone in eval mode and float32, its padding id, and the verified facts.

    The download stage has already checked that the files belong together (see
    `compatibility.check`). A pooler is removed, because it comes after the hidden states. Raises
    InputError when the last hidden state of a known batch is not [batch, tokens, dim] or is not
    finite.
    """
    tokenizer = tokenizers.load(directory)
    # transformers would report every missing or unexpected tensor, such as those of a pooler.
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
    facts: Encoder = {
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
