"""Measure how far scores move with the number of threads.

python tests/threads.py 512    # reviews a split of the embedded source

Runs the pipeline with one thread and with two, and prints for each model the test accuracy of both,
the share of predictions that differ, and by how much scores do.
"""

import sys
import tempfile
from pathlib import Path

import pandas as pd
from conftest import Project


def run(directory: Path, threads: int, size: int) -> Project:
    """The pipeline on `size` reviews a split, with so many threads."""
    project = Project(directory / str(threads))
    project.set(source="pypi", dataset__subset=size)
    project.dvc("repro", OMP_NUM_THREADS=str(threads))
    return project


def compare(one: Project, two: Project, model: str) -> dict[str, str]:
    """Test accuracies, how many of all predictions differ, and by how much scores do."""
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
