"""Atomic outputs: they are written to a temporary path, flushed to disk, then renamed."""

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, which is renamed to `path` on a clean exit.

    The block creates either a file or a directory there. After an error, the temporary path is
    deleted and `path` is unchanged.
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
            try:
                path.rename(old)
                aside.rename(path)
            except BaseException:
                # An interrupt can come after either of the two.
                if old.exists():
                    if path.exists():
                        path.rename(aside)
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
    """Do the same as `replacing`, with a directory that already exists."""
    with replacing(path) as aside:
        aside.mkdir()
        yield aside


def write_json(path: str | Path, content: Any) -> None:
    """Write indented UTF-8 JSON, keeping the order of keys.

    Raises ValueError for NaN and infinities.
    """
    with replacing(path) as aside:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        aside.write_text(text + "\n", encoding="utf-8")


def _sweep(path: Path) -> None:
    # Otherwise the temporary files of a killed run would stay forever.
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}(\.old)?\.part")
    for stale in list(path.parent.iterdir()):
        if pattern.fullmatch(stale.name):
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
