"""stages.lib.reviews.statistics: what is counted of the reviews."""

import pyarrow as pa
import pyarrow.parquet as pq

from stages.lib.reviews import splitting, statistics


def describe(directory, train):
    other = [("x", 0), ("y", 1)]
    for split, rows in {"train": train, "validation": other, "test": other}.items():
        texts, labels = zip(*rows, strict=True)
        table = pa.table([texts, labels], schema=splitting.SCHEMA)
        pq.write_table(table, directory / f"{split}.parquet")
    return statistics.describe(directory, ["no", "yes"])


def test_texts_with_different_labels_are_counted_once_each(tmp_path):
    rows = [("a", 0), ("a", 1), ("a", 1), ("b", 0), ("b", 0), ("c", 1), ("c", 0)]
    facts = describe(tmp_path, rows)
    assert facts["train"]["duplicates"] == 4
    assert facts["train"]["conflicting_labels"] == 2
    assert facts["train"]["labels"] == {"no": 4, "yes": 3}
    assert facts["test"]["conflicting_labels"] == 0


def test_copies_across_splits_are_counted(tmp_path):
    facts = describe(tmp_path, [("x", 0), ("z", 1)])
    assert facts["duplicates_across_splits"] == {
        "train_validation": 1,
        "train_test": 1,
        "validation_test": 2,
    }
