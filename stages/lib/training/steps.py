"""Training steps without the Trainer, computed like those of the stages, to measure their costs."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from stages.lib.core import costs
from stages.lib.encoder import first_token, precision, tokens
from stages.lib.training import dropout, embeddings, parts
from stages.lib.training.parts import Batch

if TYPE_CHECKING:
    from peft import PeftModel


class TrainingSteps:
    """Training steps of `model`, which is moved to the device and set up as in training.

    `float_format` is fp32, bf16 or fp16. At 16 bit, trained weights stay in float32, and the
    computation runs under autocast; `narrow.narrowed` is up to the caller. `longest` is the number
    of tokens of the longest review.
    """

    def __init__(
        self, model: "PreTrainedModel | PeftModel", float_format: str, longest: int = 0
    ) -> None:
        self.device = precision.device()
        # What transformers wraps `to` in hides its arguments' types.
        model.to(self.device).train()  # type: ignore[arg-type]
        first_token.keep_first(model)
        dropout.make_cheap(model)
        embeddings.keep_gradient(model)
        self.model, self.float_format = model, float_format
        self.trained = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-5, fused=True)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=float_format == "fp16")
        self._multiple = precision.multiple(float_format)
        self._collate = tokens.Collator(model.config.pad_token_id, self._multiple, longest)

    def batch(self, rows: list[Any]) -> Batch:
        """Collate rows of a split, on the device."""
        return {name: tensor.to(self.device) for name, tensor in self._collate(rows).items()}

    def take(self, batch: Batch) -> None:
        """Take a step on a batch."""
        for part in parts.split(batch, self._multiple):
            self._backward(part, len(batch["labels"]))
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad()

    def _backward(self, part: Batch, reviews: int) -> None:
        with torch.autocast(
            self.device.type,
            precision.DTYPES[self.float_format],
            enabled=self.float_format != "fp32",
        ):
            loss = self.model(**part).loss * (len(part["labels"]) / reviews)
        self._scaler.scale(loss).backward()

    def allocation(self, batch: Batch) -> costs.Allocation:
        """Take a step on a batch, and measure what PyTorch allocates for it in MB.

        These are the weights, the gradients and the optimizer's states, and what is saved for the
        backward pass of the largest part of the batch.
        """
        self.take(batch)
        states = [
            value
            for state in self.optimizer.state.values()
            for value in state.values()
            if torch.is_tensor(value)
        ]
        count = len(batch["labels"])
        saved = max(
            saved_bytes(self.model, partial(self._backward, part, count))
            for part in parts.split(batch, self._multiple)
        )
        # There is one gradient per trained weight.
        return {
            "weights_mb": _megabytes(self.model.parameters()),
            "gradients_and_optimizer_mb": _megabytes([*self.trained, *states]),
            "saved_activations_mb": round(saved / 1e6, 1),
        }


def _megabytes(tensors: Any) -> float:
    return round(sum(tensor.nbytes for tensor in tensors) / 1e6, 1)


def saved_bytes(model: torch.nn.Module, compute: Callable[[], object]) -> int:
    """Count the bytes, apart from the weights, that `compute` saves for a backward pass.

    `compute` runs a forward pass of `model`, and may run the backward pass.
    """
    return sum(tensor.untyped_storage().nbytes() for tensor in saved_tensors(model, compute))


def saved_tensors(model: torch.nn.Module, compute: Callable[[], object]) -> list[torch.Tensor]:
    """List the tensors, apart from the weights, that `compute` saves for a backward pass.

    Of views of the same memory, the first is listed.
    """
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        compute()
    model.zero_grad()
    return [tensor for storage, tensor in saved.items() if storage not in weights]
