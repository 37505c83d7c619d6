"""Gradients of the word embeddings in memory that is kept from step to step, on a CPU.

PyTorch allocates a gradient for all words in every step, fills it with zeros, and adds the few rows
that a batch has. For BERT's 30,522 words, this takes a tenth of a step. Here, only the rows of the
last step are set to zero. The gradients are the same to the last bit.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.lib.encoder import processes

if TYPE_CHECKING:
    from peft import PeftModel


class _LookedUp(torch.autograd.Function):
    """Rows of the weight of `table`, which adds to its gradient by itself."""

    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, ids: torch.Tensor, table: "Embedding"
    ) -> torch.Tensor:
        ctx.save_for_backward(ids)
        ctx.table = table
        return nn.functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, None, None]:
        ctx.table.add_gradient(*ctx.saved_tensors, grad)
        return None, None, None


class Embedding(nn.Embedding):
    """A replacement for torch.nn.Embedding, for tensors on the CPU."""

    _gradient: torch.Tensor | None = None
    # The rows of `_gradient` that are not zero.
    _rows: tuple[torch.Tensor, ...] = ()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not (self.weight.requires_grad and torch.is_grad_enabled()):
            return super().forward(input)
        rows: torch.Tensor = _LookedUp.apply(self.weight, input, self)
        return rows

    def add_gradient(self, ids: torch.Tensor, grad: torch.Tensor) -> None:
        """Add the gradient of the rows `ids`, [..., dim] for ids [...], to that of the weight."""
        if self.weight.grad is None:
            self.weight.grad = self._zeros()
        rows, places = ids.unique(return_inverse=True)
        # As PyTorch does for the whole table, for the sums to be rounded in the same order.
        added = torch.ops.aten.embedding_dense_backward(grad, places, len(rows), -1, False)
        if self.padding_idx is not None:
            added[rows == self.padding_idx] = 0
        self.weight.grad.index_add_(0, rows, added)
        self._rows += (rows,)

    def _zeros(self) -> torch.Tensor:
        if self._gradient is None:
            self._gradient = torch.zeros_like(self.weight)
        else:
            for rows in self._rows:
                self._gradient[rows] = 0
        self._rows = ()
        return self._gradient


def keep_gradient(model: "PreTrainedModel | PeftModel") -> None:
    """Use this module's embedding for the words of `model`, in place, on a CPU.

    Several processes average gradients, which they have to get from PyTorch.
    """
    table = model.get_input_embeddings()
    here = processes.state()
    alone = here.device.type == "cpu" and here.num_processes == 1
    if alone and type(table) is nn.Embedding:
        table.__class__ = Embedding
