"""Benchmark the stages against the tutorials' way: make bench.

    python -m bench [--rounds 1] [--reviews 768] [--only SECTION ...] [--compare]

Each comparison runs our stage and then what a user would write instead (bench/theirs.py), `rounds`
times, on the same reviews with the same batch size and epochs, each in its own process. Writes
metrics/bench.json and metrics/bench.md, where the figures of each machine and precision stand side
by side. With --compare, nothing is written: the figures are compared with the written ones of this
machine. Temporary files go to tmp/bench. data/raw and data/backbone must exist (dvc repro
download).
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench import cache, compare, corpus, markdown, project
from stages.lib.core import outputs
from stages.lib.core.paths import SPLITS
from stages.lib.encoder import precision

# Sections of `--compare`: how fast the code is, apart from the machine.
COMPARED = ["roofline", "embedded"]

WORK = Path("tmp/bench").resolve()
RESULTS = Path("metrics/bench.json")
REPORT = Path("metrics/bench.md")
SECTIONS = {
    "embedded": "each stage against the tutorials' way, on the backbone of data/backbone",
    "all": "the stages that are too quick to time on a part of the reviews, on all of them",
    "base": "the comparisons of embedded, with DistilBERT-base's shapes and random weights",
    "dag": "dvc repro of all models against the sum of the tutorials' way",
    "roofline": "FLOP/s relative to those of a matrix product",
    "stages": "whole training stages relative to their bare steps",
    "precision": "the matrix product in each precision, and whether auto is right",
    "growth": "time and memory of the stages before training at ten times the data",
    "growth-full": "the same of full fine-tuning",
    "growth-lora": "the same of LoRA",
    "memory": "peak memory by stage and precision",
    "corpus": "time and memory of the stages before the networks at 50,000 and 1,000,000 reviews",
    "cache": "DVC's hashing, copies and links of a gigabyte",
    "nothing": "dvc repro with nothing to do, against dvc status",
    "sizes": "speed and memory of steps at growing batch sizes",
    "scores": "test accuracies of ours and theirs on all reviews, over seeds",
    "repro": "dvc repro on all reviews as committed, and what its stages report",
}
# Sections that run only when they are asked for: they train on all reviews for many minutes.
ASKED = ("scores", "repro")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--reviews",
        type=int,
        default=768,
        help="training reviews (all, roofline, stages, sizes, scores and repro use every review)",
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS)
    parser.add_argument("--compare", action="store_true", help="say what fell by more than 10%%")
    args = parser.parse_args()
    sections = args.only or (
        COMPARED if args.compare else [name for name in SECTIONS if name not in ASKED]
    )
    if not all(map(Path.is_file, raw().values())) or not Path("data/backbone").is_dir():
        sys.exit("error: data/raw or data/backbone does not exist: run 'dvc repro download'")

    machines: dict[str, Any] = (
        json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    )
    here = compare.machine()
    key = f"{here['device']}, {here['precision']}"
    if args.compare and key not in machines:
        sys.exit(f"error: {RESULTS} has no figures of {key}: run 'make bench' here first")
    before = machines.get(key, {})
    # Figures of other machines and of other sections stay.
    machines[key] = results = before | {"machine": here}
    # Sections that do not depend on the number of reviews and of rounds.
    alone: dict[str, Callable[[], dict[str, Any]]] = {
        "corpus": lambda: corpus.measure(WORK),
        "precision": compare.products,
        "stages": lambda: compare.stages(tokenized("embedded")),
        "scores": lambda: compare.scores(
            as_committed("scores"), args.rounds, before.get("scores", {})
        ),
        "repro": lambda: compare.repro(as_committed("repro")),
    }
    for section in sections:
        print(f"{section}: {SECTIONS[section]}", file=sys.stderr)
        results[section] = {
            "date": datetime.now(timezone.utc).date().isoformat(),
            **({} if section in alone else {"reviews": args.reviews}),
            **(alone[section]() if section in alone else run(section, args.rounds, args.reviews)),
        }
        if not args.compare:
            # Write after each section, so that a run that is stopped loses nothing.
            outputs.write_json(RESULTS, machines)
            with outputs.replacing(REPORT) as aside:
                aside.write_text(markdown.write(machines), encoding="utf-8")
    if args.compare:
        fell = compare.fell(before, results)
        print("\n".join(fell) or "nothing fell by more than 10%")
        sys.exit(1 if fell else 0)
    print(REPORT.read_text(encoding="utf-8"))


def raw() -> dict[str, Path]:
    """Return the files of data/raw by split."""
    return {split: project.ROOT / "data/raw" / f"{split}.parquet" for split in SPLITS}


def all_reviews() -> Path:
    """Write a sample of all reviews, because batches of more reviews need less padding."""
    sizes = {split: pq.read_metadata(file).num_rows for split, file in raw().items()}
    return project.sample(WORK / "all-reviews", sizes)


def backbone(shape: str) -> Path:
    """Return the backbone of random weights for `base`, otherwise that of data/backbone."""
    if shape == "base":
        return project.base_shapes(WORK / "base-shapes")
    return project.ROOT / "data/backbone"


def as_committed(name: str) -> project.Project:
    """Make a project with all reviews and the committed parameters."""
    reviews = project.ROOT / "data/raw"
    return project.Project(WORK / name, reviews, backbone("embedded"), min_steps=None)


@functools.cache
def tokenized(shape: str) -> project.Project:
    """Make a project with all reviews tokenized, for the backbone `embedded` or `base`."""
    there = project.Project(WORK / f"steps-{shape}", all_reviews(), backbone(shape))
    for stage in ("download", "tokenize"):
        there.module(f"stages.{stage}")
    return there


def run(section: str, rounds: int, reviews: int) -> dict[str, Any]:
    """Measure the figures of a section."""
    embedded = backbone("embedded")
    if section == "all":
        return compare.sides(
            project.Project(WORK / section, all_reviews(), embedded),
            rounds,
            compare.QUICK,
            epochs=3,
        )
    if section in ("roofline", "sizes"):
        # On a CPU, large batches of DistilBERT-base's shapes would take many minutes.
        both = section == "roofline" or precision.device().type != "cpu"
        shapes = ("embedded", "base") if both else ("embedded",)
        return {shape: compare.steps(tokenized(shape), section) for shape in shapes} | {
            "of_all_lengths": pq.read_metadata(raw()["train"]).num_rows
        }
    if section in ("embedded", "base", "dag"):
        # DistilBERT-base computes four times as much per token, and with random weights the scores
        # mean nothing, so fewer reviews are used.
        train = reviews // 6 if section == "base" else reviews
        splits = {"train": train, "validation": min(train, 128), "test": min(train, 384)}
        data = project.sample(WORK / f"reviews-{section}", splits)
        there = project.Project(WORK / section, data, backbone(section))
        measure = compare.dag if section == "dag" else compare.sides
        return measure(there, rounds)
    if section in compare.GROWING:
        # Use more reviews than a pool of batches holds; otherwise the longest batch, which sets the
        # peak memory, would be shorter at x1.
        reviews = max(reviews, 2048)
    splits = {"train": reviews, "validation": min(256, reviews), "test": min(256, reviews)}
    data = project.sample(WORK / "reviews", splits)
    if section in compare.GROWING:
        large = project.sample(WORK / "reviews-x10", splits, times=10)
        return compare.growth(
            project.Project(WORK / "x1", data, embedded),
            project.Project(WORK / "x10", large, embedded),
            compare.GROWING[section],
        )
    there = project.Project(WORK / section, data, embedded)
    if section == "nothing":
        return compare.nothing(there, rounds)
    return cache.measure(there) if section == "cache" else compare.memory(there)


if __name__ == "__main__":
    main()
