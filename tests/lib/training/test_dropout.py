"""stages.lib.training.dropout: PyTorch's dropout with cheaper masks."""

import pytest
import torch
from scipy.stats import binomtest
from transformers import AutoModelForSequenceClassification

from stages.lib.training import dropout


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5])
def test_elements_are_dropped_with_the_probability_asked_for(p):
    torch.manual_seed(0)
    result = dropout.dropout(torch.ones(1000, 999), p)
    dropped = int((result == 0).sum())
    assert binomtest(dropped, result.numel(), p).pvalue > 0.001
    assert torch.allclose(result[result != 0], torch.tensor(1 / (1 - p)))


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    kept = (dropout.dropout(torch.ones(400_000, 4), 0.5) != 0).float()
    correlations = torch.corrcoef(kept.T) - torch.eye(4)
    assert correlations.abs().max() < 0.01


def test_masks_follow_from_the_seed():
    x = torch.ones(100, 7)
    torch.manual_seed(1)
    first = dropout.dropout(x, 0.3)
    state = torch.get_rng_state()
    second = dropout.dropout(x, 0.3)
    torch.manual_seed(1)
    assert torch.equal(first, dropout.dropout(x, 0.3))
    torch.set_rng_state(state)
    assert torch.equal(second, dropout.dropout(x, 0.3))
    assert not torch.equal(first, second)


def test_gradients_pass_where_elements_are_kept():
    torch.manual_seed(0)
    x = torch.randn(50, 6, requires_grad=True)
    result = dropout.dropout(x, 0.4)
    result.sum().backward()
    assert torch.allclose(x.grad, (result != 0) / 0.6)


def test_the_product_with_dropped_weights_has_the_gradients_of_its_formula():
    weights = torch.randn(2, 3, 5, 7, requires_grad=True)
    values = torch.randn(2, 3, 7, 4, requires_grad=True)
    torch.manual_seed(0)
    product = dropout._DroppedProduct.apply(weights, values, 0.4)
    torch.manual_seed(0)
    expected = dropout.dropout(weights, 0.4) @ values
    assert torch.equal(product, expected)
    upstream = torch.randn_like(product)
    found = torch.autograd.grad(product, (weights, values), upstream)
    for one, other in zip(
        found, torch.autograd.grad(expected, (weights, values), upstream), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-6)


def saved(compute, *given):
    """Count the bytes saved for the backward pass beyond what is given."""
    tensors = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: tensors.append(x) or x, lambda x: x):
        compute(*given, 0.4)
    known = {tensor.data_ptr() for tensor in given}
    return sum(tensor.nbytes for tensor in tensors if tensor.data_ptr() not in known)


def test_one_byte_per_element_is_saved_for_the_backward_pass():
    x = torch.randn(8, 16, requires_grad=True)
    assert saved(dropout.dropout, x) == 8 * 16
    values = torch.randn(16, 4, requires_grad=True)
    assert saved(dropout._DroppedProduct.apply, x, values) == 8 * 16


@pytest.fixture
def pair(miniature):
    models = [AutoModelForSequenceClassification.from_pretrained(miniature) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    dropout.make_cheap(models[1])
    batch = {
        "input_ids": torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    }
    return (*models, batch)


def test_a_model_in_eval_mode_is_unchanged(pair):
    original, cheap, batch = pair
    with torch.inference_mode():
        expected = original.eval()(**batch).logits
        assert torch.equal(cheap.eval()(**batch).logits, expected)


def test_a_model_without_dropout_trains_the_same(pair):
    """Compare this module's attention with the library's, up to rounding."""
    original, cheap, batch = pair
    for model in (original, cheap):
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    # Practically no dropout, but enough to take the code path of training.
    for layer in cheap.distilbert.transformer.layer:
        layer.attention.dropout.p = 1e-9
    expected = original.train()(**batch).logits
    assert torch.allclose(cheap.train()(**batch).logits, expected, atol=1e-6)


def test_the_average_of_many_samples_is_the_librarys(pair):
    original, cheap, batch = pair
    many = {name: tensor.repeat(300, 1) for name, tensor in batch.items()}
    means = []
    for model in (original, cheap):
        torch.manual_seed(0)
        model.train()
        with torch.inference_mode():
            passes = torch.cat([model(**many).logits for _ in range(10)])
        logits = passes.unflatten(0, (3000, -1))
        means.append((logits.mean(0), logits.std(0) / 3000**0.5))
    (expected, error), (found, other) = means
    assert ((found - expected).abs() < 4 * (error + other)).all()


def test_padding_gets_no_attention(pair):
    _, cheap, batch = pair
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][1, 3] = 11
    results = []
    for inputs in (batch, changed):
        torch.manual_seed(0)
        results.append(cheap.train()(**inputs).logits)
    assert torch.equal(*results)
