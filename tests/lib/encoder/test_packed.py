"""stages.lib.encoder.packed: products of frozen bf16 weights, forward and backward."""

import pytest
import torch
from shapes import Shapes
from torch import nn

from stages.lib.encoder import packed


@pytest.fixture(params=[True, False], ids=["packed by oneDNN", "not packed"])
def here(request, monkeypatch):
    """Run a test with and without oneDNN's layout, which not every processor has."""
    if request.param and not packed._supported():
        pytest.skip("oneDNN does not multiply bf16 on this processor")
    monkeypatch.setattr(packed, "_supported", lambda: request.param)


def layer(bias=True, inputs=24, outputs=40):
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias).requires_grad_(False)


def rounded(tensor):
    return tensor.detach().to(torch.bfloat16).float()


def close(one, other):
    """Tell whether two tensors differ by no more than the rounding of one result."""
    return torch.allclose(one.float(), other, rtol=2**-7, atol=1e-3)


@pytest.mark.parametrize("shape", [(7, 24), (2, 5, 24), (1, 1, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_and_its_gradient_are_those_of_the_rounded_weights(here, shape, bias):
    linear = layer(bias)
    x = torch.randn(shape).requires_grad_()
    expected = nn.functional.linear(
        rounded(x), rounded(linear.weight), rounded(linear.bias) if bias else None
    )
    gradient = torch.randn_like(expected)
    product = packed.PackedForward(linear)(x)
    product.backward(gradient.to(torch.bfloat16))
    assert product.dtype == torch.bfloat16
    assert product.shape == expected.shape
    assert close(product, expected)
    assert x.grad.dtype == torch.float32
    assert close(x.grad, rounded(gradient) @ rounded(linear.weight))


def test_a_bias_that_is_trained_has_the_gradient_of_the_sum(here):
    linear = layer()
    linear.bias.requires_grad_()
    product = packed.PackedForward(linear)(torch.randn(2, 5, 24))
    gradient = torch.randn(2, 5, 40).to(torch.bfloat16)
    product.backward(gradient)
    assert torch.allclose(linear.bias.grad, gradient.float().sum((0, 1)), rtol=1e-5)


def test_a_step_of_the_bias_changes_the_next_product(here):
    linear = layer()
    linear.bias.requires_grad_()
    forward = packed.PackedForward(linear)
    linear.bias.data += 1
    assert close(forward(torch.zeros(1, 24))[0].detach(), rounded(linear.bias))


def test_a_view_is_multiplied_as_its_copy_is(here):
    forward = packed.PackedForward(layer())
    states = torch.randn(3, 5, 24).to(torch.bfloat16)
    assert torch.equal(forward(states[:, :1]), forward(states[:, :1].clone()))


def test_the_weight_of_the_backward_pass_is_made_when_it_is_needed(here):
    forward = packed.PackedForward(layer())
    forward(torch.randn(3, 24))
    assert "transposed" not in vars(forward)
    forward(torch.randn(3, 24, requires_grad=True)).sum().backward()
    assert "transposed" in vars(forward)


def test_each_float32_weight_is_paged_out_once_it_is_packed(here, monkeypatch):
    shapes = []
    monkeypatch.setattr(packed.memory, "page_out", lambda weight: shapes.append(weight.shape))
    packed.PackedForward(layer())(torch.randn(3, 24, requires_grad=True)).sum().backward()
    assert shapes == [(40, 24), (24, 40)]


def test_a_second_product_prepares_no_weight():
    if not packed._supported():
        pytest.skip("oneDNN does not multiply bf16 on this processor")
    forward = packed.PackedForward(layer())

    def step(x):
        forward(x).sum().backward()

    with Shapes() as first:
        step(torch.randn(3, 24, requires_grad=True))
    with Shapes() as second:
        step(torch.randn(5, 24, requires_grad=True))
    assert (24, 40) in first.found
    assert not {(24, 40), (40, 24)} & second.found


def test_a_packed_model_keeps_no_other_weights_of_its_linear_layers(here):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.attention = nn.Linear(24, 40), nn.MultiheadAttention(24, 2)

        def forward(self, x):
            return self.attention(*3 * [self.linear(x)[..., :24].float()])[0]

    torch.manual_seed(0)
    model, x = Both().eval(), torch.randn(3, 24)
    with torch.inference_mode():
        expected = model(x)
        packed.pack(model)
        assert torch.allclose(model(x), expected, atol=0.02)
    assert model.linear.weight is None
    assert model.linear.forward.bias.dtype == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not [name for name, _ in model.named_parameters() if name.startswith("linear")]
