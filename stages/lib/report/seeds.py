"""Runs with other seeds or fewer training reviews: the collection in metrics/seeds.json, and which
of its rows count."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.lib.core import outputs
from stages.lib.core.errors import InputError
from stages.lib.core.manifest import Provenance
from stages.lib.core.metrics import Download, Score, Scores
from stages.lib.core.paths import METRICS, PREDICTIONS, RAW

PATH = METRICS / "seeds.json"
SPLITS = ("validation", "test")
SCORES: tuple[Score, ...] = ("accuracy", "f1")
QUEUE = "dvc exp run --queue -S 'seed=0,1,2,3,4'"
# The commands that add seeds to the report, or renew them after a change.
COMMANDS = (QUEUE, "dvc queue start", "python -m commands.seeds --save", "dvc repro report")
KEEP = "python -m commands.seeds --keep"

Json = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One model trained with one seed on `train` reviews.

    `scores` has SCORES by split, and `right`, also by split, tells which reviews the model gets
    right (bool [reviews]), so that runs can be compared review by review.
    """

    model: str
    seed: int
    train: int
    fingerprint: str
    device: str
    precision: str
    scores: dict[str, Scores]
    right: dict[str, np.ndarray]


@dataclass(frozen=True)
class Seeds:
    """The runs of each model: the seed of the last one (None if it has none), `others` with as many
    training reviews, and `curve` with another number of them. `unused` is the number of collected
    rows that do not count, by model."""

    last: dict[str, int | None]
    others: dict[str, list[Run]]
    curve: dict[str, list[Run]]
    unused: dict[str, int]


def upstream(lock: Json, name: str) -> Json | None:
    """Return the entries of dvc.lock for a stage and the stages before it, by name.

    Returns None if one of these stages ran again without those that depend on it.
    """
    made_by = producers(lock)
    found: Json = {}
    todo = [name]
    while todo:
        name = todo.pop()
        found[name] = lock[name]
        for dep in lock[name].get("deps", []):
            if producer := made_by.get(dep["path"]):
                if dep not in lock[producer]["outs"]:
                    return None
                todo.append(producer)
    return found


def producers(lock: Json) -> dict[str, str]:
    """Return the name of the stage that writes each output, by path."""
    return {out["path"]: name for name, stage in lock.items() for out in stage.get("outs", [])}


def identify(lock: Json, model: str, reviews: Provenance) -> tuple[str, int | None] | None:
    """Return a fingerprint of what a model's predictions depend on, except seed and number of
    training reviews, and the seed.

    `lock` are the stages of dvc.lock, and `reviews` is the provenance of the reviews; the seed is
    None if no stage reads it. The fingerprint covers command, code and parameters of the stage that
    writes the predictions and of the stages before it. The first stage of a chain is represented by
    the data that it made, because the same parameters can give other data (`source: auto`), and
    other parameters the same. Reviews are represented by their content before `dataset.train` of
    them are chosen. Returns None if the model was not trained, or if a stage that it depends on ran
    again since then.
    """
    made_by = producers(lock)
    last = made_by.get(f"{PREDICTIONS}/{model}.csv")
    chain = upstream(lock, last) if last else None
    if not chain:
        return None
    later = [
        name
        for name, stage in chain.items()
        if name == last or any(dep["path"] in made_by for dep in stage.get("deps", []))
    ]
    used: Json = {}
    seed = None
    for name in later:
        deps = {dep["path"]: dep.get("md5") for dep in chain[name].get("deps", [])}
        if str(RAW) in deps and "content" in reviews:
            deps[str(RAW)] = reviews["content"]
        files = {path: md5 for path, md5 in deps.items() if made_by.get(path) not in later}
        params = {file: dict(values) for file, values in chain[name].get("params", {}).items()}
        seed = params.get("params.yaml", {}).pop("seed", seed)
        used[name] = [chain[name]["cmd"], files, params]
    text = json.dumps(used, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16], seed


def group(runs: Sequence[Run], lock: Json, models: Sequence[str], download: Download) -> Seeds:
    """Group the collected runs: those of the models in dvc.lock with another seed, those with
    another number of training reviews, and those that do not count.

    A run with the seed of the last run is neither used nor unused, because it is the same run. The
    same is true of every run of a model that reads no seed, if it has the same number of training
    reviews. Runs of models that are no longer in dvc.yaml are ignored.
    """
    known = {name: identify(lock, name, download["reviews"]) or ("", None) for name in models}
    last = {name: seed for name, (_, seed) in known.items()}
    others: dict[str, list[Run]] = {name: [] for name in models}
    curve: dict[str, list[Run]] = {name: [] for name in models}
    unused: Counter[str] = Counter()
    for run in runs:
        if run.model not in known:
            continue
        if known[run.model][0] != run.fingerprint:
            unused[run.model] += 1
        elif run.train != download["train"]["reviews"]:
            if all((run.train, run.seed) != (one.train, one.seed) for one in curve[run.model]):
                curve[run.model].append(run)
        else:
            there = {last[run.model], *(other.seed for other in others[run.model])}
            if None not in there and run.seed not in there:
                others[run.model].append(run)
    return Seeds(last, others, curve, dict(unused))


def pack(right: np.ndarray) -> str:
    """Pack which reviews are right (bool [reviews]) into text, six reviews per character."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpack(text: str, count: int) -> np.ndarray:
    """Undo `pack` for `count` reviews. Raises ValueError if the text has more or fewer."""
    packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    if len(packed) != -(-count // 8):
        raise ValueError(f"{8 * len(packed):,} bits for {count:,} reviews")
    return np.unpackbits(packed, count=count).astype(bool)


def write(runs: Sequence[Run]) -> None:
    """Write the collection, whole or not at all."""
    outputs.write_json(PATH, {"rows": [row(run) for run in runs]})


def row(run: Run) -> Json:
    """Return a run as a row of the collection."""
    by_split = {
        split: {"reviews": len(run.right[split])}
        | {score: round(run.scores[split][score], 6) for score in SCORES}
        | {"right": pack(run.right[split])}
        for split in SPLITS
    }
    return {
        "model": run.model,
        "seed": run.seed,
        "train": run.train,
        "fingerprint": run.fingerprint,
        "device": run.device,
        "precision": run.precision,
        **by_split,
    }


def read(path: Path = PATH) -> list[Run]:
    """Read the collection. Raises InputError, with the row's number, for what is not one."""
    again = f"restore it with 'git checkout {path}', or collect it again"
    try:
        rows = list(json.loads(path.read_text(encoding="utf-8"))["rows"])
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {again}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a collection of seeds ({error}); {again}") from None
    runs = []
    for number, row in enumerate(rows, start=1):
        try:
            runs.append(_run(row))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: row {number} is damaged ({error}); {again}") from None
    return runs


def _run(row: Json) -> Run:
    right = {split: unpack(row[split]["right"], row[split]["reviews"]) for split in SPLITS}
    scores: dict[str, Scores] = {
        split: {"accuracy": float(row[split]["accuracy"]), "f1": float(row[split]["f1"])}
        for split in SPLITS
    }
    for split in SPLITS:
        if abs(right[split].mean() - scores[split]["accuracy"]) > 1e-6:
            raise ValueError(f"the accuracy on {split} is not that of its reviews")
    return Run(
        model=str(row["model"]),
        seed=int(row["seed"]),
        train=int(row["train"]),
        fingerprint=str(row["fingerprint"]),
        device=str(row["device"]),
        precision=str(row["precision"]),
        scores=scores,
        right=right,
    )
