"""Data that do not fit: the peak of a stage's memory is that of a tenth of the data."""

import json
import os
import sys

import numpy as np
import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from stages.lib import features
from stages.lib.splits import SPLITS

SMALL, LARGE = 5_000, 50_000
DIM = 256


def peak(path, code):
    """Runs Python code in a process of its own, in the project at `path`; peak memory in MB."""
    done = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", f"import os; os.chdir({str(path)!r}); {code}"],
        os.environ | {"PYTHONPATH": str(ROOT)},
    )
    _, status, usage = os.wait4(done, 0)
    assert status == 0
    return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def project(directory, **changes):
    """params.yaml with changes of the section `dataset`, and nothing else."""
    directory.mkdir()
    yaml = YAML()
    content = yaml.load(ROOT / "params.yaml")
    content["dataset"].update(changes)
    yaml.dump(content, directory / "params.yaml")
    return directory


def write_features(path, count):
    """Two labels that no line parts, one after the other."""
    directory = path / "data/features"
    (path / "data/backbone").mkdir(parents=True)
    directory.mkdir()
    about = {"labels": ["bad", "good"], "reviews": {"source": "local"}, "max_length": 8}
    about |= {"source": "local", "sha256": "0"}  # what the backbone's has
    for folder in (directory, path / "data/backbone"):
        (folder / "about.json").write_text(json.dumps(about))
    random = np.random.default_rng(0)
    direction = random.normal(size=DIM) / DIM**0.5
    for split in SPLITS:
        labels = np.arange(count) * 2 // count
        with features.writing(directory / f"{split}.parquet", DIM) as append:
            for numbers in np.array_split(labels, count // 1000):
                noise = random.normal(size=(len(numbers), DIM))
                append((noise + (2 * numbers[:, None] - 1) * direction).astype("f4"), numbers)


@pytest.fixture(scope="module")
def svms(tmp_path_factory):
    """Projects in which the SVM has run with no vectors in memory, and its peaks, by reviews."""
    ran = {}
    for count in (SMALL, LARGE):
        path = project(tmp_path_factory.mktemp("svm") / "project")
        write_features(path, count)
        code = "from stages import svm; svm.IN_MEMORY = 0; svm.main()"
        ran[count] = path, peak(path, code)
    return ran


def test_the_svm_takes_no_more_memory_for_more_reviews(svms):
    assert svms[LARGE][1] < 1.1 * svms[SMALL][1]


def test_the_svm_of_blocks_scores_what_linear_svc_scores(svms, monkeypatch):
    from stages import svm

    path, _ = svms[SMALL]
    monkeypatch.chdir(path)
    files = ("metrics/svm.json", "data/predictions/svm.csv")
    blocks, streamed = (json.loads((path / files[0]).read_text()), (path / files[1]).read_bytes())
    assert 0.75 < blocks["test"]["accuracy"] < 0.95
    monkeypatch.setattr(svm, "IN_MEMORY", 0)
    svm.main()
    assert (path / files[1]).read_bytes() == streamed
    monkeypatch.setattr(svm, "IN_MEMORY", SMALL)
    svm.main()
    whole = json.loads((path / files[0]).read_text())
    for split in ("validation", "test"):
        assert abs(whole[split]["accuracy"] - blocks[split]["accuracy"]) < 0.005
