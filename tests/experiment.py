"""Experiments with invented outcomes, written as the stages write them, for tests of the report."""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stages.lib.models import registry
from stages.lib.report import seeds

ROOT = Path(__file__).parents[1]
MODELS = registry.names()

OFFICIAL = {
    "reviews": {
        "source": "hub",
        "repository": "cornell-movie-review-data/rotten_tomatoes",
        "revision": "a" * 40,
    },
    "backbone": {
        "source": "hub",
        "repository": "distilbert/distilbert-base-uncased",
        "revision": "b" * 40,
    },
}
OWN = {
    "reviews": {"source": "local", "path": "my_reviews", "sha256": {"train.csv": "0" * 64}},
    "backbone": {"source": "local", "path": "my_backbone", "sha256": "1" * 64},
}
PARAMETERS = {"svm": 385, "finetune-head": 148_610, "finetune-full": 22_713_218}

CLAIMS = {
    "merge": {"model": "lora", "largest_logit_difference": 1.2e-6, "reviews": 1060},
    "swap": {
        "adapters": ["lora-2e-5", "lora-2e-4", "lora"],
        "largest_score_difference": 1e-7,
        "predictions_that_differ": 0,
    },
}
MIXED = {
    "device": "cpu, 2 threads",
    "fp32": {"samples_per_second": 90.0, "peak_memory_mb": 1900.0},
    "mixed": {"precision": "bf16", "samples_per_second": 150.0, "peak_memory_mb": 1100.0},
    "allocated": {
        "precision": "bf16",
        "reviews": 32,
        "full": {
            "weights_mb": 90.0,
            "gradients_and_optimizer_mb": 270.0,
            "saved_activations_mb": 300.0,
        },
        "lora": {
            "weights_mb": 70.0,
            "gradients_and_optimizer_mb": 2.7,
            "saved_activations_mb": 240.0,
        },
    },
}


def write_claims(path: Path) -> None:
    """Write what the claims stage would write, in the project at `path`."""
    (path / "metrics/costs").mkdir(parents=True, exist_ok=True)
    (path / "metrics/claims.json").write_text(json.dumps(CLAIMS))
    (path / "metrics/costs/claims.json").write_text(json.dumps(MIXED))


def write_label_issues(
    path: Path, texts: Sequence[str], labels: Sequence[str], suspects: int, ratings: dict | None
) -> None:
    """Write what the label-issues stage would write if it suspected the first labels."""
    first = np.arange(suspects)
    table = pd.DataFrame(
        {
            "row": first + 1,
            "text": texts[:suspects],
            "label": [labels[row % len(labels)] for row in first],
            "suggested_label": [labels[(row + 1) % len(labels)] for row in first],
            "confidence": 0.01 + 0.001 * first,
        }
    )
    table.to_csv(path / "data/label-issues.csv", index=False, quoting=csv.QUOTE_NONNUMERIC)
    counts = {name: len(first[number :: len(labels)]) for number, name in enumerate(labels)}
    facts = {"reviews": len(texts), "suspects": counts, "accuracy": 0.75, "ratings": ratings}
    _json(path / "metrics/label-issues.json", facts)


def write(
    path: Path,
    *,
    wrong: dict[str, Sequence[int] | int],
    labels: Sequence[str] = ("negative", "positive"),
    count: int = 1000,
    texts: Sequence[str] | None = None,
    provenance: dict | None = None,
    epochs: int = 3,
    suspects: int = 9,
    ratings: dict | None = None,
) -> Path:
    """Write an experiment whose models are wrong on the reviews `wrong`, in validation and test.

    `wrong` gives, for each model, a list of reviews, or a number for that many of the first ones.
    The labels of the first `suspects` reviews look wrong.
    """
    if not (path / "params.yaml").exists():
        shutil.copy(ROOT / "params.yaml", path)
    texts = texts or [" ".join(["word"] * (1 + row % 30)) for row in range(count)]
    numbers = np.arange(count) % len(labels)
    names = np.array(labels, dtype=object)
    for folder in ("metrics/costs", "data/raw", "data/predictions"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": texts, "label": numbers}), path / "data/raw/test.parquet")
    _json(path / "data/raw/about.json", {"labels": list(labels), "reviews": {}})
    facts = {
        "reviews": count,
        "labels": {name: int((numbers == n).sum()) for n, name in enumerate(labels)},
        "words": {"mean": 15.5, "p5": 2.0, "p50": 15.0, "p95": 29.0, "p100": 30.0},
        "duplicates": 0,
        "empty": 0,
    }
    across = {"train_validation": 0, "train_test": 0, "validation_test": 0}
    splits = dict.fromkeys(("train", "validation", "test"), facts)
    _json(
        path / "metrics/download.json",
        (provenance or OWN) | splits | {"duplicates_across_splits": across},
    )
    write_label_issues(path, texts, labels, suspects, ratings)
    write_claims(path)
    _json(path / "metrics/seeds.json", {"rows": []})
    for name in MODELS:
        rows = wrong.get(name, 0)
        rows = list(range(rows)) if isinstance(rows, int) else list(rows)
        predicted = numbers.copy()
        predicted[rows] = (numbers[rows] + 1) % len(labels)
        score = np.linspace(0.55, 0.99, count)
        table = pd.DataFrame(
            {
                "index": np.arange(count),
                "label": names[numbers],
                "prediction": names[predicted],
                "score": score,
            }
        )
        both = pd.concat([table.assign(split=split) for split in ("validation", "test")])
        columns = ["split", "index", "label", "prediction", "score"]
        both[columns].to_csv(path / f"data/predictions/{name}.csv", index=False)
        accuracy = 1 - len(rows) / count
        scores = dict.fromkeys(("accuracy", "f1", "precision", "recall"), accuracy)
        _json(path / f"metrics/{name}.json", {"validation": scores, "test": scores})
        _json(
            path / f"metrics/costs/{name}.json",
            {
                "trainable_parameters": PARAMETERS.get(name, 222_338),
                "total_parameters": 22_786_946,
                "seconds": 100.0,
                "samples_per_second": 100.0,
                "size_bytes": 91_577_736 if name.startswith("finetune") else 1_611_253,
                "peak_memory_mb": 1000.0,
                "precision": "fp32",
                "device": "cpu, 2 threads",
            },
        )
        if name != "svm":
            _curves(path / "data/curves" / name / "plots/metrics", epochs)
    return path


def write_seeds(
    path: Path,
    wrong: dict[str, Sequence[Sequence[int]]],
    count: int,
    sizes: dict[int, dict[str, Sequence[Sequence[int]]]] | None = None,
    **changes: object,
) -> None:
    """Write dvc.lock, as after a run with seed 0, and a collection of other seeds from 1.

    `wrong` gives, for each model, the wrong reviews of each of them, in validation and test, and
    `sizes` the same for other numbers of training reviews. `changes` are made to each row, such as
    `precision="bf16"`.
    """
    lock = {
        name: {
            "cmd": f"python -m stages.{name}",
            "deps": [{"path": f"stages/{name}.py", "md5": "c0de"}],
            "params": {"params.yaml": {"seed": 0, name: {"lr": 0.1}}},
            "outs": [{"path": f"data/predictions/{name}.csv", "md5": "1"}],
        }
        for name in MODELS
    }
    # JSON is YAML.
    _json(path / "dvc.lock", {"stages": lock})
    runs = []
    every = [
        (train, name, seed, rows)
        for train, by_model in [(count, wrong), *(sizes or {}).items()]
        for name, of_seeds in by_model.items()
        for seed, rows in enumerate(of_seeds, start=1)
    ]
    for train, name, seed, rows in every:
        (fingerprint, _) = seeds.identify(lock, name, {})
        right = np.ones(count, bool)
        right[list(rows)] = False
        scores = {"accuracy": float(right.mean()), "f1": float(right.mean())}
        row = {
            "model": name,
            "seed": seed,
            "train": train,
            "fingerprint": fingerprint,
            "device": "cpu, 2 threads",
            "precision": "fp32",
            "scores": dict.fromkeys(seeds.SPLITS, scores),
            "right": dict.fromkeys(seeds.SPLITS, right),
        }
        runs.append(seeds.Run(**row | changes))
    _json(path / seeds.PATH, {"rows": [seeds.row(run) for run in runs]})


def change(path: Path, file: str, **values) -> None:
    """Change values in a JSON file of the project."""
    content = json.loads((path / file).read_text())
    _json(path / file, content | values)


def _json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def _curves(directory: Path, epochs: int) -> None:
    for name, start in (("train/loss", 0.7), ("validation/loss", 0.7), ("validation/accuracy", 0)):
        file = directory / f"{name}.tsv"
        file.parent.mkdir(parents=True, exist_ok=True)
        key = name.partition("/")[2]
        rows = [f"{10 * epoch}\t{abs(start - 0.1 * epoch):.3f}" for epoch in range(1, epochs + 1)]
        file.write_text("\n".join([f"step\t{key}", *rows]) + "\n")


HOSTILE = [
    "<script>alert(1)</script> & <img src=x onerror=alert(2)> &amp; </td></table>",
    "| a pipe | *star* _under_ ~~gone~~ `code` ``` [link](javascript:alert(3)) ![i](http://x.y/z)",
    "www.example.com https://example.com someone@example.org @someone #12 :smile: $x^2$ <!-- no",
    "\u0641\u064a\u0644\u0645 \u0631\u0627\u0626\u0639 \u202e turned round",
    "\U0001f600 \U0001f3ac great \u65e5\u672c\u8a9e",
    "a line\nanother\tone\r\n# no heading\x07",
    "\\| escaped already \\",
    "long " * 4000,
    "unbroken" * 200,
]
HOSTILE_LABELS = ("neg|ative <b>", "neutral $x$", "sehr \U0001f600 *gut* [x](y)")


def write_hostile(path: Path) -> Path:
    """Write an experiment of three labels and few reviews that contain everything that could break
    a page, trained for one epoch.
    """
    texts = [*HOSTILE, *(f"review number {row}" for row in range(31))]
    everyone = list(range(len(HOSTILE)))
    wrong = {
        name: everyone + list(range(10 + number, 20 + number, 2))
        for number, name in enumerate(MODELS)
    }
    return write(path, wrong=wrong, labels=HOSTILE_LABELS, count=40, texts=texts, epochs=1)
