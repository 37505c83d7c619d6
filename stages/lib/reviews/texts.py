"""Reading texts to classify, in chunks, from a file or standard input."""

import csv
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from stages.lib.core import parquet
from stages.lib.core.errors import InputError

SUFFIXES = (".txt", ".csv", ".parquet")
STDIN = "-"
# Large enough for sorting by length to pay off, small enough for memory.
CHUNK = 4096


def chunks(source: str, column: str | None) -> Iterator[list[str]]:
    """Yield the texts of a file, or of standard input ('-'), in lists of at most `CHUNK`.

    A .txt file has one text per line; .csv and .parquet files have the texts in `column` ('text' if
    None). Standard input is read as .txt, or as .csv if `column` is given. A missing text is read
    as an empty one. Raises InputError, which names the file and the line or row, when the file does
    not exist, has another suffix, lacks the column, or is not UTF-8.
    """
    if source == STDIN:
        kind, name = ".txt" if column is None else ".csv", "standard input"
    else:
        kind, name = Path(source).suffix.lower(), source
        _check_file(source, kind)
    texts = {".txt": _lines, ".csv": _csv, ".parquet": _parquet}[kind](source, name, column)
    return _chunked(texts)


def _check_file(path: str, suffix: str) -> None:
    if not Path(path).is_file():
        problem = "not a file" if Path(path).exists() else "no such file"
        raise InputError(f"{path}: {problem}")
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: '{suffix}' cannot be read; it should be {_either(SUFFIXES)}")


def _either(suffixes: Iterable[str]) -> str:
    *first, last = suffixes
    return f"{', '.join(first)} or {last}"


def _chunked(texts: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(itertools.islice(texts, CHUNK)):
        yield chunk


def _open(source: str) -> BinaryIO:
    return sys.stdin.buffer if source == STDIN else Path(source).open("rb")


def _decoded(file: BinaryIO, name: str) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{name}: line {number}: not UTF-8") from None


def _lines(source: str, name: str, column: str | None) -> Iterator[str]:
    if column is not None:
        raise InputError(f"{name}: a .txt has no columns; omit --text-column")
    with _open(source) as file:
        for line in _decoded(file, name):
            yield line.rstrip("\r\n")


def _csv(source: str, name: str, column: str | None) -> Iterator[str]:
    # The default limit of 128 KiB per field is too small for long reviews.
    csv.field_size_limit(1 << 30)
    with _open(source) as file:
        rows = csv.reader(_decoded(file, name), strict=True)
        try:
            header = next(rows, None)
            if header is None:
                return
            place = _place(column, header, name)
            # The reader returns an empty list for an empty line.
            for row in filter(None, rows):
                if len(row) != len(header):
                    raise InputError(
                        f"{name}: line {rows.line_num}: the header has {len(header)} fields, "
                        f"this has {len(row)}"
                    )
                yield row[place]
        except csv.Error as error:
            raise InputError(f"{name}: line {rows.line_num}: not CSV: {error}") from None


def _place(column: str | None, columns: list[str], name: str) -> int:
    wanted = column or "text"
    if wanted not in columns:
        hint = "" if column else "; choose one with --text-column"
        found = ", ".join(columns) or "none"
        raise InputError(f"{name}: no column '{wanted}'; the columns are: {found}{hint}")
    if columns.count(wanted) > 1:
        raise InputError(f"{name}: more than one column '{wanted}'")
    return columns.index(wanted)


def _parquet(source: str, name: str, column: str | None) -> Iterator[str]:
    with parquet.opened(source) as file:
        schema = file.schema_arrow
        field = schema.field(_place(column, schema.names, name))
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
        if not any(check(kind) for check in checks):
            raise InputError(f"{name}: column '{field.name}' holds {kind}, expected text")
        row = 0
        for batch in file.iter_batches(CHUNK, columns=[field.name]):
            for value in batch.column(0):
                row += 1
                try:
                    yield value.as_py() or ""
                except UnicodeDecodeError:
                    raise InputError(f"{name}: row {row}: not UTF-8") from None
