"""Reviews as data: reading and validating them, their labels, splits and the stratified subset.

A split is an Arrow table with the columns text (string) and label (int64: the index of the label's
name). As long as the names are not known, while files are read, a label is text.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from stages.lib.errors import InputError
from stages.lib.splits import SPLITS

SCHEMA = pa.schema([("text", pa.string()), ("label", pa.int64())])
READ = pa.schema([("text", pa.string()), ("label", pa.string())])

# The names of 0 and 1 where these are all the labels.
BINARY = ("negative", "positive")
# Of a label in train: the SVM's probabilities take a cross-validation.
FEWEST = 2
# Of a label in what is split here: less than ten have no tenth.
FEWEST_TO_SPLIT = 10

Splits = dict[str, pa.Table]


class Reviews(NamedTuple):
    """The splits, the names of the labels (the index is the number), where all came from."""

    splits: Splits
    labels: Sequence[str]
    provenance: dict[str, Any]


def read(path: Path, text: str = "text", label: str = "label") -> pa.Table:
    """Read and validate the columns `text` and `label` of a file of one of READERS' formats.

    Gives a table as READ says. Raises InputError that names the file, and the row (the first is 1)
    where one is to blame.
    """
    try:
        table = READERS[path.suffix](path, text, label)
    except (pa.ArrowException, OSError) as error:
        # Arrow's OSError has no number where the content is to blame.
        if isinstance(error, OSError) and error.errno:
            raise
        raise InputError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from None
    return validate(table, str(path), text, label)


def _read_parquet(path: Path, text: str, label: str) -> pa.Table:
    return pq.read_table(path)


def _read_csv(path: Path, text: str, label: str, delimiter: str = ",") -> pa.Table:
    # As bytes: the check of the encoding below names the row, Arrow's does not.
    return pa.csv.read_csv(
        path,
        # A review must fit into a block.
        read_options=pa.csv.ReadOptions(block_size=1 << 26),
        parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(
            column_types={text: pa.binary(), label: pa.binary()}, strings_can_be_null=False
        ),
    )


def _read_tsv(path: Path, text: str, label: str) -> pa.Table:
    return _read_csv(path, text, label, delimiter="\t")


def _read_jsonl(path: Path, text: str, label: str) -> pa.Table:
    # Arrow's reader takes what looks like a date for one, and names no row.
    columns: dict[str, None] = {}
    texts, labels = [], []
    for row, line in enumerate(filter(bytes.strip, path.read_bytes().splitlines()), start=1):
        where = f"{path}: row {row}"
        try:
            content = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise InputError(f"{where}: not UTF-8") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not JSON: {error}") from None
        if not isinstance(content, dict):
            raise InputError(f"{where}: not an object such as {{{text!r}: ..., {label!r}: ...}}")
        columns.update(dict.fromkeys(content))
        texts.append(_json_text(content.get(text), f"{where}: {text}"))
        labels.append(_json_label(content.get(label), f"{where}: {label}"))
    values = {text: pa.array(texts, pa.binary()), label: pa.array(labels, pa.binary())}
    others = pa.nulls(len(texts))
    return pa.table({name: values.get(name, others) for name in columns})


def _json_text(value: Any, where: str) -> bytes | None:
    if not isinstance(value, str | None):
        raise InputError(f"{where} is {value!r}, expected text")
    # JSON can escape half a character: the check of the encoding finds it.
    return value if value is None else value.encode("utf-8", "surrogatepass")


def _json_label(value: Any, where: str) -> bytes | None:
    if isinstance(value, bool | int):
        value = json.dumps(value)
    if not isinstance(value, str | None):
        raise InputError(f"{where} is {value!r}, expected an integer, text, true or false")
    return _json_text(value, where)


READERS: dict[str, Callable[[Path, str, str], pa.Table]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
}


def validate(table: pa.Table, name: str, text: str = "text", label: str = "label") -> pa.Table:
    """The columns `text` and `label` of `table`, checked, as READ says.

    `name` is the file in messages. Raises InputError.
    """
    for column in (text, label):
        if column not in table.column_names:
            found = ", ".join(table.column_names) or "none"
            raise InputError(f"{name}: no column '{column}'; the columns are: {found}")
        if table.column_names.count(column) > 1:
            raise InputError(f"{name}: more than one column '{column}'")
    if table.num_rows == 0:
        raise InputError(f"{name}: no reviews")
    columns = [_texts(table[text], name, text), _labels(table[label], name, label)]
    return pa.table(columns, schema=READ).combine_chunks()


def _texts(column: pa.ChunkedArray, name: str, title: str) -> pa.ChunkedArray:
    if not _is_text(column.type):
        raise InputError(f"{name}: column '{title}' holds {column.type}, expected text")
    column = column.cast(pa.large_binary())
    if column.null_count:
        raise InputError(f"{name}: row {_first(pc.is_null(column))}: {title} is missing")
    try:
        texts = column.cast(pa.string())
    except pa.ArrowInvalid:
        raise InputError(f"{name}: row {_first_not_utf8(column)}: {title} is not UTF-8") from None
    empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0)
    if pc.any(empty).as_py():
        raise InputError(f"{name}: row {_first(empty)}: {title} is empty")
    binary = pc.match_substring(texts, "\0")
    if pc.any(binary).as_py():
        raise InputError(f"{name}: row {_first(binary)}: {title} has a NUL byte")
    return texts


def _labels(column: pa.ChunkedArray, name: str, title: str) -> pa.ChunkedArray:
    """Labels as text without white space around, whatever they were."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        column = column.cast(pa.string())
    elif not _is_text(kind):
        raise InputError(
            f"{name}: column '{title}' holds {kind}, expected integers, text or booleans"
        )
    labels = pc.utf8_trim_whitespace(_texts(column, name, title))
    missing = pc.equal(pc.utf8_lower(labels), "nan")
    if pc.any(missing).as_py():
        raise InputError(f"{name}: row {_first(missing)}: {title} is missing")
    return labels


def assemble(
    tables: dict[str, pa.Table],
    places: dict[str, str],
    *,
    seed: int,
    order: Sequence[str] | None = None,
) -> tuple[Splits, list[str], dict[str, Any]]:
    """All three splits, the names of their labels, and what was done to get them.

    `tables` are as READ says, train among them; validation and test are split from train where
    they are missing. `places` are their files in messages, `order` the labels in order where a
    dataset has one. The facts have "labels", the name of each value, and "split" where one was
    made. Raises InputError.
    """
    names = _names(tables, places, order)
    values = pa.array(list(names))
    splits = {
        name: pa.table(
            [table["text"], pc.index_in(table["label"], values).cast(pa.int64())], schema=SCHEMA
        )
        for name, table in tables.items()
    }
    facts: dict[str, Any] = {"labels": names}
    missing = [name for name in SPLITS[1:] if name not in splits]
    if missing:
        splits = split(splits["train"], missing, seed, list(names), places["train"]) | {
            name: table for name, table in splits.items() if name != "train"
        }
        shares = "80/10/10" if len(missing) == 2 else "90/10"
        facts["split"] = (
            f"{' and '.join(missing)} split off here: {shares}, stratified by label, "
            f"dataset.split_seed {seed}"
        )
    counts = np.bincount(splits["train"]["label"].to_numpy())
    for value, count in zip(names, counts, strict=True):
        if count < FEWEST:
            raise InputError(
                f"{places['train']}: label {value!r} has {count} review, at least {FEWEST} are "
                "needed"
            )
    return {name: splits[name] for name in SPLITS}, list(names.values()), facts


def _names(
    tables: dict[str, pa.Table], places: dict[str, str], order: Sequence[str] | None
) -> dict[str, str]:
    """The name of each value, in the order of the labels' numbers."""
    found = {name: table["label"].unique() for name, table in tables.items()}
    for name, values in found.items():
        if len(values) == 1:
            raise InputError(
                f"{places[name]}: all reviews have the label {values[0]}; a split needs two labels "
                "or more"
            )
        lacking = pc.invert(pc.is_in(tables[name]["label"], found["train"]))
        if pc.any(lacking).as_py():
            row = _first(lacking)
            known = sorted(found["train"].to_pylist(), key=_rank)
            shown = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
            raise InputError(
                f"{places[name]}: row {row}: label is {tables[name]['label'][row - 1].as_py()!r}, "
                f"which train lacks; it has {shown}"
            )
    values = set(found["train"].to_pylist())
    if values == {"0", "1"}:
        return dict(zip("01", BINARY, strict=True))
    rank = _rank if order is None else order.index
    return {value: value for value in sorted(values, key=rank)}


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


def _rank(value: str) -> tuple[int, int, str]:
    """Sorts integers by number, before other text."""
    if re.fullmatch("-?(0|[1-9][0-9]*)", value):
        return 0, int(value), value
    return 1, 0, value


def split(
    table: pa.Table, missing: Sequence[str], seed: int, labels: Sequence[str], place: str
) -> Splits:
    """Take a tenth of each label for each of `missing`; train is what is left, all in their order.

    The choice follows from the seed and the texts alone (SHA-256), whatever the order of the rows:
    a review that is added moves few of the others, and copies of a text rarely part.
    Raises InputError for a label with less than FEWEST_TO_SPLIT reviews.
    """
    rows: dict[str, list[int]] = {name: [] for name in ("train", *missing)}
    for number, of_label in _by_digest(table, f"{seed} ").items():
        count = len(of_label)
        if count < FEWEST_TO_SPLIT:
            raise InputError(
                f"{place}: label {labels[number]!r} has {count} reviews, too few to split: at "
                f"least {FEWEST_TO_SPLIT} are needed"
            )
        ends = [int(count * tenth / 10 + 0.5) for tenth in range(10 - len(missing), 11)]
        for part, (start, end) in zip(rows.values(), pairwise([0, *ends]), strict=True):
            part.extend(of_label[start:end])
    return {name: table.take(sorted(part)) for name, part in rows.items()}


def subset(table: pa.Table, size: int) -> pa.Table:
    """`size` reviews in their order, with the labels in the proportion of the whole, but two or
    more of each (all, where there are no two).

    The choice follows from the texts alone (their SHA-256), so it does not depend on the order of
    the rows or on a seed, and a larger subset contains a smaller one but for rounding.
    Raises InputError where `size` is too small for that.
    """
    if size >= table.num_rows:
        return table
    rows = _by_digest(table)
    shares = _shares({label: len(of_label) for label, of_label in rows.items()}, size)
    chosen = [row for label, of_label in rows.items() for row in of_label[: shares[label]]]
    return table.take(sorted(chosen))


def _by_digest(table: pa.Table, prefix: str = "") -> dict[int, list[int]]:
    """The rows of each label in the order of the SHA-256 of `prefix` and text."""
    texts, labels = table["text"].to_pylist(), table["label"].to_pylist()
    digests = [hashlib.sha256(f"{prefix}{text}".encode()).digest() for text in texts]
    rows: dict[int, list[int]] = {label: [] for label in sorted(set(labels))}
    for row in sorted(range(len(texts)), key=digests.__getitem__):
        rows[labels[row]].append(row)
    return rows


def _shares(counts: dict[int, int], size: int) -> dict[int, int]:
    """How many rows of each label: the largest remainders get what rounding down leaves, then the
    rarest labels get theirs from the most frequent."""
    total = sum(counts.values())
    least = {label: min(count, FEWEST) for label, count in counts.items()}
    if size < sum(least.values()):
        raise InputError(
            f"params.yaml: dataset.subset: {size} is wrong: it should be at least "
            f"{sum(least.values())}, for {len(counts)} labels"
        )
    shares = {label: size * count // total for label, count in counts.items()}
    by_remainder = sorted(counts, key=lambda label: -(size * counts[label] % total))
    for label in by_remainder[: size - sum(shares.values())]:
        shares[label] += 1
    for label, count in least.items():
        while shares[label] < count:
            shares[max(shares, key=shares.__getitem__)] -= 1
            shares[label] += 1
    return shares
