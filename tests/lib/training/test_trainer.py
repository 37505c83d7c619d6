"""stages.lib.training.trainer: the processes' losses add up to the mean over the batch."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from stages.lib.training import trainer


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
