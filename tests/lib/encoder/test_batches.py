"""stages.lib.encoder.batches: each row once, similar lengths together, an order set by the seed."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.encoder import batches

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=300)


def epoch(sampler, number):
    sampler.set_epoch(number)
    return list(sampler)


@given(LENGTHS, st.integers(1, 40), st.integers(0, 5))
def test_training_batches_cover_each_row_once(lengths, batch_size, number):
    sampler = batches.LengthGrouped(lengths, batch_size, seed=0)
    chosen = epoch(sampler, number)
    assert sorted(row for batch in chosen for row in batch) == list(range(len(lengths)))
    assert len(chosen) == len(sampler)
    assert max(map(len, chosen)) <= batch_size


@given(LENGTHS, st.integers(1, 40), st.integers(1, 5))
def test_an_epoch_of_several_passes_covers_each_row_as_often(lengths, batch_size, passes):
    sampler = batches.LengthGrouped(lengths, batch_size, seed=0, passes=passes)
    chosen = epoch(sampler, 1)
    assert len(chosen) == len(sampler)
    every = -(-len(lengths) // batch_size)
    for first in range(0, len(chosen), every):
        rows = [row for batch in chosen[first : first + every] for row in batch]
        assert sorted(rows) == list(range(len(lengths)))


def test_the_batches_of_a_small_set_differ_from_pass_to_pass():
    sampler = batches.LengthGrouped(range(1, 101), 32, seed=0, passes=2)
    chosen = [frozenset(batch) for batch in epoch(sampler, 0)]
    assert not set(chosen[:4]) & set(chosen[4:])


@given(LENGTHS, st.integers(1, 40), st.integers(1, 9))
def test_processes_share_each_batch_of_one_process(lengths, batch_size, count):
    whole = batches.LengthGrouped(lengths, batch_size, seed=0)
    shares = [batches.Share(whole, index, count) for index in range(count)]
    assert {len(share) for share in shares} == {len(whole)}
    for batch, *parts in zip(epoch(whole, 3), *(epoch(s, 3) for s in shares), strict=True):
        assert sorted(row for part in parts for row in part) == sorted(batch)
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1


@given(st.lists(st.lists(st.integers()), min_size=1, max_size=40), st.integers(1, 9))
def test_every_process_has_a_batch_in_every_turn(whole, count):
    turns = batches.turns(whole, count)
    assert {len(turn) for turn in turns} == {count}
    flat = [batch for turn in turns for batch in turn]
    assert flat[: len(whole)] == whole
    assert len(flat) - len(whole) < count
    assert all(batch == whole[-1] for batch in flat[len(whole) :])


@given(LENGTHS, st.integers(1, 200))
def test_inference_batches_cover_each_row_once_within_the_budget(lengths, tokens):
    chosen = list(batches.TokenBudget(lengths, tokens))
    assert sorted(row for batch in chosen for row in batch) == list(range(len(lengths)))
    for batch in chosen:
        padded = max(lengths[row] for row in batch) * len(batch)
        assert padded <= tokens or len(batch) == 1


def test_the_order_follows_from_seed_and_epoch():
    lengths = list(range(1, 500))
    first = epoch(batches.LengthGrouped(lengths, 8, seed=0), 3)
    assert first == epoch(batches.LengthGrouped(lengths, 8, seed=0), 3)
    assert first != epoch(batches.LengthGrouped(lengths, 8, seed=1), 3)
    assert first != epoch(batches.LengthGrouped(lengths, 8, seed=0), 4)


def test_little_is_padded():
    random = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 60, (3200,), generator=random).tolist()
    padded = sum(
        max(lengths[row] for row in batch) * len(batch)
        for batch in batches.LengthGrouped(lengths, 32, seed=0)
    )
    assert padded < 1.05 * sum(lengths)


def reviews_of_usual_lengths():
    """Return 8,000 lengths with the mean (27 tokens), quartiles and maximum of the real reviews."""
    random = np.random.default_rng(0)
    return random.normal(27, 11.5, 8000).round().clip(5, 78).astype(int)


def shapes(lengths, sampler):
    """Return the distinct shapes of the batches, and the share of padding among their tokens."""
    widths = batches.widths(lengths, batches.MULTIPLE)
    padded = [(len(rows), int(widths[rows].max())) for rows in sampler]
    return set(padded), 1 - lengths.sum() / sum(rows * width for rows, width in padded)


def test_an_epoch_of_training_has_tens_of_shapes_and_little_padding():
    lengths = reviews_of_usual_lengths()
    found, padding = shapes(lengths, batches.LengthGrouped(lengths, 32, seed=0))
    assert len(found) <= 20
    assert padding < 0.09


def test_extraction_has_tens_of_shapes_and_little_padding():
    lengths = reviews_of_usual_lengths()
    widths = batches.widths(lengths, batches.MULTIPLE)
    found, padding = shapes(lengths, batches.TokenBudget(widths, 2048))
    assert len(found) <= 20
    assert padding < 0.07


@given(LENGTHS, st.integers(1, 9))
def test_widths_are_multiples_or_the_greatest_length(lengths, multiple):
    for length, width in zip(lengths, batches.widths(lengths, multiple), strict=True):
        assert length <= width < length + multiple
        assert width % multiple == 0 or width == max(lengths)


def test_rows_of_equal_length_are_shuffled():
    (batch,) = batches.LengthGrouped([1] * 50, 50, seed=0)
    assert batch != sorted(batch)


def test_padding_is_masked():
    batch = batches.pad([torch.tensor([2, 7, 3]), torch.tensor([2, 3])], pad_token_id=9)
    assert batch["input_ids"].tolist() == [[2, 7, 3], [2, 3, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    wider = batches.pad([torch.tensor([2, 7, 3])], pad_token_id=9, width=5)
    assert wider["input_ids"].tolist() == [[2, 7, 3, 9, 9]]
    assert wider["attention_mask"].tolist() == [[1, 1, 1, 0, 0]]
