"""Measure how much scores change with the number of threads.

python tests/threads.py 512    # reviews per split of the embedded source

Runs the pipeline with one thread and with two, and prints for each model the test accuracy of both
runs, the share of predictions that differ, and the largest difference of scores.
"""

import sys
import tempfile
from pathlib import Path

import pandas as pd
from conftest import Project


def run(directory: Path, threads: int, size: int) -> Project:
    """Run the pipeline on `size` reviews per split, with this many threads."""
    project = Project(directory / str(threads))
    project.set(source="pypi", dataset__subset=size)
    project.dvc("repro", OMP_NUM_THREADS=str(threads))
    return project


def compare(one: Project, two: Project, model: str) -> dict[str, str]:
    """Compare test accuracies, the share of all predictions that differ, and the scores."""
    scores = [project.read(f"metrics/{model}.json")["test"]["accuracy"] for project in (one, two)]
    tables = [pd.read_csv(project.path / f"data/predictions/{model}.csv") for project in (one, two)]
    differ = (tables[0]["prediction"] != tables[1]["prediction"]).mean()
    largest = (tables[0]["score"] - tables[1]["score"]).abs().max()
    return {
        "one thread": f"{scores[0]:.4f}",
        "two": f"{scores[1]:.4f}",
        "predictions that differ": f"{differ:.2%}",
        "largest difference of a score": f"{largest:.1g}",
    }


def main(size: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        one, two = (run(Path(directory), threads, size) for threads in (1, 2))
        rows = {model: compare(one, two, model) for model in one.read("dvc.yaml")["artifacts"]}
    print(pd.DataFrame.from_dict(rows, orient="index").to_markdown())


if __name__ == "__main__":
    main(int(sys.argv[1]))
