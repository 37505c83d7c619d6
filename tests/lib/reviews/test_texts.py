"""stages.lib.reviews.texts: files of texts, read a chunk at a time."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.lib.core.errors import InputError
from stages.lib.reviews import texts


def read(path, content, column=None):
    path.write_bytes(content)
    return [text for chunk in texts.chunks(str(path), column) for text in chunk]


def test_a_line_is_a_text_without_its_end(tmp_path):
    content = b"\xef\xbb\xbfone\r\n two \n\nth\tree"
    assert read(tmp_path / "a.txt", content) == ["one", " two ", "", "th\tree"]


def test_a_csv_has_quotes_and_lines_within_them(tmp_path):
    content = b'\xef\xbb\xbfid,text\r\n1,"a, ""b""\nc"\r\n2,\r\n\r\n3,d\r\n'
    assert read(tmp_path / "a.CSV", content) == ['a, "b"\nc', "", "d"]


def test_a_very_long_field_is_a_field(tmp_path):
    assert read(tmp_path / "a.csv", b"text\n" + b"a" * 200_000) == ["a" * 200_000]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), None], ids=str)
def test_a_parquet_has_text_of_any_kind(tmp_path, kind):
    column = pa.array(["a", None, "c"], kind)
    column = column if kind else column.dictionary_encode()
    pq.write_table(pa.table({"review": column, "n": [1, 2, 3]}), tmp_path / "a.parquet")
    chunks = texts.chunks(str(tmp_path / "a.parquet"), "review")
    assert list(chunks) == [["a", "", "c"]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", b"id\ttext\n1\ta, b\n2\t\n"),
        ("a.jsonl", b'{"text": "a, b", "id": 1}\n{"text": null}\n'),
    ],
)
def test_what_trains_can_be_predicted(tmp_path, name, content):
    assert read(tmp_path / name, content) == ["a, b", ""]


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".parquet"])
def test_chunks_are_of_a_fixed_size(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(texts, "CHUNK", 2)
    rows = ["text"] if suffix == ".csv" else []
    (tmp_path / f"a{suffix}").write_text("\n".join([*rows, "a", "b", "c"]))
    if suffix == ".parquet":
        pq.write_table(pa.table({"text": ["a", "b", "c"]}), tmp_path / "a.parquet")
    assert list(texts.chunks(str(tmp_path / f"a{suffix}"), None)) == [["a", "b"], ["c"]]


def test_reading_goes_no_further_than_asked(tmp_path, monkeypatch):
    """Otherwise a million lines would be held in memory."""
    monkeypatch.setattr(texts, "CHUNK", 2)
    (tmp_path / "a.txt").write_bytes(b"a\nb\n\xff\n")
    chunks = texts.chunks(str(tmp_path / "a.txt"), None)
    assert next(chunks) == ["a", "b"]
    with pytest.raises(InputError, match="line 3: not UTF-8"):
        next(chunks)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"a\n\xff\n", "line 2: not UTF-8"),
        ("a.csv", b"text\n\xff\n", "row 1: text is not UTF-8"),
        ("a.csv", b"a,b\n1,2\n", "no column 'text'; the columns are: a, b; choose one with"),
        ("a.csv", b"text,text\n1,2\n", "more than one column 'text'"),
        (
            "a.csv",
            b"text,b\n1\n",
            "cannot be read as csv: CSV parse error: Row #2: Expected 2 columns, got 1",
        ),
        ("a.parquet", b"PAR", "cannot be read as parquet"),
        (
            "a.json",
            b"{}",
            "'.json' cannot be read; it should be .txt, .parquet, .csv, .tsv or .jsonl",
        ),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(tmp_path, name, content, message):
    with pytest.raises(InputError) as error:
        read(tmp_path / name, content)
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert message in str(error.value)


def test_a_parquet_that_is_not_utf_8_is_named_with_its_row(tmp_path):
    column = pa.array([b"a", b"\xff"]).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="row 2: text is not UTF-8"):
        list(texts.chunks(str(tmp_path / "a.parquet"), None))


@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_an_empty_file_has_no_chunk(tmp_path, name):
    assert read(tmp_path / name, b"") == []
