"""Compute a model's scores from its predictions.

    python -m stages.evaluate svm

Evaluation is apart from training, so that a change in how scores are computed trains nothing.

reads    data/predictions/<model>.csv; metrics/download.json, for the order of the labels
metrics  metrics/<model>.json
"""

import argparse

from stages.lib.core import metrics, outputs, stage
from stages.lib.core.paths import METRICS
from stages.lib.schema import params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    name = parser.parse_args().model
    params.load()
    from stages.lib.core import predictions
    from stages.lib.scores import scoring

    facts = metrics.read(METRICS / "download.json", metrics.Download)
    scores = scoring.of_predictions(predictions.read(name), list(facts["train"]["labels"]))
    # More columns would not fit a terminal; the model's card has precision and recall too.
    shown: dict[str, metrics.Scores] = {
        split: {"accuracy": values["accuracy"], "f1": values["f1"]}
        for split, values in scores.items()
    }
    outputs.write_json(METRICS / f"{name}.json", shown)


if __name__ == "__main__":
    stage.run(main)
