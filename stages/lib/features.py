"""data/features: one [CLS] vector a review, float32, with its label."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = Path("data/features")


def write(path: Path, cls: np.ndarray, labels: np.ndarray) -> None:
    """Write `cls` (float32 [reviews, dim]) and `labels` (int64 [reviews]) as parquet."""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(cls.ravel()), cls.shape[1])
    table = pa.table({"cls": vectors, "label": pa.array(labels)})
    pq.write_table(table, path, compression="none", use_dictionary=False)


def load(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The vectors (float32 [reviews, dim]) and labels (int64 [reviews]) of a split."""
    table = pq.read_table(FEATURES / f"{split}.parquet")
    vectors = table["cls"].combine_chunks()
    cls = vectors.flatten().to_numpy().reshape(len(vectors), -1)
    # Copies: Arrow's memory is read-only, which PyTorch warns of.
    return cls.copy(), table["label"].to_numpy().copy()
