"""Dropout with cheaper random masks, for training on a CPU.

On a CPU, PyTorch draws one random number per element on a single thread, which takes a fifth of a
LoRA step. Here, one 64-bit number serves four elements with 16 bits each. The distribution is the
same to within 1 / 65536, and the numbers come from the same seeded generator, so a run can be
repeated and resumed as with PyTorch's dropout.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from peft import PeftModel

ATTENTION = "sdpa_cheap_dropout"


def dropout(x: torch.Tensor, p: float) -> torch.Tensor:
    """Zero each element of `x` with probability `p` and scale the others by 1 / (1 - p)."""
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = draws.view(torch.int16)[: x.numel()] >= round(p * 2**16) - 2**15
    return x * kept.view(x.shape).to(x.dtype).mul_(1 / (1 - p))


class Dropout(nn.Dropout):
    """A replacement for torch.nn.Dropout, for tensors on the CPU."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return dropout(input, self.p) if self.training and self.p > 0 else input


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Compute scaled dot-product attention.

    Maps [batch, heads, tokens, width] to [batch, tokens, heads, width].
    """
    if dropout == 0:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
    scores = query @ key.transpose(-1, -2) * (scaling or query.shape[-1] ** -0.5)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = _dropout(scores.softmax(-1), dropout)
    return (weights @ value).transpose(1, 2).contiguous(), None


_dropout = dropout


def make_cheap(model: "PreTrainedModel | PeftModel") -> None:
    """Use this module's dropout throughout `model`, in place."""
    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = Dropout
    model.set_attn_implementation(ATTENTION)
