"""Train a linear SVM on the standardized [CLS] vectors.

    python -m stages.svm

reads    data/features (params: svm, seed)
writes   data/models/svm/: model.safetensors (mean, scale, coef, intercept) and config.json
         data/predictions/svm.csv; its score is the signed distance from the hyperplane
metrics  metrics/svm.json, metrics/costs/svm.json
"""

import json
import time
from pathlib import Path

from stages.lib import outputs, params, stage
from stages.lib.splits import LABELS

MODEL = Path("data/models/svm")


def main() -> None:
    p = params.load("svm", "seed")
    import safetensors.numpy
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    from stages.lib import costs, features, scoring

    splits = {name: features.load(name) for name in ("train", "validation", "test")}

    start = time.perf_counter()
    vectors, labels = splits["train"]
    fitted = {
        C: make_pipeline(StandardScaler(), LinearSVC(C=C, random_state=p.seed)).fit(vectors, labels)
        for C in p.svm.C
    }
    # Of equals the first, which is the most regularized where the list ascends.
    best = max(fitted, key=lambda C: fitted[C].score(*splits["validation"]))
    model = fitted[best]
    seconds = time.perf_counter() - start

    scaler, svm = model[0], model[1]
    tensors = {"mean": scaler.mean_, "scale": scaler.scale_, "coef": svm.coef_}
    tensors["intercept"] = svm.intercept_
    config = {"model_type": "linear-svm", "C": best, "labels": list(LABELS)}
    with outputs.replacing_directory(MODEL) as directory:
        safetensors.numpy.save_file(tensors, directory / "model.safetensors")
        (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    scoring.write(
        "svm",
        {
            name: (labels, model.decision_function(vectors), model.predict(vectors))
            for name, (vectors, labels) in splits.items()
            if name != "train"
        },
    )
    costs.write(
        "svm",
        seconds=seconds,
        samples=len(labels) * len(fitted),
        size=MODEL,
        trainable=svm.coef_.size + svm.intercept_.size,
        total=svm.coef_.size + svm.intercept_.size,
    )


if __name__ == "__main__":
    stage.run(main)
