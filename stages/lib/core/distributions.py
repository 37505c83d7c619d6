"""Summary statistics of a distribution."""

from collections.abc import Sequence

import numpy as np

PERCENTILES = (5, 50, 95, 100)


def summarize(values: Sequence[int] | np.ndarray) -> dict[str, float]:
    """Return the mean and the percentiles, rounded to two decimals."""
    percentiles = np.percentile(values, PERCENTILES)
    return {
        "mean": round(float(np.mean(values)), 2),
        **{f"p{p}": round(float(v), 2) for p, v in zip(PERCENTILES, percentiles, strict=True)},
    }
