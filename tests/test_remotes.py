"""A team shares results over SSH or S3: the commands of docs/sharing.md, on real servers."""

import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import servers
from conftest import LONG, Project
from test_dag import snapshot, stages_run
from test_docs import BLOCK, ROOT, commands, run


@pytest.fixture(scope="module", params=["ssh", "s3"])
def server(request, tmp_path_factory):
    name = request.param
    if name == "ssh" and servers.SSHD is None:
        assert "REQUIRE_SSH" not in os.environ, "no sshd"
        pytest.skip("needs sshd")
    with getattr(servers, name)(tmp_path_factory.mktemp(name)) as started:
        yield started


def section(server):
    """Return the commands of the server's section of docs/sharing.md, with real values."""
    page = (ROOT / "docs/sharing.md").read_text(encoding="utf-8")
    text = re.search(rf"^### [^\n]*{server.heading}\n.*?(?=^##)", page, re.M | re.S)[0]
    lines = [c.line for block in BLOCK.finditer(text) for c in commands(block["text"])]
    for example, here in server.examples.items():
        assert example in text
        lines = [line.replace(example, here) for line in lines]
    return [line for line in lines if not line.startswith("pip install ")]


class Clone(Project):
    """A clone that uses the server by the commands of the page."""

    def __init__(self, path, server):
        self.path, self.server = path, server

    def follow(self, lines):
        place = self.path.with_name(f"{self.path.name}.place")
        place.write_text(str(self.path))
        for line in lines:
            run(self, line, place)

    def cached(self):
        """Return the names in DVC's cache."""
        folder = self.path / ".dvc/cache/files/md5"
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def objects(project, *paths):
    """Return the names in DVC's cache of these outputs, or of all cached ones if none is given."""
    found = set()
    for stage in project.read("dvc.lock")["stages"].values():
        for out in stage["outs"]:
            if out["path"] in paths or (not paths and out["path"].startswith("data/")):
                name = f"{out['md5'][:2]}/{out['md5'][2:]}"
                inner = project.read(f".dvc/cache/files/md5/{name}") if ".dir" in name else []
                found |= {name, *(f"{each['md5'][:2]}/{each['md5'][2:]}" for each in inner)}
    return found


@pytest.fixture(scope="module")
def team(server, ran, tmp_path_factory):
    """Clone a, whose first push was killed half-way and which pushed again, and observations."""
    directory = tmp_path_factory.mktemp("team")
    a = Clone(ran.copy(directory / "a").path, server)
    *configure, push = section(server)
    a.follow(configure)

    option, value = server.address
    wire = servers.Wire(server.port, enough=lambda: bool(server.hashes()))
    local = a.path / ".dvc/config.local"
    configured = local.read_text()
    a.dvc("remote", "modify", "--local", "storage", option, value.format(port=wire.port))
    killed = subprocess.Popen(
        (sys.executable, "-m", "dvc", "push"), cwd=a.path, stdout=subprocess.DEVNULL
    )
    with servers.ended(killed):  # by SIGKILL
        assert wire.stopped.wait(LONG)
    local.write_text(configured)
    seen = SimpleNamespace(a=a, stored=server.hashes())

    seen.early = clone(a, directory / "early")
    seen.early.follow([line for line in configure if "--local" in line])
    seen.pull = seen.early.dvc("pull", check=False)
    seen.files = snapshot(seen.early)
    seen.status = seen.early.dvc("status", "--cloud").stdout
    a.follow([push])
    return seen


def clone(a, path):
    """Another clone, with an empty cache."""
    a.git("clone", "--quiet", str(a.path), str(path))
    return Clone(path, a.server)


@pytest.fixture
def b(team, tmp_path):
    other = clone(team.a, tmp_path / "b")
    shutil.copy(team.a.path / ".dvc/config.local", other.path / ".dvc")
    return other


def test_a_push_that_is_killed_half_way_leaves_nothing_half_written(team):
    assert 0 < len(team.stored) < len(objects(team.a))
    for name, md5 in team.stored.items():
        assert name.replace("/", "").removesuffix(".dir") == md5


def test_a_pull_before_the_next_push_names_what_is_missing_and_gets_the_rest(team):
    assert team.pull.returncode != 0
    missing = re.findall(r"^data/\S+$", team.pull.stderr, re.M)
    assert 0 < len(missing) < len(team.a.read("dvc.yaml")["stages"]) * 3
    complete = snapshot(team.a)
    for path, content in complete.items():
        if any(path == name or path.startswith(f"{name}/") for name in missing):
            assert path not in team.files
        else:
            assert team.files[path] == content
    assert re.search(r"missing: +data/predictions/svm.csv", team.status)


def test_the_next_push_completes_it_and_then_nothing_runs_elsewhere(team):
    stored = team.a.server.hashes()
    assert set(stored) == objects(team.a)
    for name, md5 in stored.items():
        assert name.replace("/", "").removesuffix(".dir") == md5
    team.early.dvc("pull")
    assert stages_run(team.early.dvc("repro")) == []
    assert snapshot(team.early) == snapshot(team.a)


def test_an_up_to_date_clone_needs_no_data_and_one_model_can_be_pulled_alone(team, b):
    assert stages_run(b.dvc("repro", "--allow-missing")) == []
    assert b.cached() == set()
    if variables := team.a.server.variables:
        (b.path / ".dvc/config.local").unlink()
    b.dvc("pull", "train-lora", **variables)
    names = (f"data/{kind}/lora" for kind in ("models", "curves"))
    assert b.cached() == objects(team.a, *names, "data/predictions/lora.csv")


def test_a_change_fetches_what_the_changed_stage_reads(team, b):
    """The stages run, although another clone pushed its run cache: only git has the metrics."""
    team.a.set(svm__C=1e-6)
    team.a.dvc("repro", "svm")
    team.a.dvc("push", "--run-cache")
    team.a.git("stash")
    b.set(svm__C=1e-6)
    done = b.dvc("repro", "--pull", "--allow-missing", "svm")
    assert stages_run(done) == ["train-svm", "svm"]
    stages = b.read("dvc.lock")["stages"]
    written = [out["path"] for name in ("train-svm", "svm") for out in stages[name]["outs"]]
    read = objects(team.a, "data/features")
    assert read <= b.cached()
    assert b.cached() - read - objects(b, *written) == set()


def test_no_credential_is_in_git(team):
    team.a.git("add", "--all")
    known = team.a.git("log", "--all", "--patch") + team.a.git("diff", "--cached")
    assert "storage" in known
    for secret in team.a.server.secrets:
        assert secret in (team.a.path / ".dvc/config.local").read_text()
        assert secret not in known
