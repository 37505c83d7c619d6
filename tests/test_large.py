"""Data that do not fit into memory: a stage's peak memory does not grow with the data."""

import json
import os
import subprocess
import sys

import experiment
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from bench.project import LAUNCHER
from stages.lib.core.paths import SPLITS
from stages.lib.vectors import features

SMALL, LARGE = 5_000, 50_000
DIM = 256


def peak(path, code):
    """Run Python code in a new process, in the project at `path`; returns its peak memory."""
    command = [sys.executable, "-c", LAUNCHER, "peak", sys.executable, "-c", code]
    subprocess.run(command, cwd=path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    return int((path / "peak").read_text())


def project(directory, **changes):
    """Write a params.yaml with these changes in the section `dataset`, and nothing else."""
    directory.mkdir()
    yaml = YAML()
    content = yaml.load(ROOT / "params.yaml")
    content["dataset"].update(changes)
    yaml.dump(content, directory / "params.yaml")
    return directory


def write_reviews(directory, count):
    """Write numbered files of distinct reviews for each split, with three labels."""
    directory.mkdir()
    words = ["dull", "great", "so so"]
    for split in SPLITS:
        for shard, rows in enumerate(np.array_split(np.arange(count), 3)):
            texts = [f"{split} {row}: a {words[row % 3]} film, {'very ' * 20}" for row in rows]
            table = pa.table({"text": texts, "label": [words[row % 3] for row in rows]})
            pq.write_table(table, directory / f"{split}-{shard:05}-of-00003.parquet")


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """Projects that have read local reviews, and their peak memory, by number of reviews."""
    ran = {}
    # There is no backbone to check, and torch would hide how the rest grows.
    code = "import sys, types; from stages import download; from stages.lib.schema import params; "
    code += "download.get_backbone = lambda *_: {'source': 'local'}; "
    code += "check = types.SimpleNamespace(check=lambda *_: []); "
    code += "sys.modules['stages.lib.encoder.compatibility'] = check; "
    code += "params.check_targets = lambda *_: None; "
    for count in (4 * SMALL, 4 * LARGE):
        directory = tmp_path_factory.mktemp("download")
        write_reviews(directory / "reviews", count)
        path = project(directory / "project", path=str(directory / "reviews"))
        ran[count] = path, peak(path, code + "download.main()")
    return ran


def test_download_takes_no_more_memory_for_more_reviews(downloads):
    assert downloads[4 * LARGE][1] < 1.15 * downloads[4 * SMALL][1]


def test_no_review_is_lost_on_the_way(downloads):
    path, _ = downloads[4 * LARGE]
    facts = json.loads((path / "metrics/download.json").read_text())
    for split in SPLITS:
        table = pq.read_table(path / f"data/raw/{split}.parquet")
        texts = table["text"].to_pylist()
        assert [int(text.split()[1][:-1]) for text in texts] == list(range(4 * LARGE))
        assert table["label"].to_pylist()[:6] == [0, 1, 2, 0, 1, 2]
        assert facts[split]["reviews"] == 4 * LARGE
        assert facts[split]["duplicates"] == 0
    assert facts["reviews"]["labels"] == {name: name for name in ("dull", "great", "so so")}
    assert sorted(facts["reviews"]["sha256"])[0] == "test-00000-of-00003.parquet"


def write_features(path, count):
    """Write features of two labels that no plane separates, sorted by label."""
    directory = path / "data/features"
    (path / "data/backbone").mkdir(parents=True)
    directory.mkdir()
    about = {"labels": ["bad", "good"], "reviews": {"source": "local"}, "max_length": 8}
    about |= {"source": "local", "sha256": "0"}  # as in the backbone's about.json
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
    """Projects in which the SVM ran with no vectors in memory, and its peaks, by reviews."""
    ran = {}
    for count in (SMALL, LARGE):
        path = project(tmp_path_factory.mktemp("svm") / "project")
        write_features(path, count)
        code = "from stages import svm; svm.IN_MEMORY = 0; svm.main()"
        ran[count] = path, peak(path, code)
    return ran


def test_the_svm_takes_no_more_memory_for_more_reviews(svms):
    assert svms[LARGE][1] < 1.1 * svms[SMALL][1]


def accuracies(file):
    """Return the share of right predictions by split."""
    table = pd.read_csv(file)
    return (table["label"] == table["prediction"]).groupby(table["split"]).mean()


def test_the_svm_of_blocks_scores_what_linear_svc_scores(svms, monkeypatch):
    from stages import svm

    path, _ = svms[SMALL]
    monkeypatch.chdir(path)
    file = path / "data/predictions/svm.csv"
    streamed, blocks = file.read_bytes(), accuracies(file)
    assert 0.75 < blocks["test"] < 0.95
    monkeypatch.setattr(svm, "IN_MEMORY", 0)
    svm.main()
    assert file.read_bytes() == streamed
    monkeypatch.setattr(svm, "IN_MEMORY", SMALL)
    svm.main()
    whole = accuracies(file)
    for split in ("validation", "test"):
        assert abs(whole[split] - blocks[split]) < 0.005


def test_a_report_of_many_reviews_is_no_larger_than_one_of_few(tmp_path):
    """Lists are cut and pictures have bins; time and memory stay in proportion."""
    sizes, peaks = {}, {}
    for count in (1_000, 50_000):
        path = project(tmp_path / f"{count}")
        wrong = {
            name: range(number, count, 5 + number) for number, name in enumerate(experiment.MODELS)
        }
        experiment.write(path, wrong=wrong, count=count)
        peaks[count] = peak(path, "from stages import report; report.main()")
        sizes[count] = sum(
            (path / f"metrics/report.{kind}").stat().st_size for kind in ("html", "md")
        )
    assert sizes[50_000] < 1.1 * sizes[1_000]
    assert peaks[50_000] < 1.6 * peaks[1_000]
