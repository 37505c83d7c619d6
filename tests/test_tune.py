"""commands.tune: proposals, what a search keeps, what it refuses, and a real search."""

import json
import re
import signal
import sys
import time
from types import SimpleNamespace

import pytest
from ruamel.yaml import YAML
from workspace import start

from commands import ranges, trials, tune
from stages.lib.core.errors import InputError

SECTION = {"lr": {"low": 1e-4, "high": 1e-1, "log": True}, "r": {"choices": [4, 8, 16]}}
TODAY = {"lr": 2e-3, "r": 8}


class Fake:
    """What runs the experiments of a search in these tests: scores by a formula."""

    def __init__(self, project, fail=(), stop=0):
        self.project, self.fail, self.stop = project, fail, stop
        self.ran = []

    def __call__(self, model, name, changes):
        self.ran.append((name, changes))
        if len(self.ran) == self.stop:
            raise KeyboardInterrupt
        if len(self.ran) in self.fail:
            raise trials.Failed("out of memory")
        head = self.project.git("rev-parse", "HEAD").strip()
        self.project.git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", head)
        return 0.5 + (TODAY | changes)["lr"], 100.0


@pytest.fixture
def search(project, monkeypatch, capsys):
    """A function that searches with a fake runner; returns it and the lines printed."""
    monkeypatch.chdir(project.path)
    (project.path / "dvc.lock").write_text("schema: '2.0'\n")
    write_ranges(project, lora=SECTION)
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "ready")
    monkeypatch.setattr(tune, "depends_on", lambda model: {"code": "c0de", "lora.epochs": 3})

    def run(wanted=5, model="lora", **accidents):
        fake = Fake(project, **accidents)
        monkeypatch.setattr(trials, "run", fake)
        try:
            tune.search(model, wanted)
        finally:
            fake.lines = capsys.readouterr().out.splitlines()
        return fake

    run.project = project
    return run


def write_ranges(project, **sections):
    with (project.path / "tuning.yaml").open("w") as file:
        YAML().dump({name.replace("_", "-"): section for name, section in sections.items()}, file)


def commit(project, path, text):
    (project.path / path).write_text(text)
    project.git("add", path)
    project.git("commit", "--quiet", "--message", "change")


def test_the_first_trial_has_the_values_of_params_and_the_others_are_in_the_ranges(search):
    fake = search(5)
    names, changes = zip(*fake.ran, strict=True)
    assert names == tuple(f"tune-lora-00{number}" for number in range(1, 6))
    assert changes[0] == {}
    for values in changes[1:]:
        assert 1e-4 <= values["lr"] <= 1e-1
        assert values["lr"] == float(f"{values['lr']:.3g}")
        assert values["r"] in (4, 8, 16)
    assert len({json.dumps(values) for values in changes}) == 5


def test_proposals_follow_the_scores():
    from optuna.distributions import FloatDistribution
    from optuna.trial import create_trial

    space = {"lr": FloatDistribution(1e-4, 1e-1, log=True)}

    def proposed(score):
        done = [
            create_trial(params={"lr": lr}, distributions=space, value=score * lr)
            for lr in (1e-4 * 1.4**step for step in range(20))
        ]
        return tune._propose(space, done)["lr"]

    assert proposed(-1) < 1e-3
    assert proposed(1) > 1e-2


def test_a_line_for_each_trial_has_values_accuracy_best_and_time_left(search):
    lines = search(3).lines
    assert lines[0] == "lora: 3 trials; judged by validation accuracy"
    assert lines[1] == "tune-lora-001  lr=0.002 r=8  0.5020  best 0.5020  about 3.3 min left"
    assert re.fullmatch(
        r"tune-lora-003  lr=\S+ r=\d+  0\.\d{4}  best 0\.\d{4}", lines[3]
    )  # none left


def test_the_end_has_the_best_trials_and_the_command_that_applies_the_best(search):
    fake = search(5)
    best = max(fake.ran[1:], key=lambda ran: ran[1]["lr"])[0]
    table = fake.lines[7:-4]
    assert fake.lines[6] == ""
    assert table[0].split() == ["experiment", "val.", "accuracy", "lr", "r"]
    assert table[1].split()[0] == best
    scores = [float(row.split()[1]) for row in table[1:]]
    assert scores == sorted(scores, reverse=True)
    assert fake.lines[-3].startswith(f"{best} has {scores[0]:.4f}, the values of params.yaml have")
    assert fake.lines[-2] == f"    dvc exp apply {best}"


def test_where_no_trial_is_better_nothing_is_to_apply(search):
    write_ranges(search.project, lora=SECTION | {"lr": {"low": 1e-4, "high": 2e-3, "log": True}})
    search.project.git("commit", "--quiet", "--all", "--message", "lower")
    last = search(4).lines[-1]
    assert last.startswith("tune-lora-001 has the values of params.yaml, and no trial is better")


def test_an_interrupted_search_continues_as_if_it_had_not_been(search):
    whole = search(6).ran
    (search.project.path / "tmp/tuning/lora.log").unlink()
    for ref in search.project.git("for-each-ref", "--format=%(refname)", "refs/exps").split():
        search.project.git("update-ref", "-d", ref)
    ran = []
    for stop in (1, 3, 2):
        with pytest.raises(KeyboardInterrupt):
            search(6, stop=stop)
        ran += trials.run.ran[:-1]
    fake = search(6)
    assert fake.lines[0] == "lora: continues after 3 of 6 trials; judged by validation accuracy"
    assert ran + fake.ran == whole


def test_a_finished_search_runs_nothing_and_a_larger_one_extends_it(search):
    first = search(3)
    again = search(3)
    assert again.ran == []
    assert again.lines[0].startswith("lora: all 3 trials are done")
    assert again.lines[1:] == first.lines[4:]
    assert [name for name, _ in search(4).ran] == ["tune-lora-004"]


def test_values_that_are_new_in_params_are_tried_before_more_is_proposed(search):
    search(3)
    search.project.set(lora__lr=0.05)
    search.project.git("commit", "--quiet", "--all", "--message", "other values")
    fake = search(4)
    assert fake.ran[0] == ("tune-lora-004", {})
    assert fake.lines[1].startswith("tune-lora-004  lr=0.05 r=8")


def test_values_that_are_new_in_params_are_no_obstacle_where_all_trials_are_done(search):
    search(3)
    search.project.set(lora__lr=0.05)
    search.project.git("commit", "--quiet", "--all", "--message", "other values")
    assert re.fullmatch(r"tune-lora-00\d has 0\.\d{4}; to apply it:", search(3).lines[-3])


def test_a_list_in_params_is_the_first_trial_and_no_obstacle(search):
    write_ranges(search.project, svm={"C": {"low": 1e-4, "high": 1.0, "log": True}})
    search.project.git("commit", "--quiet", "--all", "--message", "svm")
    fake = search(3, model="svm")
    assert fake.ran[0] == ("tune-svm-001", {})
    assert fake.lines[1].startswith("tune-svm-001  C=[0.0003, 0.001, ")
    assert all(1e-4 <= changes["C"] <= 1 for _, changes in fake.ran[1:])


def test_a_failed_trial_is_said_in_a_line_and_the_search_goes_on(search):
    fake = search(5, fail=[2, 3])
    assert re.fullmatch(r"tune-lora-002  lr=\S+ r=\d+  failed: out of memory", fake.lines[2])
    assert [name for name, _ in fake.ran] == [f"tune-lora-00{number}" for number in range(1, 6)]
    assert fake.ran[1][1] != fake.ran[2][1]


def test_three_failed_trials_in_a_row_end_the_search(search):
    with pytest.raises(InputError, match="3 trials in a row failed, so the search stops; see"):
        search(9, fail=[2, 4, 5, 6])
    assert len(trials.run.ran) == 6


def test_where_the_values_of_params_fail_the_search_does_not_start(search):
    with pytest.raises(InputError, match=r"the values in params\.yaml fail: out of memory"):
        search(5, fail=[1])
    assert [name for name, _ in search(1).ran] == ["tune-lora-001"]


def test_other_code_or_ranges_begin_a_new_search_and_the_old_one_can_go_on(search, monkeypatch):
    search(3)
    with monkeypatch.context() as patch:
        patch.setattr(tune, "depends_on", lambda model: {"code": "new", "lora.epochs": 3})
        fake = search(2)
    assert fake.lines[0] == "lora: a new search, because code changed since the last"
    assert fake.ran[0] == ("tune-lora-004", {})
    write_ranges(search.project, lora=SECTION | {"r": {"choices": [4, 8]}})
    search.project.git("commit", "--quiet", "--all", "--message", "fewer")
    assert search(1).lines[0].startswith("lora: a new search, because code, tuning.yaml r changed")
    search.project.git("revert", "--no-edit", "HEAD")
    fake = search(4)
    assert fake.lines[0].startswith("lora: continues after 3 of 4 trials")
    assert [name for name, _ in fake.ran] == ["tune-lora-007"]


def test_a_change_during_the_search_stops_it(search, monkeypatch):
    states = iter([{"code": "c0de"}, {"code": "c0de"}, {"code": "new"}])
    monkeypatch.setattr(tune, "depends_on", lambda model: next(states))
    with pytest.raises(InputError, match=r"^code changed; run the same command again for a new"):
        search(3)
    assert len(trials.run.ran) == 1


def test_the_best_is_run_again_where_its_experiment_is_gone_or_of_an_earlier_commit(search):
    fake = search(3)
    best = max(fake.ran[1:], key=lambda ran: ran[1]["lr"])
    commit(search.project, "notes.txt", "unrelated")
    assert search(3).ran == [best]
    assert search(3).ran == []


def test_changes_that_are_not_committed_are_refused_and_untracked_files_are_not(search):
    (search.project.path / "untracked.txt").write_text("")
    search(1)
    search.project.set(seed=1)
    with pytest.raises(InputError, match=r"^params\.yaml: changed since the last commit, from"):
        search(2)


def test_without_a_lock_file_it_says_what_to_run(search):
    search.project.git("rm", "--quiet", "dvc.lock")
    search.project.git("commit", "--quiet", "--message", "no lock")
    with pytest.raises(InputError, match=r"^dvc\.lock: no such file here; run 'dvc repro'"):
        search(2)


def test_a_running_queue_is_waited_for(search, monkeypatch):
    from dvc.repo.experiments.queue.celery import LocalCeleryQueue

    (search.project.path / ".dvc/tmp/exps/celery").mkdir(parents=True)
    task = SimpleNamespace(name="moist-newt")
    monkeypatch.setattr(LocalCeleryQueue, "iter_active", lambda queue: iter([task]))
    with pytest.raises(InputError, match=r"^DVC's queue is running moist-newt; wait"):
        search(2)
    monkeypatch.setattr(LocalCeleryQueue, "iter_active", lambda queue: iter([]))
    search(2)


def test_copies_that_a_killed_search_left_are_removed_and_those_of_others_are_kept(search):
    place = search.project.path / ".dvc/tmp/exps/standalone"
    for name in ("tune-lora-001", "tune-lora-2e-4-001", "mine"):
        copy = place / f"copy of {name}"
        copy.mkdir(parents=True)
        info = place / "run" / name / f"{name}.run"
        info.parent.mkdir(parents=True)
        info.write_text(json.dumps({"name": name, "root_dir": str(copy)}))
    search(1)
    left = {path.name for path in place.glob("copy*")}
    assert left == {"copy of tune-lora-2e-4-001", "copy of mine"}
    assert {path.name for path in place.glob("run/*")} == {"tune-lora-2e-4-001", "mine"}


def test_two_searches_of_a_model_do_not_run_at_once(search):
    with tune._only_one("lora"), pytest.raises(InputError, match="another search of it is running"):
        search(2)


def test_a_broken_study_is_named(search):
    search(1)
    with (search.project.path / "tmp/tuning/lora.log").open("a") as file:
        file.write("{half\n{}\n")
    with pytest.raises(InputError, match=r"^tmp/tuning/lora\.log: broken; delete it"):
        search(2)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"lorra": {}}, "lorra: no such model; did you mean 'lora'?"),
        ({"svm": {"C": {"low": 0.1, "high": 1.0}}}, "lora: no ranges; add a section with that"),
        ({"lora": {}}, "lora: expected parameters with their ranges"),
        ({"lora": {"lrr": {"low": 1.0, "high": 2.0}}}, "lora.lrr: unknown parameter; did you mean"),
        ({"lora": {"lr": 0.1}}, "lora.lr: 0.1 is wrong: it should be a range such as {low"),
        ({"lora": {"lr": {"low": 2.0, "high": 1.0}}}, "lora.lr: low is 2.0, which is more than"),
        ({"lora": {"lr": {"low": 1.0}}}, "lora.lr.high: missing"),
        ({"lora": {"lr": {"low": 0.0, "high": 1.0}}}, "lora.lr: 0.0 is wrong: it should be"),
        ({"lora": {"lr": {"low": "a", "high": 1.0}}}, "lora.lr.low: 'a' is wrong: it should be a"),
        ({"lora": {"lr": {"low": 1.0, "hihg": 2.0}}}, "lora.lr.high: missing"),
        (
            {"lora": {"lr": {"low": 1.0, "high": 2.0, "lo": 1}}},
            "lora.lr.lo: unknown; did you mean 'low'?",
        ),
        (
            {"lora": {"dropout": {"low": 0.0, "high": 0.3, "log": True}}},
            "lora.dropout: low is 0.0, but with log it should be greater than 0",
        ),
        (
            {"lora": {"dropout": {"low": 0.1, "high": 0.3, "log": True, "step": 0.1}}},
            "lora.dropout: log and step exclude each other",
        ),
        (
            {"lora": {"dropout": {"low": 0.0, "high": 0.3, "step": 0.2}}},
            "lora.dropout: no whole number of steps of 0.2 leads from 0.0 to 0.3",
        ),
        ({"lora": {"epochs": {"low": 1.0, "high": 3.0}}}, "lora.epochs: 1.0 is wrong: it"),
        ({"lora": {"variant": {"choices": ["lora", "dara"]}}}, "lora.variant: 'dara' is wrong: it"),
        ({"lora": {"r": {"choices": [4]}}}, "lora.r.choices: [4] is wrong: it"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_ranges_is_one_line(search, sections, message):
    write_ranges(search.project, **sections)
    with pytest.raises(InputError, match=f"^{re.escape(f'tuning.yaml: {message}')}"):
        search(2)


def test_an_unknown_model_is_one_line(search):
    with pytest.raises(InputError, match=r"^lroa: no such model; did you mean 'lora'\?"):
        search(2, model="lroa")


def test_the_ranges_of_the_project_are_valid():
    models = tune.registry.names()
    for model in ("lora", "finetune-full", "finetune-head", "svm"):
        assert ranges.read(model, models)


def test_the_reason_of_a_failure_is_the_line_that_says_most(tmp_path):
    log = tmp_path / "log"
    log.write_text("Traceback\ntorch.OutOfMemoryError: no memory\nERROR: failed to reproduce\n")
    assert trials._reason(log, 1) == "torch.OutOfMemoryError: no memory"
    log.write_text("error: lora: params.yaml: lora.r: 0 is wrong\nERROR: failed to reproduce\n")
    assert trials._reason(log, 1) == "lora: params.yaml: lora.r: 0 is wrong"
    log.write_text("ERROR: failed to reproduce 'lora': exited with -9\n")
    assert trials._reason(log, 1) == "failed to reproduce 'lora': exited with -9"
    log.write_text("")
    assert trials._reason(log, 3) == "exit status 3"


def test_a_search_depends_on_what_its_stage_and_those_before_it_depend_on(after, monkeypatch):
    monkeypatch.chdir(after.path)
    before = tune.depends_on("svm")
    assert {"svm.C", "seed", "dataset.path", "stages/svm.py", "stages/lib/core"} <= set(before)
    assert "libraries.yaml:scikit-learn" in before
    assert not any(name.startswith(("lora", "data/", "stages/lora")) for name in before)

    after.set(tokenize__max_length=16)
    (after.path / "stages/svm.py").write_text("")
    (after.path / "stages/lora.py").write_text("")
    reviews = after.path.parent / "reviews"
    data = after.read("params.yaml")["dataset"]["path"]
    after.run("cp", "-r", data, str(reviews))
    (reviews / "train.csv").write_text("text,label\na,0\nb,1\n")
    after.set(dataset__path=str(reviews))
    now = tune.depends_on("svm")
    changed = {name for name in before | now if before.get(name) != now.get(name)}
    assert changed == {"tokenize.max_length", "stages/svm.py", "dataset.path", data, str(reviews)}


def test_a_search_through_dvc_is_interrupted_continued_and_applied(after, monkeypatch):
    write_ranges(after, svm={"C": {"choices": [0.001, 0.01]}})
    after.git("commit", "--quiet", "--all", "--message", "ranges")
    monkeypatch.chdir(after.path)
    process = start(after.path, sys.executable, "-m", "commands.tune", "svm", "--trials", "4")
    wait_for(after.path / "tmp/tuning/tune-svm-002.log", "Running stage 'train-svm'")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors == "interrupted; run the same command again to continue\n"
    assert after.git("status", "--porcelain") == after.git("stash", "list") == ""
    assert {path.name for path in after.path.glob(".dvc/tmp/exps/standalone/*")} == {"run"}

    lines = after.run("python", "-m", "commands.tune", "svm", "--trials", "4").stdout.splitlines()
    assert lines[0] == "svm: continues after 1 of 4 trials; judged by validation accuracy"
    assert after.git("status", "--porcelain") == after.git("stash", "list") == ""
    names = [f"tune-svm-00{number}" for number in range(1, 5)]
    assert sorted(trials.experiments()) == names
    assert [line.split()[0] for line in lines[1:4]] == names[1:]
    # Three proposals of two values: at least one of them was there before, and costs nothing.
    logs = [(after.path / f"tmp/tuning/{name}.log").read_text() for name in names]
    assert "Stage 'train-svm' is cached - skipping run" in "".join(logs)

    _, C, accuracy, *_ = lines[1].split()
    after.dvc("exp", "apply", names[1])
    assert after.read("params.yaml")["svm"]["C"] == float(C.removeprefix("C="))
    assert f"{after.read('metrics/svm.json')['validation']['accuracy']:.4f}" == accuracy
    assert "up to date" in after.dvc("status", "svm").stdout


def test_a_trial_that_fails_in_dvc_has_the_line_of_its_stage(after, monkeypatch):
    monkeypatch.chdir(after.path)
    trials.DIRECTORY.mkdir(parents=True)
    with pytest.raises(trials.Failed, match=r"svm: params\.yaml: svm\.C\.0: -1 is wrong: it .*log"):
        trials.run("svm", "tune-svm-001", {"C": -1})


def wait_for(path, text):
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if path.exists() and text in path.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path}: no {text!r}")
