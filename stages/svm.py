"""Train a linear SVM on the standardized [CLS] vectors.

    python -m stages.svm

Up to IN_MEMORY training reviews are fitted by LinearSVC. For more, an out-of-core solver finds the
same hyperplanes without holding all vectors in memory (stages/lib/vectors/out_of_core.py).

reads    data/features (params: svm, seed)
writes   data/models/svm/: model.safetensors (standardization, hyperplanes, temperature),
         config.json
         data/predictions/svm.csv
metrics  metrics/costs/svm.json
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stages.lib.core import outputs, paths, stage
from stages.lib.schema import params

if TYPE_CHECKING:
    import numpy as np

    from stages.lib.vectors.linear import Linear

MODEL = paths.MODELS / "svm"
# Training reviews. docs/scale.md has the time and memory of both solvers.
IN_MEMORY = 20_000


def main() -> None:
    p = params.load("svm", "seed")
    import numpy as np

    from stages.lib.core import costs, manifest, parquet, predictions
    from stages.lib.vectors import features

    data = manifest.read(paths.FEATURES)
    samples = parquet.count(paths.FEATURES / "train.parquet")
    start = time.perf_counter()
    if samples <= IN_MEMORY:
        best, fit = in_memory(p.svm.C, p.seed)
    else:
        best, fit = streamed(p.svm.C, len(data["labels"]))
    seconds = time.perf_counter() - start

    results = {}
    for split in ("validation", "test"):
        numbers, probabilities = zip(
            *((labels, fit.probabilities(cls)) for cls, labels in features.blocks(split)),
            strict=True,
        )
        results[split] = np.concatenate(numbers), np.concatenate(probabilities)
    predictions.write("svm", data["labels"], results)
    trainable = fit.coef.size + fit.intercept.size
    with outputs.replacing_directory(MODEL) as directory:
        fit.save(directory, data["labels"], C=best, max_length=data["max_length"])
    costs.write(
        "svm",
        seconds=seconds,
        samples=samples * len(p.svm.C),
        size=MODEL,
        trainable=trainable,
        total=trainable,
        settings={"C": best, "seed": p.seed},
        precision="fp64" if samples <= IN_MEMORY else "fp32",
    )


def in_memory(values: Sequence[float], seed: int) -> tuple[float, "Linear"]:
    """Return the best value of C on validation and its SVM, fitted by LinearSVC."""
    import numpy as np
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    from stages.lib.vectors import features, linear

    vectors, labels = features.load("train")
    fitted = {
        C: make_pipeline(StandardScaler(), LinearSVC(C=C, random_state=seed)).fit(vectors, labels)
        for C in values
    }
    validation = features.load("validation")
    # Ties go to the first value, which is the most regularized one in an ascending list.
    best = max(fitted, key=lambda C: fitted[C].score(*validation))
    model = fitted[best]
    # An SVM has no probabilities. The temperature that turns margins into probabilities must be
    # fitted on margins of held-out reviews.
    folds = min(5, np.bincount(labels).min())
    margins = cross_val_predict(model, vectors, labels, cv=folds, method="decision_function")
    scaler, svm = model[0], model[1]
    temperature = _temperature(margins, labels)
    return best, linear.Linear(scaler.mean_, scaler.scale_, svm.coef_, svm.intercept_, temperature)


def streamed(values: Sequence[float], labels: int) -> tuple[float, "Linear"]:
    """Return the best value of C on validation and its SVM, with one block of vectors in memory."""
    import numpy as np

    from stages.lib.vectors import features, linear, out_of_core

    scaler, planes = out_of_core.fit(lambda: features.blocks("train"), values, labels)
    fitted = [linear.Linear(scaler.mean_, scaler.scale_, *plane, 1.0) for plane in planes]
    true: list[np.ndarray] = []
    parts: list[list[np.ndarray]] = [[] for _ in fitted]
    for vectors, numbers in features.blocks("validation"):
        true.append(numbers)
        for svm, part in zip(fitted, parts, strict=True):
            part.append(svm.margins(vectors))
    numbers, margins = np.concatenate(true), [np.concatenate(part) for part in parts]
    right = [(linear.probabilities(each, 1.0).argmax(-1) == numbers).mean() for each in margins]
    best = int(np.argmax(right))
    # Validation reviews are held out and the temperature is a single number, so no cross-validation
    # is needed.
    temperature = _temperature(margins[best], numbers)
    return values[best], dataclasses.replace(fitted[best], temperature=temperature)


def _temperature(margins: "np.ndarray", labels: "np.ndarray") -> float:
    import numpy as np
    from scipy.optimize import minimize_scalar
    from sklearn.metrics import log_loss

    from stages.lib.vectors import linear

    names = np.arange(max(2, margins[0].size))

    def loss(log: float) -> float:
        return log_loss(labels, linear.probabilities(margins, np.exp(log)), labels=names)

    return np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x)


if __name__ == "__main__":
    stage.run(main)
