"""stages.lib.training.steps: training steps without the Trainer."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from stages.lib.training import parts
from stages.lib.training.steps import TrainingSteps

ROWS = [
    (
        torch.tensor([2, *range(5, 5 + length // 2), *range(5, 5 + length - length // 2), 3]),
        length % 2,
    )
    for length in (9, 2, 12, 4)
]


@pytest.fixture
def steps(miniature, monkeypatch):
    """Steps of a model without dropout, in parts of one or a few reviews."""
    monkeypatch.setitem(parts.TOKENS, "cpu", 16)
    model = AutoModelForSequenceClassification.from_pretrained(
        miniature, dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0
    )
    return TrainingSteps(model, "fp32")


def test_the_gradients_of_the_parts_are_those_of_the_batch(steps):
    batch = steps.batch(ROWS)
    steps.model(**batch).loss.backward()
    expected = [weight.grad.clone() for weight in steps.trained if weight.grad is not None]
    steps.optimizer.zero_grad()
    found = []
    steps.optimizer.register_step_pre_hook(
        lambda *_: found.extend(w.grad for w in steps.trained if w.grad is not None)
    )
    steps.take(batch)
    assert len(parts.split(batch, 1)) > 1
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_less_is_saved_for_parts_than_for_the_batch(steps, monkeypatch):
    batch = steps.batch(ROWS)
    in_parts = steps.allocation(batch)
    monkeypatch.setitem(parts.TOKENS, "cpu", 1024)
    whole = steps.allocation(batch)
    assert in_parts["saved_activations_mb"] < whole["saved_activations_mb"] / 2
    assert in_parts["weights_mb"] == whole["weights_mb"] > 0
