"""stages.lib.training.embeddings: a gradient of the word embeddings in memory that is kept."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from stages.lib.encoder import processes
from stages.lib.training import embeddings


@pytest.fixture
def pair(miniature):
    """Two models with the same weights, of which the second one keeps its gradient."""
    models = [
        AutoModelForSequenceClassification.from_pretrained(miniature).eval() for _ in range(2)
    ]
    models[1].load_state_dict(models[0].state_dict())
    embeddings.keep_gradient(models[1])
    return models


def steps(model, count):
    """Take steps on batches of two parts each, and return the gradient in each step."""
    table = model.get_input_embeddings()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    generator = torch.Generator().manual_seed(0)
    gradients = []
    for _ in range(count):
        for _ in range(2):
            ids = torch.randint(table.num_embeddings, (6, 9), generator=generator)
            # Padding, and a word that occurs again and again.
            ids[:, -2:], ids[:, 0] = table.padding_idx, 2
            model(input_ids=ids, labels=torch.tensor([0, 1] * 3)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        gradients.append(table.weight.grad.clone())
        optimizer.step()
        optimizer.zero_grad()
    return gradients


def test_gradients_and_weights_are_those_of_pytorch_to_the_last_bit(pair):
    expected, found = (steps(model, 3) for model in pair)
    assert all(map(torch.equal, found, expected))
    assert not torch.equal(expected[0], expected[1])
    assert all(gradient[pair[0].config.pad_token_id].eq(0).all() for gradient in found)
    assert all(map(torch.equal, pair[1].parameters(), pair[0].parameters()))


def test_every_step_uses_the_same_memory(pair):
    table = pair[1].get_input_embeddings()
    places = set()
    for word in (7, 8, 9):
        table(torch.tensor([[word]])).sum().backward()
        assert table.weight.grad.count_nonzero(dim=1).nonzero().tolist() == [[word]]
        places.add(table.weight.grad.data_ptr())
        table.weight.grad = None
    assert len(places) == 1


def test_what_has_no_gradient_is_looked_up_as_by_pytorch(pair):
    table = pair[1].get_input_embeddings()
    ids = torch.tensor([[2, 7, 3]])
    with torch.no_grad():
        assert not table(ids).requires_grad
    table.weight.requires_grad_(False)
    assert not table(ids).requires_grad
    assert torch.equal(table(ids)[0], table.weight[[2, 7, 3]])


def test_processes_that_average_gradients_get_them_from_pytorch(pair, monkeypatch):
    alone, kept = pair
    several = SimpleNamespace(num_processes=2, device=torch.device("cpu"))
    monkeypatch.setattr(processes, "state", lambda: several)
    embeddings.keep_gradient(alone)
    assert type(alone.get_input_embeddings()) is nn.Embedding
    assert type(kept.get_input_embeddings()) is embeddings.Embedding
