"""Dropout with cheaper and smaller random masks, for training on a CPU.

On a CPU, PyTorch draws one random number per element on a single thread, which takes a fifth of a
LoRA step. Here, one 64-bit number serves four elements with 16 bits each. The distribution is the
same to within 1 / 65536, and the numbers come from the same seeded generator, so a run can be
repeated and resumed as with PyTorch's dropout.

What is saved for the backward pass is one byte per element. PyTorch saves a mask of floats, and of
attention also the weights after dropout, which are computed again here.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from stages.lib.encoder import precision

if TYPE_CHECKING:
    from peft import PeftModel

ATTENTION = "sdpa_cheap_dropout"


def _draw(x: torch.Tensor, p: float) -> torch.Tensor:
    """Draw which elements of `x` are kept, uint8 of its shape: 1 with probability 1 - p, else 0.

    PyTorch compares in place, and converts integers, several times as fast as it makes and converts
    booleans.
    """
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = draws.view(torch.int16)[: x.numel()].ge_(round(p * 2**16) - 2**15)
    return kept.to(torch.uint8).view(x.shape)


def _apply(x: torch.Tensor, kept: torch.Tensor, p: float) -> torch.Tensor:
    return x * kept.to(x.dtype).mul_(1 / (1 - p))


class _Dropped(torch.autograd.Function):
    """Dropout of x."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, p: float) -> torch.Tensor:
        kept = _draw(x, p)
        ctx.save_for_backward(kept)
        ctx.p = p
        return _apply(x, kept, p)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (kept,) = ctx.saved_tensors
        return _apply(grad, kept, ctx.p), None


class _DroppedProduct(torch.autograd.Function):
    """The matrix product of weights after dropout with values, both of the same dtype."""

    @staticmethod
    def forward(ctx: Any, weights: torch.Tensor, values: torch.Tensor, p: float) -> torch.Tensor:
        kept = _draw(weights, p)
        ctx.save_for_backward(weights, values, kept)
        ctx.p = p
        return _apply(weights, kept, p) @ values

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        weights, values, kept = ctx.saved_tensors
        grad = grad.contiguous()
        of_values = _apply(weights, kept, ctx.p).mT @ grad
        return _apply(grad @ values.mT, kept, ctx.p), of_values, None


def dropout(x: torch.Tensor, p: float) -> torch.Tensor:
    """Zero each element of `x` with probability `p` and scale the others by 1 / (1 - p)."""
    dropped: torch.Tensor = _Dropped.apply(x, p)
    return dropped


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
        # Adding zeros and the lowest number is quicker than filling in the latter.
        lowest = torch.finfo(scores.dtype).min
        scores = scores + torch.where(attention_mask, 0.0, lowest).to(scores.dtype)
    product = _DroppedProduct.apply(scores.softmax(-1), value, dropout)
    return product.transpose(1, 2).contiguous(), None


def make_cheap(model: "PreTrainedModel | PeftModel") -> None:
    """Use this module's dropout throughout `model`, in place, if it is trained on a CPU."""
    if precision.device().type != "cpu":
        return
    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = Dropout
    model.set_attn_implementation(ATTENTION)
