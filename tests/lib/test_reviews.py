"""stages.lib.reviews: what is accepted, the line for what is not, and the subset."""

from collections import Counter
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.lib import reviews
from stages.lib.errors import InputError

GOOD = "text,label\na great film,1\na dull film,0\n"


def write(directory, content, suffix=".csv"):
    """A file with `content`: text or bytes as they are, a dict of columns as parquet."""
    if isinstance(content, dict):
        path = directory / "train.parquet"
        pq.write_table(pa.table(content), path)
    else:
        path = directory / f"train{suffix}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def fails(call, *args, **kwargs):
    with pytest.raises(InputError) as error:
        call(*args, **kwargs)
    return str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        "label,text\n1,a great film\n0,a dull film\n",
        'text,label\n"a great film",1\n"a dull film"," 0"\n',
        {"text": ["a great film", "a dull film"], "label": [1, 0]},
        {"text": ["a great film", "a dull film"], "label": ["1", "0"]},
        {"text": pa.array(["a great film", "a dull film"]).dictionary_encode(), "label": [1, 0]},
        {
            "text": ["a great film", "a dull film"],
            "label": pa.array([1, 0], pa.uint8()),
            "id": [7, 8],
        },
    ],
    ids=["csv", "bom", "crlf", "order", "quotes", "parquet", "strings", "dictionary", "uint8"],
)
def test_good_files_give_the_same_table(tmp_path, content):
    table = reviews.read(write(tmp_path, content))
    assert table.schema == reviews.READ
    assert table.to_pydict() == {"text": ["a great film", "a dull film"], "label": ["1", "0"]}


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        ("id,stars,review\n7,5,a great film\n8,1,a dull film\n", ".csv"),
        ("id\tstars\treview\n7\t5\ta great film\n8\t1\ta dull film\n", ".tsv"),
        (
            '\ufeff{"stars": 5, "review": "a great film"}\n\n'
            '{"review": "a dull film", "stars": "1"}',
            ".jsonl",
        ),
        ({"stars": [5, 1], "review": ["a great film", "a dull film"]}, ".parquet"),
    ],
    ids=["csv", "tsv", "jsonl", "parquet"],
)
def test_columns_have_the_names_given_in_every_format(tmp_path, content, suffix):
    table = reviews.read(write(tmp_path, content, suffix), "review", "stars")
    assert table.to_pydict() == {"text": ["a great film", "a dull film"], "label": ["5", "1"]}


@pytest.mark.parametrize(
    "content",
    [
        {"text": ["a", "b"], "label": [True, False]},
        '{"text": "a", "label": true}\n{"text": "b", "label": false}\n',
    ],
    ids=["parquet", "jsonl"],
)
def test_booleans_are_labels(tmp_path, content):
    table = reviews.read(write(tmp_path, content, ".jsonl"))
    assert table["label"].to_pylist() == ["true", "false"]


def test_a_text_may_have_lines_commas_and_megabytes(tmp_path):
    long = "very " * 1_000_000
    path = write(tmp_path, f'text,label\n"one,\ntwo",1\n{long},0\n')
    assert reviews.read(path)["text"].to_pylist() == ["one,\ntwo", long]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("review,label\na,1\n", "no column 'text'; the columns are: review, label"),
        ("text,sentiment\na,1\n", "no column 'label'; the columns are: text, sentiment"),
        ("text,label\na,1\nb,\n", "row 2: label is empty"),
        ("text,label\na,1\nb, \n", "row 2: label is empty"),
        ("text,label\na,NaN\n", "row 1: label is missing"),
        ("text,label\na,1\n  ,0\n", "row 2: text is empty"),
        ('text,label\na,1\n"",0\n', "row 2: text is empty"),
        (b"text,label\na,1\nb\xff,0\n", "row 2: text is not UTF-8"),
        (b"text,label\na,1\nb,\xff\n", "row 2: label is not UTF-8"),
        ("text,label\n", "no reviews"),
        ("text,label\na,1\nb\0c,0\n", "row 2: text has a NUL byte"),
        ({"text": ["a", "b"], "label": [1, None]}, "row 2: label is missing"),
        ({"text": ["a", None], "label": [1, 0]}, "row 2: text is missing"),
        ({"text": ["a", " "], "label": [1, 0]}, "row 2: text is empty"),
        ({"text": [1, 2], "label": [1, 0]}, "column 'text' holds int64, expected text"),
        (
            {"text": ["a"], "label": [1.0]},
            "column 'label' holds double, expected integers, text or booleans",
        ),
        ({"text": pa.array([b"a", b"\xff"]), "label": [1, 0]}, "row 2: text is not UTF-8"),
    ],
)
def test_a_bad_file_is_named_with_the_row(tmp_path, content, line):
    path = write(tmp_path, content)
    assert fails(reviews.read, path) == f"{path}: {line}"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("review\tlabel\na\t1\n", "no column 'text'; the columns are: review, label"),
        ("text\tlabel\na\t1\n\t0\n", "row 2: text is empty"),
        (b"text\tlabel\na\t1\n\xff\t0\n", "row 2: text is not UTF-8"),
    ],
)
def test_a_bad_tsv_is_named_with_the_row(tmp_path, content, line):
    path = write(tmp_path, content, ".tsv")
    assert fails(reviews.read, path) == f"{path}: {line}"


ROW = '{"text": "a", "label": 1}\n'


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "no column 'text'; the columns are: none"),
        ('{"review": "a", "label": 1}\n', "no column 'text'; the columns are: review, label"),
        (ROW + '{"text": "b"}', "row 2: label is missing"),
        (ROW + '{"text": "b", "label": null}', "row 2: label is missing"),
        (ROW + '{"label": 0}', "row 2: text is missing"),
        (ROW + '{"text": "", "label": 0}', "row 2: text is empty"),
        (ROW + '{"text": 3, "label": 0}', "row 2: text is 3, expected text"),
        (ROW + r'{"text": "\u0000", "label": 0}', "row 2: text has a NUL byte"),
        (ROW + r'{"text": "\ud800", "label": 0}', "row 2: text is not UTF-8"),
        (
            ROW + '{"text": "b", "label": 0.5}',
            "row 2: label is 0.5, expected an integer, text, true or false",
        ),
        (ROW + "[1]", "row 2: not an object such as {'text': ..., 'label': ...}"),
        (ROW + '{"text": "b', "row 2: not JSON: Unterminated string starting at"),
        (ROW.encode() + b'{"text": "\xff", "label": 0}', "row 2: not UTF-8"),
    ],
)
def test_a_bad_jsonl_is_named_with_the_row(tmp_path, content, line):
    path = write(tmp_path, content, ".jsonl")
    assert fails(reviews.read, path).startswith(f"{path}: {line}")


def tables(**labels):
    """Tables as read, with the labels given for each split."""
    return {
        split: pa.table(
            [[f"{split} {row}" for row in range(len(values))], list(values)], schema=reviews.READ
        )
        for split, values in labels.items()
    }


def assemble(order=None, seed=0, **labels):
    places = {split: f"{split}.csv" for split in labels}
    return reviews.assemble(tables(**labels), places, seed=seed, order=order)


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
    assert splits["train"].schema == reviews.SCHEMA


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


def test_another_seed_is_another_split_and_the_order_of_rows_none():
    table = as_table([(f"review {row}", row % 2) for row in range(100)])

    def test_texts(table, seed):
        parts = reviews.split(table, ["test"], seed, ["a", "b"], "here")
        return sorted(parts["test"]["text"].to_pylist())

    assert test_texts(table, 0) == test_texts(table.take(list(range(100))[::-1]), 0)
    assert test_texts(table, 0) != test_texts(table, 1)


def test_a_review_that_is_added_moves_few_others():
    rows = [(f"review {row}", row % 2) for row in range(201)]
    tests = [
        set(reviews.split(as_table(part), ["test"], 0, ["a", "b"], "x")["test"]["text"].to_pylist())
        for part in (rows, rows[:-1])
    ]
    assert len(tests[0] ^ tests[1]) <= 2


@pytest.mark.parametrize("name", ["train.parquet", "train.csv", "train.tsv", "train.jsonl"])
@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing", b'text,label\n"open'])
def test_an_unreadable_file_is_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        reviews.read(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_damaged_parquet_is_named(tmp_path):
    path = write(tmp_path, {"text": ["a great film", "a dull film"] * 50, "label": [1, 0] * 50})
    content = bytearray(path.read_bytes())
    content[-100:-8] = bytes(92)
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        reviews.read(path)
    assert str(error.value).startswith(f"{path}: cannot be read as parquet: ")


def test_a_column_given_twice_is_refused(tmp_path):
    path = write(tmp_path, "text,text,label\na,b,1\n")
    with pytest.raises(InputError, match="more than one column 'text'"):
        reviews.read(path)


TABLES = st.lists(
    st.tuples(st.text(min_size=1).filter(str.strip), st.integers(0, 2)),
    min_size=2,
    unique_by=lambda row: row[0],
)


def as_table(rows):
    texts, labels = zip(*rows, strict=True)
    return pa.table([pa.array(texts, pa.string()), pa.array(labels, pa.int64())], reviews.SCHEMA)


@given(TABLES, st.integers(6, 40), st.randoms())
def test_a_subset_is_stratified_in_order_and_whatever_the_order_the_same(rows, size, random):
    chosen = reviews.subset(as_table(rows), size).to_pylist()
    picked = [(row["text"], row["label"]) for row in chosen]
    assert len(picked) == min(size, len(rows))
    assert picked == [row for row in rows if row in set(picked)]
    counts = Counter(label for _, label in rows)
    for label, count in counts.items():
        share = sum(chosen_label == label for _, chosen_label in picked)
        assert share >= min(count, 2)
        # What rare labels are given more comes from the others.
        assert abs(share - count * len(picked) / len(rows)) < 1 or share == 2 or len(counts) > 2
    random.shuffle(rows)
    again = reviews.subset(as_table(rows), size).to_pylist()
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
    chosen = reviews.subset(as_table(rows), size)
    assert Counter(chosen["label"].to_pylist()) == shares


def test_a_subset_too_small_for_its_labels_is_refused():
    table = as_table([(f"review {row}", row % 3) for row in range(30)])
    assert fails(reviews.subset, table, 5) == (
        "params.yaml: dataset.subset: 5 is wrong: it should be at least 6, for 3 labels"
    )


def test_the_same_reviews_are_the_same_bytes(tmp_path):
    table = as_table([("a great film", 1), ("a dull film", 0)])
    for name in ("one", "two"):
        reviews.write(table, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
