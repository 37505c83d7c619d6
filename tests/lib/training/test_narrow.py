"""stages.lib.training.narrow: what is 16 bit while a model is trained, and what stays float32."""

import sys

import psutil
import pytest
import torch
from shapes import Shapes
from transformers import AutoModelForSequenceClassification

from stages import lora
from stages.lib.encoder import first_token
from stages.lib.schema import params
from stages.lib.training import dropout, narrow, steps

BATCH = {
    "input_ids": torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    "labels": torch.tensor([0, 1]),
}
SETTINGS = params.parse(params.declarations.read_yaml(params.PATH)).lora


def adapted(miniature, variant="lora"):
    """Return the miniature classifier with adapters in training mode."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(miniature)
    model = lora.adapt(model, SETTINGS.model_copy(update={"variant": variant}))
    dropout.make_cheap(model)
    return model.train()


def copies(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def loss(model):
    with torch.autocast("cpu", torch.bfloat16):
        return model(**BATCH).loss


def scores(model):
    """Compute the logits without autocast and dropout, and leave the model in training mode."""
    with torch.inference_mode():
        logits = model.eval()(**BATCH).logits
    model.train()
    return logits


def step(model):
    """Compute the gradients of the batch, and return the hidden states that the layers give."""
    hidden = []
    hooks = [
        module.register_forward_hook(lambda *given: hidden.append(given[-1]))
        for name, module in model.named_modules()
        if name.endswith(("distilbert.embeddings", "output_layer_norm"))
    ]
    loss(model).backward()
    for hook in hooks:
        hook.remove()
    return hidden


def multiplied_in_16_bit(model):
    """Return the names of the layers whose weights are multiplied in 16 bit in the block."""
    return {name for name, module in model.named_modules() if "forward" in vars(module)}


def test_frozen_weights_are_multiplied_in_16_bit_and_what_is_trained_is_float32(miniature):
    model = adapted(miniature)
    with narrow.narrowed(model, "bf16"):
        narrowed = multiplied_in_16_bit(model)
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert any(name.endswith("ffn.lin1") for name in narrowed)
        assert any(name.endswith("q_lin.base_layer") for name in narrowed)
        assert trained
        assert not any(name.startswith(f"{layer}.") for name in trained for layer in narrowed)
        step(model)
        gradients = {p.grad.dtype for p in model.parameters() if p.grad is not None}
        assert gradients == {torch.float32}


def test_hidden_states_are_16_bit_and_frozen_embeddings_get_no_gradient(miniature):
    model = adapted(miniature)
    with narrow.narrowed(model, "bf16"):
        embedded, *rest = step(model)
    assert {states.dtype for states in (embedded, *rest)} == {torch.bfloat16}
    assert not embedded.requires_grad
    assert all(states.requires_grad for states in rest)
    assert rest


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_afterwards_every_weight_and_score_is_what_it_was(miniature, variant):
    model = adapted(miniature, variant)
    before, logits = copies(model), scores(model)
    with pytest.raises(KeyboardInterrupt), narrow.narrowed(model, "bf16"):
        step(model)
        raise KeyboardInterrupt
    after = copies(model)
    assert {parameter.dtype for parameter in after.values()} == {torch.float32}
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert torch.equal(scores(model), logits)


def test_weights_whose_norm_dora_takes_stay_exact(miniature):
    model = adapted(miniature, "dora")
    with narrow.narrowed(model, "bf16"):
        narrowed = multiplied_in_16_bit(model)
    assert not any("q_lin.base_layer" in name for name in narrowed)
    assert any("ffn.lin1" in name for name in narrowed)


def test_a_bias_is_trained_beside_its_frozen_weight(miniature):
    """BitFit trains biases only."""
    model = adapted(miniature)
    layers = {name: module for name, module in model.named_modules() if name.endswith("ffn.lin1")}
    for module in layers.values():
        module.bias.requires_grad_()
    with narrow.narrowed(model, "bf16"):
        assert layers.keys() <= multiplied_in_16_bit(model)
        step(model)
    assert all(module.bias.grad.any() for module in layers.values())


def test_fewer_bytes_are_saved_for_the_backward_pass(miniature):
    model = adapted(miniature)

    def saved():
        return steps.saved_bytes(model, lambda: loss(model))

    before = saved()
    with narrow.narrowed(model, "bf16"):
        assert saved() < 0.8 * before


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_no_frozen_weight_is_copied_for_each_review(miniature, variant):
    model = adapted(miniature, variant)
    first_token.keep_first(model)
    dim = model.config.dim
    with narrow.narrowed(model, "bf16"), Shapes() as shapes:
        loss(model).backward()
    assert (2, 1, dim) in shapes.found
    assert (2, dim, dim) not in shapes.found


@pytest.mark.skipif(sys.platform != "linux", reason="the C library may keep what is freed")
def test_memory_that_training_has_freed_is_returned(miniature):
    """What is freed below a block that is in use stays with the process by itself."""
    process = psutil.Process()
    with narrow.narrowed(adapted(miniature), "bf16"):
        blocks = [torch.ones(16_000) for _ in range(4000)]
        last = blocks.pop()
        blocks.clear()
        before = process.memory_info().rss
    assert before - process.memory_info().rss > 150e6
    assert last.sum() == 16_000
