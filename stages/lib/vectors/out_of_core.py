"""Training the linear SVM on vectors that do not fit into memory.

The objective of LinearSVC (L2 penalty on weights and intercept, squared hinge loss, one-vs-rest
for more than two labels) is smooth, so L-BFGS finds the same minimum from sums over blocks of rows,
which are read again in each pass. All values of C are fitted in the same passes.

LinearSVC itself needs all vectors in memory. Stochastic gradient descent (SGDClassifier) was tried:
its result depends on the order of the rows, and with the squared hinge loss it ends far from the
minimum, because [CLS] vectors are ill-conditioned. Here, the inverse square root of the
Hessian at zero serves as a preconditioner, which reduces tens of passes to a dozen.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from scipy.optimize import minimize
from sklearn.preprocessing import StandardScaler

# A function that iterates over blocks of vectors (float32 [rows, dim]) and labels (int64 [rows]),
# from the start at each call.
Blocks = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]

# Relative change of the summed objective between two iterations. Smaller changes are below the
# precision of float32.
TOLERANCE = 1e-7
MOST_ITERATIONS = 100


def fit(
    blocks: Blocks, values: Sequence[float], labels: int
) -> tuple[StandardScaler, list[tuple[np.ndarray, np.ndarray]]]:
    """Fit the standardization, and for each value of C the hyperplanes in LinearSVC's format.

    Hyperplanes are weights for standardized vectors (float64 [1 or labels, dim]) and intercepts
    (float64 [1 or labels]).
    """
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
    # There is one column for each pair of a value of C and a hyperplane.
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
    """Return 1 where a row has the label of a hyperplane and -1 elsewhere: float32 [rows, planes].

    With two labels, the single hyperplane is that of the second.
    """
    if labels == 2:
        return (2 * numbers[:, None] - 1).astype(np.float32)
    return (2 * (numbers[:, None] == np.arange(labels)) - 1).astype(np.float32)
