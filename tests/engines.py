"""The scripts of docs/engines give the stage's vectors: `make test-engines`, in .venv-engines.

ENGINES names those that are tried.
"""

import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Project, use_small_data, write_reviews
from test_docs import BLOCK, commands

ENGINES = os.environ.get("ENGINES", "ray spark").split()
# Reviews share batches with other reviews than in the stage, so sums are rounded differently.
TOLERANCE = 1e-5


@pytest.fixture(scope="session", params=ENGINES)
def engine(request) -> str:
    """The engine's name; Spark is skipped without Java, or fails under REQUIRE_JAVA=1."""
    if request.param == "spark" and not shutil.which("java"):
        assert not os.environ.get("REQUIRE_JAVA"), "no java here, and REQUIRE_JAVA is set"
        pytest.skip("Spark needs a Java runtime, such as Debian's default-jre-headless")
    return request.param


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


def typed(engine, tokens, features):
    """Return the command that docs/scale.md gives for an engine, with other files.

    The stage computes the vectors of the test split in float32, whatever `precision` is.
    """
    lines = [
        command.line
        for block in BLOCK.finditer((ROOT / "docs/scale.md").read_text())
        if block["kind"] == "console"
        for command in commands(block["text"])
        if f"extract_with_{engine}.py" in command.line
    ]
    assert len(lines) == 1
    start, files, end = lines[0].partition("data/tokenized/train.parquet features")
    assert files and not end
    return f"{start}{tokens} {features} --precision fp32"


def reviews(tokens, features):
    """Token ids, label and vector of each review, in the order of the token ids: engines keep none.

    Equal reviews stand beside each other, and have equal vectors.
    """
    columns = (column.to_pylist() for column in (tokens, features["label"], features["cls"]))
    rows = sorted(zip(*columns, strict=True))
    ids, labels, cls = zip(*rows, strict=True)
    return ids, labels, np.array(cls, np.float32)


@pytest.mark.parametrize("tokens", ["data/tokenized/test.parquet", "shards"])
def test_an_engine_gives_the_vectors_of_the_stage(engine, tokens, extracted, tmp_path, capsys):
    output = str(tmp_path / "features")
    extracted.run("timeout", "300", "bash", "-c", typed(engine, tokens, output))
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
