"""The collection of seeds: what a fingerprint covers, and which files are no collection."""

import copy
import json

import numpy as np
import pytest

from stages.lib.core.errors import InputError
from stages.lib.report import seeds

LOCK = {
    "download": {
        "cmd": "python -m stages.download",
        "deps": [{"path": "stages/download.py", "md5": "d"}],
        "params": {"params.yaml": {"source": "auto"}},
        "outs": [{"path": "data/raw", "md5": "raw"}, {"path": "data/backbone", "md5": "bert"}],
    },
    "tokenize": {
        "cmd": "python -m stages.tokenize",
        "deps": [{"path": "stages/tokenize.py", "md5": "t"}, {"path": "data/raw", "md5": "raw"}],
        "params": {"params.yaml": {"tokenize": {"max_length": 128}}},
        "outs": [{"path": "data/tokenized", "md5": "tokens"}],
    },
    "train-lora": {
        "cmd": "python -m stages.lora lora",
        "deps": [
            {"path": "stages/lora.py", "md5": "l"},
            {"path": "data/tokenized", "md5": "tokens"},
            {"path": "data/backbone", "md5": "bert"},
        ],
        "params": {"params.yaml": {"seed": 3, "lora": {"lr": 0.1}}, "libraries.yaml": {"peft": 1}},
        "outs": [{"path": "data/predictions/lora.csv", "md5": "p"}],
    },
}


def identify(*changes, reviews=None):
    """Identify lora after changes of the lock, given as stage, key and value."""
    lock = copy.deepcopy(LOCK)
    for stage, key, value in changes:
        lock[stage][key] = value
    return seeds.identify(lock, "lora", reviews or {})


def deps(stage, path, md5):
    """Change the hash of what a stage reads."""
    return [
        {**dep, "md5": md5} if dep["path"] == path else dep for dep in LOCK[stage]["deps"]
    ]  # fmt: skip


def test_the_seed_changes_no_fingerprint():
    fingerprint, seed = identify()
    assert seed == 3
    params = {"params.yaml": {"seed": 4, "lora": {"lr": 0.1}}, "libraries.yaml": {"peft": 1}}
    assert identify(("train-lora", "params", params)) == (fingerprint, 4)


@pytest.mark.parametrize(
    "changes",
    [
        [("train-lora", "cmd", "torchrun -m stages.lora lora")],
        [("train-lora", "deps", deps("train-lora", "stages/lora.py", "new"))],
        [("tokenize", "deps", deps("tokenize", "stages/tokenize.py", "new"))],
        [("tokenize", "params", {"params.yaml": {"tokenize": {"max_length": 64}}})],
        [
            (
                "train-lora",
                "params",
                {"params.yaml": {"seed": 3, "lora": {"lr": 0.2}}, "libraries.yaml": {"peft": 1}},
            )
        ],
        [
            ("download", "outs", [{"path": "data/raw", "md5": "new"}, LOCK["download"]["outs"][1]]),
            ("tokenize", "deps", deps("tokenize", "data/raw", "new")),
        ],
    ],
    ids=["command", "code", "code before", "parameter before", "parameter", "data"],
)
def test_anything_else_changes_it(changes):
    assert identify(*changes)[0] != identify()[0]


def test_how_the_same_data_came_in_changes_nothing():
    elsewhere = ("download", "params", {"params.yaml": {"source": "pypi"}})
    code = ("download", "deps", deps("download", "stages/download.py", "new"))
    assert identify(elsewhere, code) == identify()


def test_fewer_training_reviews_of_the_same_content_change_nothing():
    fewer = (
        ("download", "outs", [{"path": "data/raw", "md5": "few"}, LOCK["download"]["outs"][1]]),
        ("tokenize", "deps", deps("tokenize", "data/raw", "few")),
    )
    whole = identify(reviews={"content": "c"})
    assert identify(*fewer, reviews={"content": "c", "train": 100}) == whole
    assert identify(*fewer, reviews={"content": "other", "train": 100}) != whole


def test_a_model_that_was_not_trained_since_has_none():
    again = [{"path": "data/tokenized", "md5": "new"}]
    assert identify(("tokenize", "outs", again)) is None
    assert seeds.identify(LOCK, "svm", {}) is None
    assert seeds.identify({}, "lora", {}) is None


def test_a_model_that_reads_no_seed_has_a_fingerprint_alone():
    assert identify(("train-lora", "params", {"params.yaml": {"lora": {"lr": 0.1}}}))[1] is None


@pytest.mark.parametrize("count", [1, 8, 1061])
def test_packed_reviews_are_the_same_again(count):
    right = np.random.default_rng(count).random(count) < 0.8
    text = seeds.pack(right)
    assert np.array_equal(seeds.unpack(text, count), right)
    assert len(text) <= 4 * (count // 24 + 1)
    with pytest.raises(ValueError, match="bits for"):
        seeds.unpack(text, count + 8)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a collection of one run, and return its path and its row."""
    monkeypatch.chdir(tmp_path)
    right = np.arange(16) < 12
    scores = {split: {"accuracy": 0.75, "f1": 0.7} for split in seeds.SPLITS}
    by_split = dict.fromkeys(seeds.SPLITS, right)
    seeds.write([seeds.Run("lora", 3, 100, "abc", "cpu", "bf16", scores, by_split)])
    return seeds.PATH, json.loads(seeds.PATH.read_text())["rows"][0]


def test_what_is_written_is_read(written):
    (run,) = seeds.read()
    assert (run.model, run.seed, run.fingerprint, run.precision) == ("lora", 3, "abc", "bf16")
    assert run.train == 100
    assert run.scores["test"] == {"accuracy": 0.75, "f1": 0.7}
    assert run.right["validation"].sum() == 12


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", "metrics/seeds.json: not a collection of seeds"),
        ("[]", "metrics/seeds.json: not a collection of seeds"),
        ('{"rows": 3}', "metrics/seeds.json: not a collection of seeds"),
        ('{"rows": [3]}', "metrics/seeds.json: row 1 is damaged"),
        ('{"rows": [{"model": "svm"}]}', "metrics/seeds.json: row 1 is damaged"),
        (None, "metrics/seeds.json: no such file; restore it with 'git checkout metrics/seeds"),
    ],
)
def test_a_file_that_is_no_collection_is_one_line(written, text, line):
    path, _ = written
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(InputError, match=line):
        seeds.read()


def test_a_row_whose_parts_disagree_is_named(written):
    path, row = written
    bad = row | {"test": row["test"] | {"accuracy": 0.8}}
    path.write_text(json.dumps({"rows": [row, bad]}))
    with pytest.raises(InputError, match=r"row 2 is damaged .the accuracy on test is not that of"):
        seeds.read()
    bad = row | {"test": row["test"] | {"reviews": 99}}
    path.write_text(json.dumps({"rows": [bad]}))
    with pytest.raises(InputError, match=r"row 1 is damaged .16 bits for 99 reviews"):
        seeds.read()
