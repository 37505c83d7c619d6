"""Parquet files that are read a piece at a time."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.lib.core.errors import InputError


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[pq.ParquetFile]:
    """The parquet file at `path`, read neither ahead nor in whole row groups, which would stay in
    memory until the last of them.

    Raises InputError, also for what is read within the block, when it is missing or broken.
    """
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; 'dvc repro' makes it") from None
    except (pa.ArrowException, OSError) as error:
        # Arrow's OSError has no number where the content is to blame.
        if isinstance(error, OSError) and error.errno:
            raise
        raise InputError(f"{path}: cannot be read as parquet: {error}") from None
