"""stages.lib.training.trainer: how long it trains, and the loss that processes share."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from stages.lib.schema.params import Training
from stages.lib.training import trainer


@pytest.mark.parametrize(
    ("rows", "passes"), [(8484, 1), (3200, 1), (3199, 1), (3168, 2), (1000, 4), (100, 25), (1, 100)]
)
def test_a_small_training_set_is_passed_over_until_there_are_enough_steps(rows, passes):
    settings = Training(lr=0.1, epochs=3, batch_size=32, weight_decay=0.0, warmup=0.0)
    data = {"labels": ["bad", "good"], "reviews": {"source": "pypi", "train": rows}}
    assert trainer.passes(data, rows, settings, min_steps=300) == passes
    assert passes * settings.epochs * -(-rows // 32) >= 300
    data["reviews"]["subset"] = rows
    assert trainer.passes(data, rows, settings, min_steps=300) == 1


@given(st.integers(1, 12), st.integers(1, 5))
def test_the_processes_losses_add_up_to_that_of_the_batch(rows, count):
    """A process without a row gets one that does not count."""
    generator = torch.Generator().manual_seed(rows)
    logits = torch.randn(rows, 3, generator=generator, requires_grad=True)
    labels = torch.randint(3, (rows,), generator=generator)
    total = torch.tensor(0.0)
    for index in range(count):
        mine, true = logits[index::count], labels[index::count]
        if not len(mine):
            mine, true = logits[:1], torch.tensor([trainer.IGNORED])
        total = total + trainer._loss({"logits": mine}, true, torch.tensor(rows))
    (found,) = torch.autograd.grad(total, logits)
    (expected,) = torch.autograd.grad(cross_entropy(logits, labels), logits)
    assert torch.allclose(found, expected, atol=1e-7)
