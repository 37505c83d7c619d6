"""Reading and validating review files in chunks.

The result is tables with the columns text and label, in the schema READ. A label stays text until
the names of all labels are known. Rows are validated here, because Arrow's readers accept missing
texts and do not name the row of a text that is not UTF-8.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from stages.lib.core import parquet
from stages.lib.core.errors import InputError

READ = pa.schema([("text", pa.string()), ("label", pa.string())])
# Reviews in memory at a time.
ROWS = 4096
# Bytes of a CSV file in memory at a time. A review must fit into one block.
BLOCK = 1 << 24

Tables = Iterator[pa.Table]
# The names of the columns to read: that of the texts, then that of the labels if they are wanted.
Columns = tuple[str, ...]


def read(path: Path, text: str = "text", label: str = "label") -> Tables:
    """Read and validate the columns `text` and `label` of a file in one of the READERS' formats.

    Raises InputError that names the file, and the row (counted from 1) if a row is at fault.
    """
    tables = _named(path, READERS[path.suffix](path, (text, label)))
    return validate(tables, str(path), text, label)


def read_texts(path: Path, text: str = "text") -> Iterator[list[str]]:
    """Yield the column `text` of such a file, some texts at a time, for a model to classify.

    A missing text is read as an empty one. Raises InputError as `read` does.
    """
    rows = 0
    for table in _named(path, READERS[path.suffix.lower()](path, (text,))):
        yield pc.fill_null(_decode(table[text], str(path), text, rows), "").to_pylist()
        rows += table.num_rows


def _named(path: Path, tables: Tables) -> Tables:
    try:
        yield from tables
    except (pa.ArrowException, OSError) as error:
        # Arrow's OSError has no errno when the content is at fault.
        if isinstance(error, OSError) and error.errno:
            raise
        raise InputError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from None


def _read_parquet(path: Path, columns: Columns) -> Tables:
    with parquet.opened(path) as file:
        _check_columns(file.schema_arrow.names, str(path), *columns)
        for batch in file.iter_batches(ROWS, columns=list(columns)):
            yield pa.Table.from_batches([batch])


def _read_csv(path: Path, columns: Columns, delimiter: str = ",") -> Tables:
    options = {
        # With threads, Arrow does not know the number of a row that it cannot parse.
        "read_options": pa.csv.ReadOptions(block_size=BLOCK, use_threads=False),
        "parse_options": pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
    }
    with pa.csv.open_csv(path, **options) as file:
        names = file.schema.names
    _check_columns(names, str(path), *columns)
    # Columns are read as bytes, because our check of the encoding names the row and Arrow's does
    # not.
    convert = pa.csv.ConvertOptions(
        include_columns=list(columns),
        column_types=dict.fromkeys(columns, pa.binary()),
        strings_can_be_null=False,
    )
    with pa.csv.open_csv(path, convert_options=convert, **options) as file:
        for batch in file:
            yield pa.Table.from_batches([batch])


def _read_tsv(path: Path, columns: Columns) -> Tables:
    return _read_csv(path, columns, delimiter="\t")


def _read_jsonl(path: Path, columns: Columns) -> Tables:
    # Arrow's JSON reader converts text that looks like a date, and its errors name no row.
    found: dict[str, None] = {}
    values: list[list[bytes | None]] = []
    example = ", ".join(f"{name!r}: ..." for name in columns)
    for row, line in enumerate(_lines(path), start=1):
        where = f"{path}: row {row}"
        try:
            content = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_once)
        except UnicodeDecodeError:
            raise InputError(f"{where}: not UTF-8") from None
        except _TwiceError as error:
            raise InputError(f"{where}: duplicate key {error.args[0]!r}") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not JSON: {error}") from None
        if not isinstance(content, dict):
            raise InputError(f"{where}: not an object such as {{{example}}}")
        found.update(dict.fromkeys(content))
        text, *labels = columns
        values.append(
            [
                _json_text(content.get(text), f"{where}: {text}"),
                *(_json_label(content.get(label), f"{where}: {label}") for label in labels),
            ]
        )
        if len(values) == ROWS:
            yield _json_table(values, found, path, columns)
            values = []
    yield _json_table(values, found, path, columns)


class _TwiceError(Exception):
    """A duplicate key in a JSON object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in keys if keys.count(key) > 1))
    return content


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the non-empty lines of a file, with any line ending."""
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if line.strip():
                yield line.encode("utf-8", "surrogateescape")


def _json_table(
    values: list[list[bytes | None]], found: Iterable[str], path: Path, columns: Columns
) -> pa.Table:
    _check_columns(list(found), str(path), *columns)
    of_columns = zip(*values, strict=True) if values else ([] for _ in columns)
    return pa.table([pa.array(list(each), pa.binary()) for each in of_columns], list(columns))


def _json_text(value: Any, where: str) -> bytes | None:
    if not isinstance(value, str | None):
        raise InputError(f"{where} is {value!r}, expected text")
    # JSON can escape a lone surrogate, which the check of the encoding then reports.
    return value if value is None else value.encode("utf-8", "surrogatepass")


def _json_label(value: Any, where: str) -> bytes | None:
    if isinstance(value, bool | int):
        value = json.dumps(value)
    if not isinstance(value, str | None):
        raise InputError(f"{where} is {value!r}, expected an integer, text, true or false")
    return _json_text(value, where)


READERS: dict[str, Callable[[Path, Columns], Tables]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
}


def validate(
    tables: Iterable[pa.Table], name: str, text: str = "text", label: str = "label"
) -> Tables:
    """Validate the columns `text` and `label` of tables and yield them in the schema READ.

    `name` is the file name in messages. Raises InputError for the first invalid column or row.
    """
    rows = 0
    for table in tables:
        _check_columns(table.column_names, name, text, label)
        columns = [_texts(table[text], name, text, rows), _labels(table[label], name, label, rows)]
        rows += table.num_rows
        yield pa.table(columns, schema=READ)
    if not rows:
        raise InputError(f"{name}: no reviews")


def _check_columns(names: list[str], place: str, *wanted: str) -> None:
    for column in wanted:
        if column not in names:
            found = ", ".join(names) or "none"
            raise InputError(f"{place}: no column '{column}'; the columns are: {found}")
        if names.count(column) > 1:
            raise InputError(f"{place}: more than one column '{column}'")


def _texts(column: pa.ChunkedArray, name: str, title: str, before: int) -> pa.ChunkedArray:
    """Validate a column of texts that follows `before` rows of the same file."""
    texts = _decode(column, name, title, before)
    _refuse(pc.is_null(texts), f"{title} is missing", name, before)
    empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0)
    _refuse(empty, f"{title} is empty", name, before)
    _refuse(pc.match_substring(texts, "\0"), f"{title} has a NUL byte", name, before)
    return texts


def _decode(column: pa.ChunkedArray, name: str, title: str, before: int) -> pa.ChunkedArray:
    """Convert a column of text of any type, which follows `before` rows, to strings."""
    if not _is_text(column.type):
        raise InputError(f"{name}: column '{title}' holds {column.type}, expected text")
    column = column.cast(pa.large_binary())
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        row = before + _first_not_utf8(column)
        raise InputError(f"{name}: row {row}: {title} is not UTF-8") from None


def _labels(column: pa.ChunkedArray, name: str, title: str, before: int) -> pa.ChunkedArray:
    """Convert labels of any accepted type to text without surrounding white space."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        column = column.cast(pa.string())
    elif not _is_text(kind):
        raise InputError(
            f"{name}: column '{title}' holds {kind}, expected integers, text or booleans"
        )
    labels = pc.utf8_trim_whitespace(_texts(column, name, title, before))
    missing = pc.equal(pc.utf8_lower(labels), "nan")
    _refuse(missing, f"{title} is missing", name, before)
    return labels


def _refuse(rows: pa.ChunkedArray, why: str, name: str, before: int) -> None:
    """Raise InputError for the first true value in `rows` (booleans)."""
    if pc.any(rows).as_py():
        row = before + pc.index(rows, True).as_py() + 1
        raise InputError(f"{name}: row {row}: {why}")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        check(kind)
        for check in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
        )
    )


def _first_not_utf8(column: pa.ChunkedArray) -> int:
    for row, value in enumerate(column, start=1):
        try:
            (value.as_py() or b"").decode("utf-8")
        except UnicodeDecodeError:
            return row
    raise AssertionError("all rows are UTF-8")


def either(names: Iterable[str]) -> str:
    """Join names as `a, b or c`."""
    *first, last = names
    return f"{', '.join(first)} or {last}"
