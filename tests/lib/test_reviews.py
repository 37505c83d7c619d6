"""stages.lib.reviews: what is accepted, the line for what is not, and the subset."""

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.lib import reviews
from stages.lib.errors import InputError

GOOD = "text,label\na great film,1\na dull film,0\n"


def write(directory, content):
    """A file with `content`: text or bytes as CSV, a dict of columns as parquet."""
    if isinstance(content, dict):
        path = directory / "train.parquet"
        pq.write_table(pa.table(content), path)
    else:
        path = directory / "train.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        "label,text\n1,a great film\n0,a dull film\n",
        'text,label\n"a great film",1\n"a dull film","0"\n',
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
    assert table.schema == reviews.SCHEMA
    assert table.to_pydict() == {"text": ["a great film", "a dull film"], "label": [1, 0]}


def test_a_text_may_have_lines_commas_and_megabytes(tmp_path):
    long = "very " * 1_000_000
    path = write(tmp_path, f'text,label\n"one,\ntwo",1\n{long},0\n')
    assert reviews.read(path)["text"].to_pylist() == ["one,\ntwo", long]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("review,label\na,1\n", "no column 'text'; the columns are: review, label"),
        ("text,sentiment\na,1\n", "no column 'label'; the columns are: text, sentiment"),
        ("text,label\n1,a film\n", "row 1: label is 'a film', expected 0 or 1"),
        ("text,label\na,1\nb,2\n", "row 2: label is '2', expected 0 or 1"),
        ("text,label\na,1\nb,\n", "row 2: label is '', expected 0 or 1"),
        ("text,label\na,1.0\n", "row 1: label is '1.0', expected 0 or 1"),
        ("text,label\na,NaN\n", "row 1: label is 'NaN', expected 0 or 1"),
        ("text,label\na,positive\n", "row 1: label is 'positive', expected 0 or 1"),
        ("text,label\na,1\n  ,0\n", "row 2: text is empty"),
        ('text,label\na,1\n"",0\n', "row 2: text is empty"),
        (b"text,label\na,1\nb\xff,0\n", "row 2: text is not UTF-8"),
        ("text,label\n", "no reviews"),
        ("text,label\na,1\nb\0c,0\n", "row 2: text has a NUL byte"),
        (
            "text,label\na,1\nb,1\n",
            "all reviews have the label 1; a split needs both labels",
        ),
        ({"text": ["a", "b"], "label": [1, 2]}, "row 2: label is 2, expected 0 or 1"),
        ({"text": ["a", "b"], "label": [1, None]}, "row 2: label is missing"),
        ({"text": ["a", None], "label": [1, 0]}, "row 2: text is missing"),
        ({"text": ["a", " "], "label": [1, 0]}, "row 2: text is empty"),
        ({"text": [1, 2], "label": [1, 0]}, "column 'text' holds int64, expected text"),
        (
            {"text": ["a"], "label": [1.0]},
            "column 'label' holds double, expected the integers 0 and 1",
        ),
        (
            {"text": ["a"], "label": [True]},
            "column 'label' holds bool, expected the integers 0 and 1",
        ),
        ({"text": pa.array([b"a", b"\xff"]), "label": [1, 0]}, "row 2: text is not UTF-8"),
    ],
)
def test_a_bad_file_is_named_with_the_row(tmp_path, content, line):
    path = write(tmp_path, content)
    with pytest.raises(InputError) as error:
        reviews.read(path)
    assert str(error.value) == f"{path}: {line}"


@pytest.mark.parametrize("name", ["train.parquet", "train.csv"])
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
    st.tuples(st.text(min_size=1).filter(str.strip), st.integers(0, 1)),
    min_size=2,
    unique_by=lambda row: row[0],
)


def as_table(rows):
    texts, labels = zip(*rows, strict=True)
    return pa.table([pa.array(texts, pa.string()), pa.array(labels, pa.int64())], reviews.SCHEMA)


@given(TABLES, st.integers(2, 40), st.randoms())
def test_a_subset_is_stratified_in_order_and_whatever_the_order_the_same(rows, size, random):
    chosen = reviews.subset(as_table(rows), size).to_pylist()
    picked = [(row["text"], row["label"]) for row in chosen]
    assert len(picked) == min(size, len(rows))
    assert picked == [row for row in rows if row in set(picked)]
    for label, count in Counter(label for _, label in rows).items():
        share = sum(chosen_label == label for _, chosen_label in picked)
        assert abs(share - count * len(picked) / len(rows)) < 1
    random.shuffle(rows)
    again = reviews.subset(as_table(rows), size).to_pylist()
    assert sorted(map(str, again)) == sorted(map(str, chosen))


def test_the_same_reviews_are_the_same_bytes(tmp_path):
    table = as_table([("a great film", 1), ("a dull film", 0)])
    for name in ("one", "two"):
        reviews.write(table, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
