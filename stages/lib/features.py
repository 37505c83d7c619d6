"""data/features: one [CLS] vector a review, float32, with its label."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = Path("data/features")


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


def load(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The vectors (float32 [reviews, dim]) and labels (int64 [reviews]) of a split."""
    table = pq.read_table(FEATURES / f"{split}.parquet")
    vectors = table["cls"].combine_chunks()
    cls = vectors.flatten().to_numpy().reshape(len(vectors), -1)
    # Copies: Arrow's memory is read-only, which PyTorch warns of.
    return cls.copy(), table["label"].to_numpy().copy()
