"""data/features: one [CLS] vector a review, float32, with its label."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = Path("data/features")
# Few enough to hold several times over, enough for fast matrix products.
ROWS = 4096


@contextlib.contextmanager
def writing(path: Path, dim: int) -> Iterator[Callable[[np.ndarray, np.ndarray], None]]:
    """A function that appends vectors (float32 [reviews, dim]) and labels (int64 [reviews]) to a
    parquet file, so that no more than these are in memory."""
    schema = pa.schema([("cls", pa.list_(pa.float32(), dim)), ("label", pa.int64())])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as file:

        def append(cls: np.ndarray, labels: np.ndarray) -> None:
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(cls.ravel()), dim)
            file.write_table(pa.table([vectors, pa.array(labels)], schema))

        yield append


def count(split: str) -> int:
    """Reviews in a split."""
    return pq.read_metadata(FEATURES / f"{split}.parquet").num_rows


def blocks(split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As `load`, at most `ROWS` reviews after another: for what does not fit into memory."""
    # Read ahead, row groups would stay in memory until the last of them.
    with pq.ParquetFile(FEATURES / f"{split}.parquet", pre_buffer=False) as file:
        for batch in file.iter_batches(ROWS):
            yield _arrays(batch["cls"], batch["label"])


def load(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The vectors (float32 [reviews, dim]) and labels (int64 [reviews]) of a split."""
    table = pq.read_table(FEATURES / f"{split}.parquet")
    cls, labels = _arrays(table["cls"].combine_chunks(), table["label"].combine_chunks())
    # Copies: Arrow's memory is read-only, which PyTorch warns of.
    return cls.copy(), labels.copy()


def _arrays(vectors: pa.FixedSizeListArray, labels: pa.Int64Array) -> tuple[np.ndarray, np.ndarray]:
    return vectors.flatten().to_numpy().reshape(len(vectors), -1), labels.to_numpy()
