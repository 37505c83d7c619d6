"""Summary statistics of a distribution."""

from collections.abc import Sequence

import numpy as np

from stages.lib.core.metrics import Distribution

PERCENTILES = (5, 50, 95, 100)


def summarize(values: Sequence[int] | np.ndarray) -> Distribution:
    """Return the mean and the percentiles, rounded to two decimals."""
    mean, *percentiles = (
        round(float(value), 2) for value in (np.mean(values), *np.percentile(values, PERCENTILES))
    )
    p5, p50, p95, p100 = percentiles
    return {"mean": mean, "p5": p5, "p50": p50, "p95": p95, "p100": p100}
