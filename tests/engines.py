"""The scripts of docs/engines give the stage's vectors: `make test-engines`, in .venv-engines.

ENGINES names those that are tried.
"""

import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Project, use_small_data, write_reviews

COMMANDS = {
    "ray": ["python", "docs/engines/extract_with_ray.py"],
    "spark": ["spark-submit", "--master", "local[1]", "docs/engines/extract_with_spark.py"],
}
ENGINES = os.environ.get("ENGINES", " ".join(COMMANDS)).split()
# Other reviews share a batch than in the stage, which rounds other sums.
TOLERANCE = 1e-5


@pytest.fixture(scope="session")
def extracted(miniature, tmp_path_factory) -> Project:
    """A project up to its features, 300 reviews a split, with the test split in shards as well."""
    directory = tmp_path_factory.mktemp("extracted")
    project = Project(directory / "project")
    shutil.copytree(ROOT / "docs/engines", project.path / "docs/engines")
    use_small_data(project, write_reviews(directory / "reviews", 300), miniature)
    project.dvc("repro", "extract-cls-features")
    tokens = pq.read_table(project.path / "data/tokenized/test.parquet")
    (project.path / "shards").mkdir()
    for name, start, rows in (("a", 0, 50), ("b", 50, 200), ("c", 250, 50)):
        pq.write_table(tokens.slice(start, rows), project.path / f"shards/{name}.parquet")
    return project


def reviews(tokens, features):
    """Token ids, label and vector of each review, in the order of the token ids: engines keep none.

    Equal reviews stand beside each other, and have equal vectors.
    """
    columns = (column.to_pylist() for column in (tokens, features["label"], features["cls"]))
    rows = sorted(zip(*columns, strict=True))
    ids, labels, cls = zip(*rows, strict=True)
    return ids, labels, np.array(cls, np.float32)


@pytest.mark.parametrize("tokens", ["data/tokenized/test.parquet", "shards"])
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_gives_the_vectors_of_the_stage(engine, tokens, extracted, tmp_path, capsys):
    if engine == "spark" and not shutil.which("java"):
        assert not os.environ.get("REQUIRE_JAVA"), "no java"
        pytest.skip("Spark needs a Java runtime, such as Debian's default-jre-headless")
    output = str(tmp_path / "features")
    # The stage computes the vectors of the test split in float32, whatever `precision` is.
    command = [*COMMANDS[engine], tokens, output, "--precision", "fp32"]
    extracted.run("timeout", "300", *command, PYTHONPATH=".")
    written = pq.read_table(output)
    stage = pq.read_table(extracted.path / "data/features/test.parquet")
    input_ids = pq.read_table(extracted.path / "data/tokenized/test.parquet")["input_ids"]
    ids, labels, cls = reviews(written["input_ids"], written)
    wanted_ids, wanted_labels, wanted = reviews(input_ids, stage)
    assert (ids, labels) == (wanted_ids, wanted_labels)
    difference = np.abs(cls - wanted).max()
    with capsys.disabled():
        print(f"\n{engine}, {tokens}: {len(cls)} vectors, largest difference {difference:.1e}")
    assert difference <= TOLERANCE
