"""Token ids and [CLS] vectors on disk: data that are read and written in pieces."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from stages.lib.core import parquet, paths
from stages.lib.encoder import tokens
from stages.lib.vectors import features


@pytest.fixture
def tokenized(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths.TOKENIZED.mkdir(parents=True)
    ids = [list(range(2, 3 + row)) for row in range(7)]
    table = pa.table({"input_ids": ids, "label": [0, 1, 0, 1, 1, 0, 1]})
    pq.write_table(table, paths.TOKENIZED / "train.parquet")
    return ids


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_pieces_are_the_whole(tokenized, rows):
    whole = tokens.load("train")
    pieces = list(tokens.chunks("train", rows))
    assert parquet.count(paths.TOKENIZED / "train.parquet") == len(whole) == 7
    assert all(len(piece) <= rows for piece in pieces)
    assert [row.tolist() for piece in pieces for row in piece.input_ids] == tokenized
    assert np.concatenate([piece.labels for piece in pieces]).tolist() == whole.labels.tolist()


@pytest.mark.parametrize(("longest", "width"), [(50, 8), (7, 7), (0, 6)])
def test_batches_are_padded_to_a_multiple_but_not_beyond_the_longest_review(longest, width):
    collate = tokens.Collator(9, multiple=4, longest=longest)
    batch = collate([(torch.tensor([2, 7, 7, 7, 3]), 0), (torch.arange(6), 1)])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, width)
    assert batch["attention_mask"].sum() == 11


def test_vectors_that_are_appended_are_loaded_as_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths.FEATURES.mkdir(parents=True)
    cls = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    labels = np.array([0, 1, 1, 0, 1])
    with features.writing(paths.FEATURES / "test.parquet", 4) as append:
        append(cls[:3], labels[:3])
        append(cls[3:], labels[3:])
    found = features.load("test")
    assert np.array_equal(found[0], cls)
    assert np.array_equal(found[1], labels)
