"""Put all models side by side.

    python -m stages.report

reads    metrics/, data/predictions, data/curves
writes   metrics/report.md, and its pictures in metrics/report/
"""

import json
from pathlib import Path
from typing import Any

from stages.lib import outputs, params, stage
from stages.lib.errors import InputError
from stages.lib.splits import SPLITS

METRICS = Path("metrics")
PREDICTIONS = Path("data/predictions")
CURVES = Path("data/curves")
REPORT = Path("metrics/report.md")
PICTURES = Path("metrics/report")

COSTS = ("trainable_parameters", "seconds", "peak_memory_mb", "size_bytes", "precision", "device")
MODELS = ("svm", "finetune-head", "finetune-full", "lora-2e-5", "lora-2e-4", "lora")


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """An object with at least these keys. Raises InputError when the file is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}; run the stage that writes it again") from None
    for key in keys:
        if not isinstance(content, dict) or key not in content:
            raise InputError(f"{path}: no '{key}'; run the stage that writes it again")
    return content


def main() -> None:
    params.load()
    import pandas as pd

    from stages.lib import figures, summary

    download = read_json(METRICS / "download.json", "reviews", "backbone", *SPLITS)
    scores = {name: read_json(METRICS / f"{name}.json", "validation", "test") for name in MODELS}
    costs = {name: read_json(METRICS / "costs" / f"{name}.json", *COSTS) for name in MODELS}
    predictions = {name: pd.read_csv(PREDICTIONS / f"{name}.csv") for name in MODELS}

    text = summary.write(download, scores, costs, pictures=PICTURES.name)
    with outputs.replacing_directory(PICTURES) as directory:
        figures.confusion_matrices(predictions, directory / "confusion.png")
        figures.training_curves(CURVES, MODELS, directory / "curves.png")
    with outputs.replacing(REPORT) as aside:
        aside.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    stage.run(main)
