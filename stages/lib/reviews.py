"""Reviews as data: the splits, reading and validating them, and the stratified subset.

A split is an Arrow table with the columns text (string) and label (int64: 0 negative, 1 positive).
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from stages.lib.errors import InputError

SCHEMA = pa.schema([("text", pa.string()), ("label", pa.int64())])

Splits = dict[str, pa.Table]


def read(path: Path) -> pa.Table:
    """Read and validate one split from a .parquet or .csv file.

    Raises InputError that names the file, and the row (the first is 1) where one is to blame.
    """
    readers = {".parquet": pq.read_table, ".csv": _read_csv}
    try:
        table = readers[path.suffix](path)
    except (pa.ArrowException, OSError) as error:
        # Arrow's OSError has no number where the content is to blame.
        if isinstance(error, OSError) and error.errno:
            raise
        raise InputError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from None
    return validate(table, str(path))


def _read_csv(path: Path) -> pa.Table:
    # As bytes: the check of the encoding below names the row, Arrow's does not.
    return pa.csv.read_csv(
        path,
        # A review must fit into a block.
        read_options=pa.csv.ReadOptions(block_size=1 << 26),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(
            column_types={"text": pa.binary(), "label": pa.binary()}, strings_can_be_null=False
        ),
    )


def validate(table: pa.Table, name: str) -> pa.Table:
    """`table` as (text, label), checked; `name` is the file in messages. Raises InputError."""
    for column in SCHEMA.names:
        if column not in table.column_names:
            found = ", ".join(table.column_names) or "none"
            raise InputError(f"{name}: no column '{column}'; the columns are: {found}")
        if table.column_names.count(column) > 1:
            raise InputError(f"{name}: more than one column '{column}'")
    if table.num_rows == 0:
        raise InputError(f"{name}: no reviews")
    return pa.table(
        [_texts(table["text"], name), _labels(table["label"], name)], schema=SCHEMA
    ).combine_chunks()


def _texts(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    if not _is_text(column.type):
        raise InputError(f"{name}: column 'text' holds {column.type}, expected text")
    column = column.cast(pa.large_binary())
    if column.null_count:
        raise InputError(f"{name}: row {_first(pc.is_null(column))}: text is missing")
    try:
        texts = column.cast(pa.string())
    except pa.ArrowInvalid:
        raise InputError(f"{name}: row {_first_not_utf8(column)}: text is not UTF-8") from None
    empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0)
    if pc.any(empty).as_py():
        raise InputError(f"{name}: row {_first(empty)}: text is empty")
    binary = pc.match_substring(texts, "\0")
    if pc.any(binary).as_py():
        raise InputError(f"{name}: row {_first(binary)}: text has a NUL byte")
    return texts


def _labels(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    if column.null_count:
        raise InputError(f"{name}: row {_first(pc.is_null(column))}: label is missing")
    if pa.types.is_integer(column.type):
        valid = pc.is_in(column, pa.array([0, 1], column.type))
    elif _is_text(column.type):
        column = column.cast(pa.large_binary())
        valid = pc.is_in(column, pa.array([b"0", b"1"], column.type))
    else:
        raise InputError(
            f"{name}: column 'label' holds {column.type}, expected the integers 0 and 1"
        )
    if not pc.all(valid).as_py():
        row = _first(pc.invert(valid))
        value = column[row - 1].as_py()
        shown = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        raise InputError(f"{name}: row {row}: label is {shown!r}, expected 0 or 1")
    if not pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    labels = column.cast(pa.int64())
    if len(found := labels.unique()) == 1:
        raise InputError(
            f"{name}: all reviews have the label {found[0]}; a split needs both labels"
        )
    return labels


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        check(kind)
        for check in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_binary,
            pa.types.is_large_binary,
        )
    )


def _first(mask: pa.ChunkedArray) -> int:
    return pc.index(mask, True).as_py() + 1


def _first_not_utf8(column: pa.ChunkedArray) -> int:
    for row, value in enumerate(column, start=1):
        try:
            value.as_py().decode("utf-8")
        except UnicodeDecodeError:
            return row
    raise AssertionError("all rows are UTF-8")


def write(table: pa.Table, path: Path) -> None:
    """Write a split as parquet: the same bytes for the same rows."""
    pq.write_table(table, path, compression="zstd")


def subset(table: pa.Table, size: int) -> pa.Table:
    """`size` reviews in their order, with the labels in the proportion of the whole.

    The choice follows from the texts alone (their SHA-256), so it does not depend on the order of
    the rows or on a seed, and a larger subset contains a smaller one but for rounding.
    """
    if size >= table.num_rows:
        return table
    labels = table["label"].to_pylist()
    digests = [hashlib.sha256(text.encode()).digest() for text in table["text"].to_pylist()]
    chosen: list[int] = []
    for label, share in _shares(labels, size):
        rows = [row for row, other in enumerate(labels) if other == label]
        chosen += sorted(rows, key=lambda row: digests[row])[:share]
    return table.take(sorted(chosen))


def _shares(labels: list[int], size: int) -> Iterator[tuple[int, int]]:
    """How many rows of each label: the largest remainders get what rounding down leaves."""
    counts = {label: labels.count(label) for label in sorted(set(labels))}
    floors = {label: size * count // len(labels) for label, count in counts.items()}
    by_remainder = sorted(counts, key=lambda label: -(size * counts[label] % len(labels)))
    for label in by_remainder[: size - sum(floors.values())]:
        floors[label] += 1
    yield from floors.items()
