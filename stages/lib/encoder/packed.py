"""Products of frozen bfloat16 weights on a CPU, whose weights are arranged once.

In every product, PyTorch would copy the bias to all rows of the result, and oneDNN would arrange
the weights in the blocks that the processor multiplies. Here, oneDNN arranges them once and adds
the bias itself, in the operations that torch.compile uses for frozen weights.
"""

from functools import cache, cached_property
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

from stages.lib.encoder import memory


class PackedForward:
    """The forward pass of a linear layer in bfloat16, from [..., in] to [..., out].

    The layer's weight is frozen; its bias may be trained. Assigned to the layer's attribute
    `forward`, it replaces its method until it is deleted.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer
        self.weight = _pack(layer.weight)
        frozen = layer.bias is not None and not layer.bias.requires_grad
        self.bias = layer.bias.to(torch.bfloat16) if frozen else layer.bias

    @cached_property
    def transposed(self) -> torch.Tensor:
        """The weight [in, out] of the backward pass, which inference does not need."""
        return _pack(self._layer.weight.T)

    def __call__(self, input: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = _Product.apply(input, self.bias, self)
        return product


class _Product(torch.autograd.Function):
    """The product of an input of any float dtype and a frozen weight, and the sum with a bias."""

    @staticmethod
    def forward(
        ctx: Any, input: torch.Tensor, bias: torch.Tensor | None, packed: PackedForward
    ) -> torch.Tensor:
        ctx.packed = packed
        return _multiply(input, packed.weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        of_input, of_bias, _ = ctx.needs_input_grad
        return (
            _multiply(grad, ctx.packed.transposed, None) if of_input else None,
            grad.flatten(0, -2).sum(0, dtype=torch.float32) if of_bias else None,
            None,
        )


@cache
def _supported() -> bool:
    """Tell whether oneDNN multiplies in bfloat16 on this processor."""
    x86 = torch.cpu.get_capabilities().get("architecture") == "x86_64"
    return x86 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _pack(weight: torch.Tensor) -> torch.Tensor:
    rounded = weight.detach().to(torch.bfloat16).contiguous()
    # The model is used in float32 again after training only.
    memory.page_out(weight)
    return torch.ops.mkldnn._reorder_linear_weight(rounded) if _supported() else rounded


def _multiply(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    # To multiply a view, such as that of the first tokens, PyTorch would copy the weight once per
    # review.
    input = input.to(torch.bfloat16).contiguous()
    bias = None if bias is None else bias.to(torch.bfloat16)
    if not _supported():
        return linear(input, weight, bias)
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return product


def pack(model: nn.Module) -> None:
    """Freeze a model, in place, pack all of its linear layers, and drop their weights."""
    for module in model.requires_grad_(False).modules():
        # Those of attention in PyTorch are a subclass, and used without their forward pass.
        if type(module) is nn.Linear:
            module.forward = PackedForward(module)  # type: ignore[method-assign]
            module.register_parameter("weight", None)
            module.register_parameter("bias", None)
