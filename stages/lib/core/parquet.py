"""Parquet files that are read in chunks, or counted."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.lib.core.errors import InputError


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[pq.ParquetFile]:
    """Open the parquet file at `path` without read-ahead and without reading whole row groups,
    which would stay in memory until the last one is read.

    Raises InputError when the file is missing or broken, also for reads within the block.
    """
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; 'dvc repro' creates it") from None
    except (pa.ArrowException, OSError) as error:
        # Arrow's OSError has no errno when the content is at fault.
        if isinstance(error, OSError) and error.errno:
            raise
        raise InputError(f"{path}: cannot be read as parquet: {error}") from None


def count(path: str | Path) -> int:
    """Count the rows of the parquet file at `path`. Raises InputError as `opened` does."""
    with opened(path) as file:
        return int(file.metadata.num_rows)
