"""The linear SVM of vectors that do not fit into memory.

What LinearSVC minimizes (L2 penalty of weights and intercept, squared hinge, one against the rest
where there are more labels than two) is smooth, so L-BFGS finds the same minimum from sums over
blocks of rows that are read again in each pass. All values of C are fitted in the same passes.

Stochastic gradients (SGDClassifier) were tried: their result depends on the order of the rows, and
with the squared hinge they end far from the minimum, as [CLS] vectors are badly conditioned.
Here the inverse root of the Hessian at zero conditions them: tens of passes become a dozen.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from scipy.optimize import minimize
from sklearn.preprocessing import StandardScaler

# Vectors (float32 [rows, dim]) and labels (int64 [rows]) of some rows after another, from the start
# each time it is called.
Blocks = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]

# Of the sum over all problems, between two iterations: beyond it float32 has nothing more to say.
TOLERANCE = 1e-7
MOST_ITERATIONS = 100


def fit(
    blocks: Blocks, values: Sequence[float], labels: int
) -> tuple[StandardScaler, list[tuple[np.ndarray, np.ndarray]]]:
    """The standardization, and for each value of C hyperplanes as LinearSVC has them: weights
    (float64 [1 or labels, dim], of standardized vectors) and intercepts."""
    scaler = StandardScaler()
    for vectors, _ in blocks():
        scaler.partial_fit(vectors)
    count = int(scaler.n_samples_seen_)
    planes = 1 if labels == 2 else labels
    penalty = np.repeat(1 / (np.array(values) * count), planes)
    mean, scale = scaler.mean_.astype(np.float32), scaler.scale_.astype(np.float32)

    def standardized() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for vectors, numbers in blocks():
            rows = np.ones((len(vectors), vectors.shape[1] + 1), np.float32)
            np.divide(vectors - mean, scale, out=rows[:, :-1])
            yield rows, numbers

    gram = sum((rows.T @ rows).astype(np.float64) for rows, _ in standardized()) / count
    moments, axes = np.linalg.eigh(gram)
    # One column for each value of C and plane.
    stretch = 1 / np.sqrt(2 * np.maximum(moments, 0)[:, None] + penalty)

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        weights = axes @ (stretch * point.reshape(stretch.shape))
        loss, gradient = 0.0, np.zeros_like(weights)
        columns = weights.astype(np.float32)
        for rows, numbers in standardized():
            side = np.tile(_sides(numbers, labels), len(values))
            short = np.maximum(0, 1 - side * (rows @ columns))
            loss += float((short.astype(np.float64) ** 2).sum())
            gradient -= 2 * (rows.T @ (short * side))
        total = loss / count + 0.5 * (penalty * weights**2).sum()
        slope = gradient / count + penalty * weights
        return total, (stretch * (axes.T @ slope)).ravel()

    options = {"ftol": TOLERANCE, "gtol": 0, "maxiter": MOST_ITERATIONS}
    found = minimize(
        objective, np.zeros(stretch.size), jac=True, method="L-BFGS-B", options=options
    )
    weights = axes @ (stretch * found.x.reshape(stretch.shape))
    return scaler, [(of_one[:-1].T, of_one[-1]) for of_one in np.split(weights, len(values), 1)]


def _sides(numbers: np.ndarray, labels: int) -> np.ndarray:
    """1 where a row belongs to the label of the plane, else -1: float32 [rows, planes]."""
    if labels == 2:
        return (2 * numbers[:, None] - 1).astype(np.float32)
    return (2 * (numbers[:, None] == np.arange(labels)) - 1).astype(np.float32)
