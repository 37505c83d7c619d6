"""Outputs that appear whole or not at all: written aside, flushed to the disk, then renamed."""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write a file or a directory at; it takes the name on a clean exit.

    The block decides which it is by what it creates. After an error nothing of it is left and what
    was at `path` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield aside
        _flush(aside)
        if aside.is_dir() and path.is_dir():
            old = aside.with_suffix(".old.part")
            path.rename(old)
            try:
                aside.rename(path)
            except BaseException:
                old.rename(path)
                raise
            _remove(old)
        else:
            aside.replace(path)
        _flush_entry(path.parent)
    except BaseException:
        _remove(aside)
        raise


@contextlib.contextmanager
def replacing_directory(path: str | Path) -> Iterator[Path]:
    """As `replacing`, with the directory made."""
    with replacing(path) as aside:
        aside.mkdir()
        yield aside


def write_json(path: str | Path, content: Any) -> None:
    """Write indented UTF-8 JSON, in the order given. Raises ValueError for NaN and infinities."""
    with replacing(path) as aside:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        aside.write_text(text + "\n", encoding="utf-8")


def _sweep(path: Path) -> None:
    # What a killed run left aside would otherwise stay for ever.
    for stale in path.parent.glob(f".{path.name}.*.part"):
        _remove(stale)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    if path.is_dir():
        for child in path.iterdir():
            _flush(child)
    else:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if path.is_dir():
        _flush_entry(path)


def _flush_entry(directory: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
