"""Reading texts to classify, in chunks, from a file or standard input."""

import itertools
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from stages.lib.core.errors import InputError
from stages.lib.reviews import reading

SUFFIXES = (".txt", *reading.READERS)
STDIN = "-"
_STDIN = "standard input"
# Large enough for sorting by length to pay off, small enough for memory.
CHUNK = 4096


def chunks(source: str, column: str | None) -> Iterator[list[str]]:
    """Yield the texts of a file, or of standard input ('-'), in lists of at most `CHUNK`.

    A .txt file has one text per line; files of the formats that training reads have the texts in
    `column` ('text' if None). Standard input is read as .txt, or as .csv if `column` is given. A
    missing text is read as an empty one. Raises InputError, which names the file and the line or
    row, when the file does not exist, has another suffix, lacks the column, or is not UTF-8.
    """
    if source == STDIN:
        return _chunked(_lines(sys.stdin.buffer, _STDIN) if column is None else _csv(column))
    kind = Path(source).suffix.lower()
    _check_file(source, kind)
    if kind != ".txt":
        return _chunked(_rows(Path(source), column))
    if column is not None:
        raise InputError(f"{source}: a .txt has no columns; omit --text-column")
    return _chunked(_lines(Path(source).open("rb"), source))


def _check_file(path: str, suffix: str) -> None:
    if not Path(path).is_file():
        problem = "not a file" if Path(path).exists() else "no such file"
        raise InputError(f"{path}: {problem}")
    if suffix not in SUFFIXES:
        expected = reading.either(SUFFIXES)
        raise InputError(f"{path}: '{suffix}' cannot be read; it should be {expected}")


def _chunked(texts: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(itertools.islice(texts, CHUNK)):
        yield chunk


def _lines(file: BinaryIO, name: str) -> Iterator[str]:
    with file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise InputError(f"{name}: line {number}: not UTF-8") from None
            yield text.rstrip("\r\n")


def _rows(path: Path, column: str | None) -> Iterator[str]:
    if not path.stat().st_size:
        return
    try:
        yield from itertools.chain.from_iterable(reading.read_texts(path, column or "text"))
    except InputError as error:
        hint = "; choose one with --text-column" if column is None else ""
        raise InputError(f"{error}{hint if 'no column' in str(error) else ''}") from None


def _csv(column: str) -> Iterator[str]:
    # Arrow reads a file twice, once for the names of its columns.
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "stdin.csv"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        try:
            yield from _rows(path, column)
        except InputError as error:
            raise InputError(str(error).replace(str(path), _STDIN)) from None
