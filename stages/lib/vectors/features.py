"""data/features: one float32 [CLS] vector per review, with its label."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.lib.core import parquet
from stages.lib.core.paths import FEATURES

# Small enough to keep several blocks in memory, large enough for fast matrix products.
ROWS = 4096


@contextlib.contextmanager
def writing(path: Path, dim: int) -> Iterator[Callable[[np.ndarray, np.ndarray], None]]:
    """Yield a function that appends vectors (float32 [reviews, dim]) and labels (int64 [reviews])
    to a parquet file, so that only these are in memory."""
    schema = pa.schema([("cls", pa.list_(pa.float32(), dim)), ("label", pa.int64())])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as file:

        def append(cls: np.ndarray, labels: np.ndarray) -> None:
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(cls.ravel()), dim)
            file.write_table(pa.table([vectors, pa.array(labels)], schema))

        yield append


def blocks(split: str, rows: int = ROWS) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield what `load` returns in blocks of at most `rows` reviews, for data that does not fit
    into memory."""
    with parquet.opened(FEATURES / f"{split}.parquet") as file:
        # Arrow's threads would keep their memory until the last row group.
        for batch in file.iter_batches(rows, use_threads=False):
            cls = batch["cls"].flatten().to_numpy().reshape(len(batch), -1)
            yield cls, batch["label"].to_numpy()


def load(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors (float32 [reviews, dim]) and labels (int64 [reviews]) of a split."""
    with parquet.opened(FEATURES / f"{split}.parquet") as file:
        dim = file.schema_arrow.field("cls").type.list_size
    cls = np.empty((file.metadata.num_rows, dim), np.float32)
    labels = np.empty(len(cls), np.int64)
    end = 0
    # Smaller blocks, because the whole split is in memory already.
    for vectors, numbers in blocks(split, ROWS // 4):
        start, end = end, end + len(vectors)
        cls[start:end], labels[start:end] = vectors, numbers
    return cls, labels
