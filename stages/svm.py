"""Train a linear SVM on the standardized [CLS] vectors.

    python -m stages.svm

reads    data/features, where data/backbone came from (params: svm, seed)
writes   data/models/svm/: model.safetensors (standardization, hyperplane, temperature),
         config.json, a model card
         data/predictions/svm.csv
metrics  metrics/svm.json, metrics/costs/svm.json
"""

import time
from pathlib import Path

from stages.lib import outputs, params, stage
from stages.lib.splits import SPLITS

MODEL = Path("data/models/svm")


def main() -> None:
    p = params.load("svm", "seed")
    import numpy as np
    from scipy.optimize import minimize_scalar
    from sklearn.metrics import log_loss
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    from stages.lib import about, card, costs, features, linear, scoring

    splits = {name: features.load(name) for name in SPLITS}
    data = about.read(features.FEATURES)

    start = time.perf_counter()
    vectors, labels = splits["train"]
    fitted = {
        C: make_pipeline(StandardScaler(), LinearSVC(C=C, random_state=p.seed)).fit(vectors, labels)
        for C in p.svm.C
    }
    # Of equals the first, which is the most regularized where the list ascends.
    best = max(fitted, key=lambda C: fitted[C].score(*splits["validation"]))
    model = fitted[best]
    # An SVM has no probabilities: its margins on reviews that it was not fitted on say how far
    # they can be trusted.
    folds = min(5, np.bincount(labels).min())
    margins = cross_val_predict(model, vectors, labels, cv=folds, method="decision_function")
    temperature = np.exp(
        minimize_scalar(
            lambda log: log_loss(labels, linear.probabilities(margins, np.exp(log))),
            bounds=(-5, 5),
            method="bounded",
        ).x
    )
    seconds = time.perf_counter() - start

    scaler, svm = model[0], model[1]
    fit = linear.Linear(scaler.mean_, scaler.scale_, svm.coef_, svm.intercept_, temperature)
    scores = scoring.write(
        "svm",
        data["labels"],
        {
            name: (labels, fit.probabilities(vectors))
            for name, (vectors, labels) in splits.items()
            if name != "train"
        },
    )
    trainable = svm.coef_.size + svm.intercept_.size
    with outputs.replacing_directory(MODEL) as directory:
        fit.save(directory, data["labels"], C=best, max_length=data["max_length"])
        settings = {"C": best, "seed": p.seed, "trainable_parameters": trainable}
        card.write(directory, "svm", data=data, scores=scores, settings=settings)
    costs.write(
        "svm",
        seconds=seconds,
        samples=len(labels) * len(fitted),
        size=MODEL,
        trainable=trainable,
        total=trainable,
        precision="fp64",
    )


if __name__ == "__main__":
    stage.run(main)
