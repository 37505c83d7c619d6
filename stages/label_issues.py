"""List the training reviews whose labels look wrong.

    python -m stages.label_issues

The method is confident learning (Northcutt, Jiang and Chuang, 2021, "Confident Learning: Estimating
Uncertainty in Dataset Labels", https://doi.org/10.1613/jair.1.12125) as implemented by cleanlab:
its `find_label_issues` with the filter "prune_by_noise_rate". A linear model that was not fitted on
a review gives the probabilities of its labels (stages/lib/labels/crossvalidation.py, which says
what this costs for many reviews). These probabilities give an estimate of how many reviews with one
label should have another one. That many are suspected: for each pair of labels, the reviews whose
probability of the other label exceeds that of their own by most. A review whose own label is the
most probable one is never suspected. The list is ranked by self-confidence, the probability of the
given label, lowest first. Its texts are held in memory.

reads    data/raw, data/features
writes   data/label-issues.csv: row (in data/raw/train.parquet, counted from 1), text, label,
         suggested_label, confidence
metrics  metrics/label-issues.json
"""

from typing import TYPE_CHECKING

from stages.lib.core import manifest, outputs, parquet, paths, stage
from stages.lib.core.paths import RAW
from stages.lib.schema import params

if TYPE_CHECKING:
    import numpy as np

    from stages.lib.labels.issues import LabelIssues, Ratings

METRICS = paths.METRICS / "label-issues.json"
TRAIN = RAW / "train.parquet"
# Precision is measured on this many of the first suspects, and on all.
FIRST = (50, 100, 200)


def main() -> None:
    params.load()
    import numpy as np

    from stages.lib.labels import crossvalidation, issues
    from stages.lib.vectors import features

    names = manifest.read(RAW)["labels"]
    texts, labels = read()
    probabilities = crossvalidation.probabilities(
        lambda: features.blocks("train"),
        labels,
        crossvalidation.folds(texts, labels),
        len(names),
    )
    suspects = find(labels, probabilities)
    issues.write(suspects, read_texts(suspects), labels, probabilities, names)
    counts = np.bincount(labels[suspects], minlength=len(names))
    facts: LabelIssues = {
        "reviews": len(labels),
        "suspects": {name: int(count) for name, count in zip(names, counts, strict=True)},
        "accuracy": round(float((probabilities.argmax(-1) == labels).mean()), 6),
        "ratings": compare(suspects, labels),
    }
    outputs.write_json(METRICS, facts)


def read() -> "tuple[np.ndarray, np.ndarray]":
    """Return the digests of the texts of train and the labels, uint64 and int64 [reviews]."""
    import numpy as np

    from stages.lib.reviews import reading, splitting

    texts, labels = [], []
    with parquet.opened(TRAIN) as file:
        for batch in file.iter_batches(reading.ROWS):
            texts.append(splitting.digests(batch["text"].to_pylist()))
            labels.append(batch["label"].to_numpy())
    return np.concatenate(texts), np.concatenate(labels)


def read_texts(rows: "np.ndarray") -> list[str]:
    """Return the texts of these rows of train (int64 [rows]), in their order."""
    from stages.lib.reviews import reading

    found, end = {}, 0
    with parquet.opened(TRAIN) as file:
        for batch in file.iter_batches(reading.ROWS, columns=["text"]):
            start, end = end, end + len(batch)
            for row in rows[(start <= rows) & (rows < end)]:
                found[row] = batch["text"][int(row) - start].as_py()
    return [found[row] for row in rows]


def find(labels: "np.ndarray", probabilities: "np.ndarray") -> "np.ndarray":
    """Return the rows whose labels look wrong, the least probable label first: int64 [suspects].

    `labels` are int64 [reviews], and `probabilities`, out of sample, float64 [reviews, labels].
    """
    from cleanlab.filter import find_label_issues

    return find_label_issues(
        labels,
        probabilities,
        filter_by="prune_by_noise_rate",
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )


def compare(suspects: "np.ndarray", labels: "np.ndarray") -> "Ratings | None":
    """Measure how often the sign of a rating contradicts the label, if data/raw has ratings.

    Their source has the labels 0 (negative) and 1 (positive). A rating of 0 contradicts neither.
    """
    import numpy as np
    import pyarrow.parquet as pq

    from stages.lib.reviews import splitting

    path = RAW / splitting.RATINGS
    if not path.exists():
        return None
    ratings = pq.read_table(path)["rating"].to_numpy()
    contradicted = np.where(labels == 1, ratings < 0, ratings > 0)
    numbers = sorted({*(number for number in FIRST if number < len(suspects)), len(suspects)} - {0})
    return {
        "base_rate": round(float(contradicted.mean()), 6),
        "precision": {
            str(number): round(float(contradicted[suspects[:number]].mean()), 6)
            for number in numbers
        },
    }


if __name__ == "__main__":
    stage.run(main)
