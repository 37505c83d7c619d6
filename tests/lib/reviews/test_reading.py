"""stages.lib.reviews.reading: what is accepted, and the message for what is not."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.lib.core.errors import InputError
from stages.lib.reviews import reading

GOOD = "text,label\na great film,1\na dull film,0\n"


def write(directory, content, suffix=".csv"):
    """Write a file with `content`: text or bytes as they are, or a dict of columns as parquet."""
    if isinstance(content, dict):
        path = directory / "train.parquet"
        pq.write_table(pa.table(content), path)
    else:
        path = directory / f"train{suffix}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(*args):
    return pa.concat_tables(reading.read(*args))


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
        {
            "text": pa.array(["a great film", "a dull film"], pa.string_view()),
            "label": pa.array(["1", "0"], pa.string_view()),
        },
    ],
    ids=[
        "csv",
        "bom",
        "crlf",
        "order",
        "quotes",
        "parquet",
        "strings",
        "dictionary",
        "uint8",
        "views",
    ],
)
def test_good_files_give_the_same_table(tmp_path, content):
    table = read(write(tmp_path, content))
    assert table.schema == reading.READ
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
    table = read(write(tmp_path, content, suffix), "review", "stars")
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
    table = read(write(tmp_path, content, ".jsonl"))
    assert table["label"].to_pylist() == ["true", "false"]


def test_a_text_may_have_lines_commas_and_megabytes(tmp_path):
    long = "very " * 1_000_000
    path = write(tmp_path, f'text,label\n"one,\ntwo",1\n{long},0\n')
    assert read(path)["text"].to_pylist() == ["one,\ntwo", long]


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
    assert fails(read, path) == f"{path}: {line}"


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
    assert fails(read, path) == f"{path}: {line}"


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
        (ROW + '{"text": "b", "label": 1, "text": "c"}', "row 2: duplicate key 'text'"),
        (ROW + "[1]", "row 2: not an object such as {'text': ..., 'label': ...}"),
        (ROW + '{"text": "b', "row 2: not JSON: Unterminated string starting at"),
        (ROW.encode() + b'{"text": "\xff", "label": 0}', "row 2: not UTF-8"),
    ],
)
def test_a_bad_jsonl_is_named_with_the_row(tmp_path, content, line):
    path = write(tmp_path, content, ".jsonl")
    assert fails(read, path).startswith(f"{path}: {line}")


@pytest.mark.parametrize("name", ["train.parquet", "train.csv", "train.tsv", "train.jsonl"])
@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing", b'text,label\n"open'])
def test_an_unreadable_file_is_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_damaged_parquet_is_named(tmp_path):
    path = write(tmp_path, {"text": ["a great film", "a dull film"] * 50, "label": [1, 0] * 50})
    content = bytearray(path.read_bytes())
    content[-100:-8] = bytes(92)
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: cannot be read as parquet: ")


def test_a_column_given_twice_is_refused(tmp_path):
    path = write(tmp_path, "text,text,label\na,b,1\n")
    with pytest.raises(InputError, match="more than one column 'text'"):
        read(path)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_rows_are_counted_over_the_pieces(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(reading, "ROWS", 4)
    monkeypatch.setattr(reading, "BLOCK", 64)
    texts = [f"review {row}" for row in range(20)]
    labels = ["1", "0"] * 10

    def path():
        if suffix == ".parquet":
            return write(tmp_path, {"text": texts, "label": labels})
        rows = zip(texts, labels, strict=True)
        if suffix == ".csv":
            return write(tmp_path, "text,label\n" + "".join(f"{t},{n}\n" for t, n in rows))
        lines = [f'{{"text": "{text}", "label": {number}}}\n' for text, number in rows]
        return write(tmp_path, "".join(lines), suffix)

    pieces = list(reading.read(path()))
    assert len(pieces) >= 4
    assert pa.concat_tables(pieces)["text"].to_pylist() == texts
    texts[17] = " "
    assert fails(read, path()) == f"{path()}: row 18: text is empty"
