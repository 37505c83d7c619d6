"""commands.collecting: which runs metrics/seeds.json has, and what is said about the others."""

import numpy as np
import pytest

from commands import collecting
from stages.lib.core.errors import InputError
from stages.lib.report import seeds as collection
from stages.lib.report.seeds import SPLITS, Run


def a_run(model, seed, fingerprint, accuracy=0.5, train=100):
    right = np.arange(10) < 10 * accuracy
    scores = {"accuracy": float(right.mean()), "f1": 0.5}
    return Run(
        model=model,
        seed=seed,
        train=train,
        fingerprint=fingerprint,
        device="cpu",
        precision="fp32",
        scores=dict.fromkeys(SPLITS, scores),
        right=dict.fromkeys(SPLITS, right),
    )


def test_the_last_collected_run_of_a_seed_counts_and_what_is_outdated_goes():
    current = {"svm": "a", "lora": "b"}
    before = [a_run("svm", 0, "a"), a_run("svm", 1, "a"), a_run("lora", 0, "of another day")]
    collected = [a_run("lora", 1, "b"), a_run("svm", 1, "a", 0.7), a_run("gone", 0, "c")]
    collected.append(a_run("svm", 1, "a", train=30))
    merged = collecting.merge(before, collected, current)
    assert [(run.model, run.train, run.seed) for run in merged] == [
        ("svm", 30, 1), ("svm", 100, 0), ("svm", 100, 1), ("lora", 100, 1),
    ]  # fmt: skip
    assert merged[2].scores["test"]["accuracy"] == 0.7


def test_saving_says_what_is_there_and_what_is_left_out(tmp_path, monkeypatch, capsys):
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/seeds.json").write_text('{"rows": []}')
    monkeypatch.chdir(tmp_path)
    collecting.write([a_run("svm", 1, "a"), a_run("svm", 2, "a")], {"svm": "a"}, {"lora"})
    assert capsys.readouterr().err.splitlines() == [
        "runs in metrics/seeds.json now: 2 of svm; 'dvc repro report' uses them",
        "not saved: runs of lora whose code, data or parameters differ from those in dvc.lock; "
        "'dvc repro' brings dvc.lock up to date",
    ]
    collecting.write([], {"svm": "new"}, set())
    assert capsys.readouterr().err.splitlines() == [
        "removed: runs with earlier code, data or parameters, of svm",
        "runs in metrics/seeds.json now: none; 'dvc repro report' uses them",
    ]
    assert (tmp_path / "metrics/seeds.json").read_text() == '{\n  "rows": []\n}\n'


def test_of_two_experiments_with_one_seed_the_last_is_saved(monkeypatch):
    """DVC lists the last experiment first."""
    written = []
    monkeypatch.setattr(collecting, "write", lambda runs, *_: written.extend(runs))
    monkeypatch.setattr(collecting.metrics, "read", lambda *_: {})
    monkeypatch.setattr(collecting.declarations, "read_yaml", lambda _: {"stages": {}})
    monkeypatch.setattr(collecting.programs, "at", lambda *_: "{}")
    monkeypatch.setattr(collecting, "measured", lambda *_: ([{"model": "svm"}], set()))
    monkeypatch.setattr(collecting, "identities", lambda *_: {"svm": ("a", 1)})
    monkeypatch.setattr(
        collecting, "runs", lambda experiment, *_: [a_run("svm", 1, "a", experiment["accuracy"])]
    )
    experiments = [{"rev": "new", "accuracy": 0.7}, {"rev": "old", "accuracy": 0.5}]
    collecting.save(experiments, [{}, {}])
    (saved,) = collecting.merge([], written, {"svm": "a"})
    assert saved.scores["test"]["accuracy"] == 0.7


def test_runs_are_not_lost_while_the_lock_is_not_up_to_date(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics").mkdir()
    collection.write([a_run("lora", 1, "a")])
    before = collection.PATH.read_text()
    monkeypatch.setattr(collecting.metrics, "read", lambda path, kind: {"reviews": {}})
    (tmp_path / "dvc.lock").write_text("stages: {}\n")
    with pytest.raises(InputError, match=r"dvc.lock: lora: not up to date.*'dvc repro' first"):
        collecting.save([], [])
    assert collection.PATH.read_text() == before


def test_a_result_is_the_same_if_neither_a_parameter_nor_a_prediction_changed():
    """min_steps changes no prediction on all reviews, but those on a hundred."""

    def result(code="c0de", min_steps=300, md5="a"):
        out = {"path": "data/predictions/lora.csv", "md5": md5}
        deps = [{"path": "stages/lora.py", "md5": code}]
        params = {"params.yaml": {"min_steps": min_steps}}
        return collecting._result(
            {"train-lora": {"deps": deps, "params": params, "outs": [out]}}, "lora"
        )

    assert result() == result(code="new")
    assert result() != result(min_steps=500)
    assert result() != result(md5="b")
