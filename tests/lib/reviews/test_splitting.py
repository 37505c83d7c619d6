"""stages.lib.reviews.splitting: labels, splits and the subset."""

from collections import Counter
from dataclasses import replace
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.core.errors import InputError
from stages.lib.reviews import reading, splitting


def fails(call, *args, **kwargs):
    with pytest.raises(InputError) as error:
        call(*args, **kwargs)
    return str(error.value)


def as_table(split):
    return pa.concat_tables(split.tables())


def as_split(rows):
    """Make a split from pairs of a text and the number of its label."""
    texts, labels = zip(*rows, strict=True)
    table = pa.table([pa.array(texts), pa.array(map(str, labels))], reading.READ)
    return replace(splitting._store({"here": [table]}).split, labels=np.array(labels))


def tables(**labels):
    """Make tables as read from files, with the labels given for each split."""
    return {
        split: pa.table(
            [[f"{split} {row}" for row in range(len(values))], list(values)], schema=reading.READ
        )
        for split, values in labels.items()
    }


def assemble(order=None, seed=0, **labels):
    files = {split: {f"{split}.csv": [table]} for split, table in tables(**labels).items()}
    splits, *others = splitting.assemble(files, seed=seed, order=order)
    return {name: as_table(split) for name, split in splits.items()}, *others


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ("0101", ["negative", "positive"]),
        ("1212", ["1", "2"]),
        (["10", "9", "-1"] * 2, ["-1", "9", "10"]),
        (["pos", "neg"] * 2, ["neg", "pos"]),
        (["true", "false"] * 2, ["false", "true"]),
        (["1.0", "0.0"] * 2, ["0.0", "1.0"]),
    ],
)
def test_labels_are_numbered_in_order_and_the_names_recorded(values, names):
    splits, labels, facts = assemble(train=values, validation=values, test=values[:2])
    assert labels == names
    assert list(facts["labels"].values()) == names
    assert set(facts["labels"]) == set(values)
    back = [list(facts["labels"])[number] for number in splits["train"]["label"].to_pylist()]
    assert back == list(values)
    assert splits["train"].schema == splitting.SCHEMA


def test_an_order_that_the_dataset_has_wins():
    order = ["great", "good", "bad"]
    _, labels, _ = assemble(
        order, train=["bad", "great"] * 2, validation=order[::2], test=order[::2]
    )
    assert labels == ["great", "bad"]


def test_numbers_of_a_label_are_the_same_in_all_splits():
    splits, *_ = assemble(train="cabcab", validation="bcb", test="ac")
    assert splits["validation"]["label"].to_pylist() == [1, 2, 1]
    assert splits["test"]["label"].to_pylist() == [0, 2]


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (
            {"train": "abab", "validation": "ab", "test": "abc"},
            "test.csv: row 3: label is 'c', which train lacks; it has a, b",
        ),
        (
            {"train": ["a", "b"] * 2, "validation": ["a", "-1"], "test": "ab"},
            "validation.csv: row 2: label is '-1', which train lacks; it has a, b",
        ),
        (
            {"train": "aaa"},
            "train.csv: all reviews have the label a; a split needs two labels or more",
        ),
        (
            {"train": "abab", "validation": "ab", "test": "bb"},
            "test.csv: all reviews have the label b; a split needs two labels or more",
        ),
        (
            {"train": "aab", "validation": "ab", "test": "ab"},
            "train.csv: label 'b' has 1 review, at least 2 are needed",
        ),
        (
            {"train": "a" * 50 + "b" * 9},
            "train.csv: label 'b' has 9 reviews, too few to split: at least 10 are needed",
        ),
    ],
)
def test_labels_that_cannot_be_used_are_named(labels, line):
    assert fails(assemble, **labels) == line


@given(
    st.lists(st.integers(10, 60), min_size=2, max_size=5),
    st.integers(0, 3),
    st.sampled_from([("train",), ("train", "validation"), ("train", "test")]),
)
def test_a_split_is_a_stratified_partition_in_order(counts, seed, given_splits):
    values = [str(label) for label, count in enumerate(counts, start=5) for _ in range(count)]
    labels = {"train": values} | dict.fromkeys(given_splits[1:], values)
    splits, *_ = assemble(seed=seed, **labels)
    made = [name for name in ("train", "validation", "test") if name not in given_splits[1:]]
    texts = {name: splits[name]["text"].to_pylist() for name in made}
    whole = [f"train {row}" for row in range(len(values))]
    assert sorted(chain(*texts.values())) == sorted(whole)
    for name in made:
        assert texts[name] == [text for text in whole if text in set(texts[name])]
        found = Counter(splits[name]["label"].to_pylist())
        for label, count in enumerate(counts):
            share = 0.1 if name != "train" else 1 - 0.1 * (len(made) - 1)
            assert abs(found[label] - count * share) <= 1
            assert found[label] >= 1


def split_off(rows, seed=0):
    """Return the texts that are split off as a test split."""
    parts = splitting.split(as_split(rows), ["test"], seed, ["a", "b"], "here")
    return set(as_table(parts["test"])["text"].to_pylist())


def test_another_seed_is_another_split_and_the_order_of_rows_none():
    rows = [(f"review {row}", row % 2) for row in range(100)]
    assert split_off(rows, 0) == split_off(rows[::-1], 0)
    assert split_off(rows, 0) != split_off(rows, 1)


def test_a_review_that_is_added_moves_few_others():
    rows = [(f"review {row}", row % 2) for row in range(201)]
    assert len(split_off(rows) ^ split_off(rows[:-1])) <= 2


TABLES = st.lists(
    st.tuples(st.text(min_size=1).filter(str.strip), st.integers(0, 2)),
    min_size=2,
    unique_by=lambda row: row[0],
)


@given(TABLES, st.integers(6, 40), st.randoms())
def test_a_subset_is_stratified_in_order_and_whatever_the_order_the_same(rows, size, random):
    chosen = as_table(splitting.subset(as_split(rows), size)).to_pylist()
    picked = [(row["text"], row["label"]) for row in chosen]
    assert len(picked) == min(size, len(rows))
    assert picked == [row for row in rows if row in set(picked)]
    counts = Counter(label for _, label in rows)
    for label, count in counts.items():
        share = sum(chosen_label == label for _, chosen_label in picked)
        assert share >= min(count, 2)
        # What rare labels get in addition is taken from the others.
        assert abs(share - count * len(picked) / len(rows)) < 1 or share == 2 or len(counts) > 2
    random.shuffle(rows)
    again = as_table(splitting.subset(as_split(rows), size)).to_pylist()
    assert sorted(map(str, again)) == sorted(map(str, chosen))


@pytest.mark.parametrize(
    ("counts", "size", "shares"),
    [
        ({0: 500, 1: 500}, 64, {0: 32, 1: 32}),
        ({0: 600, 1: 300, 2: 100}, 64, {0: 39, 1: 19, 2: 6}),
        ({0: 996, 1: 3, 2: 1}, 10, {0: 7, 1: 2, 2: 1}),
    ],
)
def test_a_subset_is_in_proportion_but_for_what_is_rare(counts, size, shares):
    rows = [(f"{label} {row}", label) for label, count in counts.items() for row in range(count)]
    chosen = as_table(splitting.subset(as_split(rows), size))
    assert Counter(chosen["label"].to_pylist()) == shares


@given(TABLES, st.integers(6, 40), st.integers(6, 40))
def test_a_larger_subset_contains_the_smaller_one(rows, size, other):
    small, large = (
        set(as_table(splitting.subset(as_split(rows), count))["text"].to_pylist())
        for count in sorted((size, other))
    )
    assert small <= large


@pytest.mark.parametrize("parameter", ["dataset.subset", "dataset.train"])
def test_a_subset_too_small_for_its_labels_is_refused(parameter):
    split = as_split([(f"review {row}", row % 3) for row in range(30)])
    assert fails(splitting.subset, split, 5, parameter) == (
        f"params.yaml: {parameter}: 5 is wrong: it should be at least 6, for 3 labels"
    )


def test_the_content_is_that_of_texts_labels_and_their_names():
    def content(*rows, names=("bad", "good")):
        return splitting.content({"train": as_split(rows), "test": as_split(rows[:1])}, names)

    first = content(("a", 0), ("b", 1))
    assert first == content(("a", 0), ("b", 1))
    others = [content(("a", 0), ("c", 1)), content(("a", 0), ("b", 0)), content(("b", 1), ("a", 0)),
              content(("a", 0), ("b", 1), names=("good", "bad"))]  # fmt: skip
    assert len({first, *others}) == 5


def test_the_same_reviews_are_the_same_bytes(tmp_path):
    split = as_split([("a great film", 1), ("a dull film", 0)])
    for name in ("one", "two"):
        splitting.write(split, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("pieces", [1, 7, 50])
def test_what_comes_in_pieces_is_written_as_what_comes_at_once(tmp_path, monkeypatch, pieces):
    """Row groups have one size, whatever the pieces were."""
    monkeypatch.setattr(splitting, "GROUP", 16)
    whole = tables(train=["a", "b"] * 25)["train"]
    parts = [whole[start : start + pieces] for start in range(0, 50, pieces)]
    files = {"first.csv": parts[:2], "second.csv": parts[2:]}
    stored = splitting._store(files)
    splitting.write(stored.split.take(np.arange(49, 0, -1)), tmp_path / "train.parquet")
    file = pq.ParquetFile(tmp_path / "train.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [
        16,
        16,
        16,
        1,
    ]
    assert file.read()["text"].to_pylist() == whole["text"].to_pylist()[1:]
    assert file.read()["label"].to_pylist() == [1, 0] * 24 + [1]


def test_a_label_that_train_lacks_is_named_with_its_own_file_and_row():
    train = tables(train="abab")["train"]
    test = tables(test="ababc")["test"]
    files = {"train": {"train.csv": [train]}, "validation": {"validation.csv": [train]}}
    files["test"] = {"test-0.csv": [test[:2]], "test-1.csv": [test[2:3], test[3:]]}
    assert fails(splitting.assemble, files, seed=0) == (
        "test-1.csv: row 3: label is 'c', which train lacks; it has a, b"
    )


def test_a_split_in_several_files_is_named_by_the_first():
    part = tables(train="aa")["train"]
    files = {"train": {"train-0.csv": [part], "train-1.csv": [part]}}
    assert fails(splitting.assemble, files, seed=0) == (
        "train-0.csv and 1 more: all reviews have the label a; a split needs two labels or more"
    )


def test_a_label_of_more_digits_than_python_reads_is_a_word():
    long = "9" * 5000
    _, labels, _ = assemble(train=["7", long] * 2, validation=["7", long], test=["7", long])
    assert labels == ["7", long]


def test_labels_that_differ_in_case_or_white_space_only_are_alike():
    labels = ["bad", "good", "Good", "very bad", "Very  bad", "GOOD", "goods"]
    assert splitting.alike(labels) == [["good", "Good", "GOOD"], ["very bad", "Very  bad"]]
    assert splitting.alike(["0", "1"]) == []
