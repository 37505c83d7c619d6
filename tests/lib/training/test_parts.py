"""stages.lib.training.parts: parts of a large batch."""

import pytest
import torch

from stages.lib.encoder.tokens import Collator
from stages.lib.training import parts

LENGTHS = (3, 13, 2, 20, 4, 12)


def collated(*lengths, multiple=4):
    collate = Collator(9, multiple, longest=20)
    return collate([(torch.arange(length), length) for length in lengths])


@pytest.fixture
def most(monkeypatch):
    return lambda tokens: monkeypatch.setitem(parts.TOKENS, "cpu", tokens)


def test_a_batch_of_few_tokens_is_its_only_part(most):
    batch = collated(*LENGTHS)
    most(batch["input_ids"].numel())
    (whole,) = parts.split(batch, 4)
    assert whole is batch


def test_parts_have_equal_sizes_similar_lengths_and_their_own_width(most):
    most(60)
    found = parts.split(collated(*LENGTHS), 4)
    assert [part["labels"].tolist() for part in found] == [[20, 13, 12], [4, 3, 2]]
    assert [part["input_ids"].shape[1] for part in found] == [20, 4]
    for part in found:
        expected = collated(*part["labels"].tolist())
        assert all(torch.equal(part[name], expected[name]) for name in expected)


def test_no_part_has_more_tokens_than_it_may_unless_it_is_one_review(most):
    for tokens in (1, 20, 45, 60, 80, 119):
        most(tokens)
        found = parts.split(collated(*LENGTHS), 4)
        sizes = [len(part["labels"]) for part in found]
        assert sum(sizes) == len(LENGTHS)
        assert max(sizes) - min(sizes) <= 1
        assert all(part["input_ids"].numel() <= max(tokens, 20) for part in found)


def test_a_part_is_not_padded_beyond_its_batch(most):
    """The backbone may have no position beyond the longest review, however wide a multiple is."""
    most(20)
    assert [part["input_ids"].shape[1] for part in parts.split(collated(18, 17), 8)] == [20, 20]
