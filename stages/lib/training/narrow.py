"""Training in bf16 on a CPU without casts that repeat in every step.

Autocast leaves the embeddings' output in float32, so that every residual sum is float32 and every
layer casts it again. It also casts frozen weights anew in every forward pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.lib.encoder import memory, packed, precision

if TYPE_CHECKING:
    from peft import PeftModel

# The attribute of PEFT's layers that says whether they cast their inputs to the adapters' dtype.
_CASTS = "cast_input_dtype_enabled"


@contextmanager
def narrowed(model: "PreTrainedModel | PeftModel", float_format: str) -> Iterator[None]:
    """Keep the hidden states of `model` in bfloat16, and multiply by packed frozen weights.

    All weights stay in float32. On exit, the model computes as before, so it is saved and scored in
    float32, and memory that training has freed is returned to the system. Nothing changes unless
    `float_format` is bf16 and the device is a CPU.
    """
    if float_format != "bf16" or precision.device().type != "cpu":
        yield
        return
    # Full fine-tuning does not import PEFT, so its layers are found by an attribute of theirs.
    layers = [module for module in model.modules() if hasattr(module, "lora_variant")]
    # DoRA divides by the norm of a frozen weight, which should stay exact.
    exact = {layer.base_layer for layer in layers if layer.lora_variant}
    frozen = [
        module
        for module in model.modules()
        if type(module) is nn.Linear and not module.weight.requires_grad and module not in exact
    ]
    hooks = [
        module.register_forward_hook(lambda *given: given[-1].to(torch.bfloat16))
        for name, module in model.named_modules()
        if name.rpartition(".")[2] == "embeddings"
    ]
    # To multiply a view, such as that of the first tokens, by a frozen weight, PyTorch would copy
    # the weight once per review.
    hooks += [
        module.register_forward_pre_hook(lambda _, given: (given[0].contiguous(),))
        for module in model.modules()
        if module in exact
    ]
    for module in frozen:
        module.forward = packed.PackedForward(module)  # type: ignore[method-assign]
    for layer in layers:
        # PEFT would cast inputs to the adapters' float32, and autocast would cast them back.
        setattr(layer, _CASTS, bool(layer.lora_variant))
    try:
        yield
    finally:
        for module in frozen:
            del module.forward
        for layer in layers:
            setattr(layer, _CASTS, True)
        for hook in hooks:
            hook.remove()
        # What comes next is computed in float32, and needs blocks of other sizes.
        memory.return_freed()
