"""Compute a model's scores from its predictions.

    python -m stages.evaluate svm

Evaluation is apart from training, so that a change of how scores are computed trains nothing.

reads    data/predictions/<model>.csv; metrics/download.json, for the order of the labels
metrics  metrics/<model>.json
"""

import argparse
import json

from stages.lib.core import outputs, stage
from stages.lib.core.paths import METRICS
from stages.lib.schema import params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    name = parser.parse_args().model
    params.load()
    from stages.lib.core import predictions
    from stages.lib.scores import scoring

    facts = json.loads((METRICS / "download.json").read_text(encoding="utf-8"))
    scores = scoring.of_predictions(predictions.read(name), list(facts["train"]["labels"]))
    # More columns would not fit a terminal; the model's card has precision and recall too.
    shown = {
        split: {score: values[score] for score in ("accuracy", "f1")}
        for split, values in scores.items()
    }
    outputs.write_json(METRICS / f"{name}.json", shown)


if __name__ == "__main__":
    stage.run(main)
