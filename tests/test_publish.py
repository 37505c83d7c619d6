"""commands.publish: models on a Hub, through the real client, against a server on loopback."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import hub
import numpy as np
import pandas as pd
import pytest
from conftest import LONG, Project, run_here
from huggingface_hub import ModelCard
from ruamel.yaml import YAML

from commands import publish
from stages.lib.core import declarations
from stages.lib.core.errors import InputError
from stages.lib.models import registry
from stages.lib.sources import checksums

NAMES = registry.names()
ADAPTERS = [name for name in NAMES if name.startswith("lora")]
BASE, COMMIT = "someone/encoder", "c" * 40

# What someone who has only the Hub does: read each card, and run its code on texts of their own.
STRANGER = """
import ast, contextlib, io, json, re, sys, traceback
from pathlib import Path
from huggingface_hub import hf_hub_download

sys.path.remove("")
texts, repositories = json.load(open(sys.argv[1])), sys.argv[2:]

def follow(repository):
    card = Path(hf_hub_download(repository, "README.md")).read_text("utf-8")
    (code,) = re.findall(r"```python\\n(.*?)```", card, re.DOTALL)
    example = json.dumps("a gorgeous, witty, seductive movie")
    assert example in code
    names, found = {}, []
    for text in texts:
        if "classify" not in names:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code.replace(example, json.dumps(text)), names)
            said = ast.literal_eval(printed.getvalue().strip())
        else:
            said = names["classify"](text, truncation=True)
        found += said if isinstance(said, list) else [said]
    return found

results = {}
for repository in repositories:
    try:
        results[repository] = follow(repository)
    except Exception:
        results[repository] = traceback.format_exc()
json.dump(results, sys.stdout)
"""


@pytest.fixture(scope="module")
def shelf():
    """A Hub for models to be looked at, not for other uploads."""
    server = hub.Hub({})
    server.users = {"hf_alice": "alice", "hf_bob": "bob"}
    yield server
    server.close()


@pytest.fixture
def server():
    """A Hub with nothing on it and two users, alice and bob."""
    server = hub.Hub({})
    server.users = {"hf_alice": "alice", "hf_bob": "bob"}
    yield server
    server.close()


def environment(server, **changes: str) -> dict[str, str]:
    alice = {"HF_TOKEN": "hf_alice", "HF_HUB_DISABLE_XET": "1"}
    return hub.environment(server, **alice | changes)


def run(project: Project, server, *args: str, **changes: str) -> subprocess.CompletedProcess:
    """Run the command as alice."""
    command = ("python", "-m", "commands.publish", *args)
    return project.run(*command, check=False, **environment(server, **changes))


def succeeds(done):
    assert done.returncode == 0, done.stderr
    return done


def fails_with(done, *parts):
    """One line on stderr that has all `parts`, exit status 1."""
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
    return True


def files(server, repository):
    """The content of the repository by path."""
    _, directory = server.repositories["model", repository]
    return {path: (directory / path).read_bytes() for path in hub.files(directory)}


def uploads(server):
    """The large files that were sent."""
    return [path.rpartition("/")[2] for method, path in server.requests if method == "PUT"]


def put_encoder_on(server, project: Project) -> None:
    """Have the project's encoder come from that Hub, as if `backbone.hub` had named it."""
    folder = server.new_folder()
    for path in (project.path / "data/backbone").iterdir():
        if path.name != "about.json":
            (folder / path.name).write_bytes(path.read_bytes())
    server.repositories["model", BASE] = COMMIT, folder
    about = {"source": "hub", "repository": BASE, "revision": COMMIT, "sha256": "0" * 64}
    (project.path / "data/backbone/about.json").write_text(json.dumps(about))
    project.run("python", "-m", "stages.cards")
    # As if everything had been trained with it.
    project.dvc("commit", "--quiet", "--force")


@pytest.fixture(scope="module")
def of_hub(ran, shelf, tmp_path_factory):
    """A project whose encoder is on the shelf."""
    project = ran.copy(tmp_path_factory.mktemp("of_hub") / "project")
    put_encoder_on(shelf, project)
    return project


@pytest.fixture(scope="module")
def published(ran, of_hub, shelf):
    """What the command printed of each model: `ran`'s by name, of_hub's svm and lora as hub-..."""
    said = {name: succeeds(run(ran, shelf, name, f"alice/{name}")) for name in NAMES}
    for name in ("svm", "lora"):
        said[f"hub-{name}"] = succeeds(run(of_hub, shelf, name, f"alice/hub-{name}"))
    return said


@pytest.fixture(scope="module")
def found(ran, shelf, published, tmp_path_factory):
    """What the code of each card says of the test reviews, by the model's name, or its traceback.

    It runs in one interpreter, which has nothing of this project.
    """
    path = tmp_path_factory.mktemp("stranger")
    texts = pd.read_parquet(ran.path / "data/raw/test.parquet")["text"].tolist()
    (path / "texts.json").write_text(json.dumps(texts))
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, "texts.json", *(f"alice/{name}" for name in published)],
        cwd=path,
        env=os.environ | environment(shelf, HF_HOME=str(path / "home"), HF_TOKEN=""),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name.partition("/")[2]: said for name, said in json.loads(done.stdout).items()}


@pytest.mark.parametrize("name", [*NAMES, "hub-svm", "hub-lora"])
def test_what_is_published_scores_anywhere_what_the_stage_reported(ran, found, name):
    reported = pd.read_csv(ran.path / f"data/predictions/{name.removeprefix('hub-')}.csv")
    reported = reported[reported["split"] == "test"]
    found = found[name]
    assert isinstance(found, list), found
    assert [each["label"] for each in found] == reported["prediction"].tolist()
    assert np.allclose([each["score"] for each in found], reported["score"], rtol=0, atol=1e-5)


def test_an_adapter_goes_with_the_hubs_name_of_its_encoder_or_merged(shelf, published):
    tokenizer = {"tokenizer.json", "tokenizer_config.json"}
    both = {"README.md", "training.json", *tokenizer, "about.json"}
    adapter = files(shelf, "alice/hub-lora")
    assert set(adapter) == both | {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads(adapter["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == (BASE, COMMIT)
    assert published["hub-lora"].stderr == ""
    for name in ADAPTERS:
        assert set(files(shelf, f"alice/{name}")) == both | {"config.json", "model.safetensors"}
        (line,) = published[name].stderr.splitlines()
        assert line.startswith(f"note: {name}: ")
        assert "merged" in line


def test_an_svm_goes_with_its_encoder_where_the_hub_does_not_have_it(shelf, published):
    without = {"README.md", "training.json", "config.json", "model.safetensors"}
    assert set(files(shelf, "alice/hub-svm")) == without
    found = files(shelf, "alice/svm")
    assert {path for path in found if "/" not in path} == without
    assert {"encoder/config.json", "encoder/model.safetensors"} < set(found)


def test_an_encoder_that_a_classifier_reads_otherwise_than_the_hub_says_is_merged(
    of_hub, monkeypatch, tmp_path
):
    """A ModernBERT's config may be changed when it is downloaded."""
    other = of_hub.copy(tmp_path / "other")
    monkeypatch.chdir(other.path)
    assert publish.base_on_the_hub() == (BASE, COMMIT)
    path = other.path / "data/backbone/config.json"
    path.write_text(json.dumps(other.read(path) | {"classifier_pooling": "cls"}))
    assert publish.base_on_the_hub() is None


def test_the_card_of_a_merged_model_names_the_embedded_encoder(after, monkeypatch, tmp_path):
    about = {"source": "pypi", "package": "x==1", "sha256": "0" * 64}
    (after.path / "data/backbone/about.json").write_text(json.dumps(about))
    monkeypatch.chdir(after.path)
    run_here(monkeypatch, "cards")
    publish.prepare("lora", "alice/lora", tmp_path)
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert data.base_model_relation == "finetune"
    assert data.tags == ["lora", "dvc"]


@pytest.mark.parametrize("name", [*NAMES, "hub-svm", "hub-lora"])
def test_the_card_has_the_runs_scores_and_no_path_of_the_project(ran, shelf, published, name):
    content = files(shelf, f"alice/{name}")
    card = ModelCard(content["README.md"].decode())
    trained = name.removeprefix("hub-")
    found = {}
    for result in card.data.eval_results:
        found.setdefault(result.dataset_split, {})[result.metric_type] = result.metric_value
    for split, scores in ran.read(f"metrics/{trained}.json").items():
        assert list(found[split]) == ["accuracy", "f1", "precision", "recall"]
        assert scores == {score: found[split][score] for score in scores}
    assert f"| seed | {ran.read('params.yaml')['seed']} |" in card.text
    library = {"svm": None, "hub-svm": None, "hub-lora": "peft"}.get(name, "transformers")
    assert card.data.library_name == library
    assert card.data.base_model == (BASE if name.startswith("hub-") else None)
    assert f'"alice/{name}"' in card.text
    if name in ADAPTERS:
        assert "merged into the frozen encoder" in card.text
        assert "which it needs to run" not in card.text
    for path, text in content.items():
        if path.endswith((".md", ".json")) and path != "training.json":
            assert b"data/" not in text, path
            assert str(ran.path).encode() not in text, path


@pytest.mark.parametrize("name", NAMES)
def test_it_is_said_what_the_model_was_trained_from(ran, shelf, published, name):
    content = files(shelf, f"alice/{name}")
    entry = ran.read("dvc.lock")["stages"][f"train-{name}"]
    assert json.loads(content["training.json"]) == {"stage": f"train-{name}"} | entry
    assert "](training.json)" in content["README.md"].decode()
    assert published[name].stdout.startswith(f"{name} is at {shelf.url}/alice/{name} (commit ")


def everything(directory: Path) -> dict[str, tuple[bytes, int]]:
    """The content and the mode of all files but DVC's own."""
    paths = (path for path in directory.rglob("*") if path.is_file())
    return {
        str(path): (path.read_bytes(), path.stat().st_mode)
        for path in paths
        if not {"tmp", "__pycache__", ".git"} & set(path.parts[len(directory.parts) :])
    }


@pytest.mark.parametrize("name", ["svm", "lora"])
def test_the_workspace_stays_as_it_was_and_links_to_a_cache_are_followed(
    of_hub, server, name, tmp_path
):
    project = of_hub.copy(tmp_path / "project")
    project.dvc("config", "--local", "cache.type", "symlink")
    project.dvc("checkout", "--quiet", "--relink")
    (weights,) = (project.path / f"data/models/{name}").glob("*model.safetensors")
    assert weights.is_symlink()
    before, temporary = everything(project.path), tmp_path / "temporary"
    temporary.mkdir()
    succeeds(run(project, server, name, f"alice/{name}", TMPDIR=str(temporary)))
    assert everything(project.path) == before
    assert list(temporary.iterdir()) == []
    assert len(files(server, f"alice/{name}")) >= 4


@pytest.mark.parametrize("name", ["svm", "lora"])
def test_a_dry_run_shows_all_and_asks_nobody(ran, shelf, published, server, name):
    done = succeeds(run(ran, server, name, f"alice/{name}", "--dry-run", "--private", HF_TOKEN=""))
    first, *lines = done.stdout.splitlines()
    assert first == f"{server.url}/alice/{name} (private)"
    uploaded = files(shelf, f"alice/{name}")
    expected = [[path, f"{len(content):,}"] for path, content in uploaded.items()]
    assert [line.split()[::-1] for line in lines[: len(expected)]] == expected
    total = sum(map(len, uploaded.values()))
    assert lines[len(expected)].split() == [f"{total:,}", "in", "all"]
    beginning = done.stdout.partition("\n---\n")[2]
    assert f"- name: {name}" in beginning
    assert f"# {name}\n" in beginning
    assert uploaded["README.md"].decode().startswith(f"---\n{beginning.rstrip()}\n")
    assert server.requests == []


def test_the_same_again_sends_and_commits_nothing(ran, server):
    succeeds(run(ran, server, "svm", "alice/svm"))
    sent, commits = uploads(server), len(server.commits)
    assert len(sent) == 2
    again = succeeds(run(ran, server, "svm", "alice/svm"))
    assert (uploads(server), len(server.commits)) == (sent, commits)
    assert server.repositories["model", "alice/svm"][0][:12] in again.stdout


def test_a_model_of_another_kind_leaves_nothing_of_the_one_before(of_hub, server, tmp_path):
    succeeds(run(of_hub, server, "lora", "alice/reviews"))
    _, directory = server.repositories["model", "alice/reviews"]
    (directory / "notes.json").write_text("{}")
    succeeds(run(of_hub, server, "finetune-full", "alice/reviews"))
    assert set(files(server, "alice/reviews")) == {
        *("README.md", "training.json", "about.json", "config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json", "notes.json"),
    }
    succeeds(run(of_hub, server, "svm", "alice/reviews"))
    assert set(files(server, "alice/reviews")) == {
        *("README.md", "training.json", "config.json", "model.safetensors", "notes.json")
    }


def test_files_that_were_not_published_from_here_are_not_deleted(ran, server):
    folder = server.new_folder()
    (folder / "adapter_config.json").write_text("{}")
    server.repositories["model", "alice/head"] = "0" * 40, folder
    done = run(ran, server, "finetune-head", "alice/head")
    assert fails_with(done, "not published from here, and adapter_config.json would be deleted")
    assert files(server, "alice/head") == {"adapter_config.json": b"{}"}
    assert uploads(server) == []


def test_a_commit_of_somebody_else_in_between_is_not_overwritten(ran, server):
    def overtake(handler):
        folder = server.new_folder()
        (folder / "notes.json").write_text("{}")
        server.repositories["model", "alice/head"] = "1" * 40, folder
        return False

    server.faults["preupload"] = overtake
    done = run(ran, server, "finetune-head", "alice/head")
    assert fails_with(done, "alice/head: the Hub answered 412")
    assert files(server, "alice/head") == {"notes.json": b"{}"}


def test_a_private_repository_is_nobody_elses(ran, server):
    succeeds(run(ran, server, "finetune-head", "alice/head", "--private"))
    assert ("model", "alice/head") in server.private
    succeeds(run(ran, server, "finetune-full", "alice/head"))
    assert ("model", "alice/head") in server.private


def test_what_is_public_is_not_published_to_as_private(ran, server):
    server.repositories["model", "alice/head"] = "0" * 40, server.new_folder()
    done = run(ran, server, "finetune-head", "alice/head", "--private")
    assert fails_with(done, "alice/head: it exists and is public", "--private")
    assert files(server, "alice/head") == {}
    assert uploads(server) == []


def test_an_upload_that_breaks_off_is_seen_by_nobody_and_goes_on(ran, server):
    server.faults["/commit/"] = hub.first(1, hub.hang_up)
    done = run(ran, server, "svm", "alice/svm")
    assert fails_with(done, "alice/svm: the connection to", "broke off", "run the same command")
    assert files(server, "alice/svm") == {}
    assert len(uploads(server)) == 2
    succeeds(run(ran, server, "svm", "alice/svm"))
    assert len(uploads(server)) == 2
    assert "encoder/model.safetensors" in files(server, "alice/svm")


def test_after_a_kill_half_way_only_what_is_missing_is_sent(ran, server):
    svm, encoder = (
        checksums.sha256(ran.path / folder / "model.safetensors")
        for folder in ("data/models/svm", "data/backbone")
    )
    arrived, killed = threading.Event(), threading.Event()

    def wait(handler):
        if not handler.path.endswith(encoder) or killed.is_set():
            return False
        arrived.set()
        return killed.wait(LONG) and hub.hang_up(handler)

    server.faults["/lfs/"] = wait
    command = [sys.executable, "-m", "commands.publish", "svm", "alice/svm"]
    env = os.environ | environment(server)
    with subprocess.Popen(command, cwd=ran.path, env=env, stderr=subprocess.PIPE) as process:
        assert arrived.wait(LONG)
        while svm not in server.objects:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    killed.set()
    assert encoder not in server.objects
    assert files(server, "alice/svm") == {}
    server.requests.clear()
    succeeds(run(ran, server, "svm", "alice/svm"))
    assert uploads(server) == [encoder]
    assert files(server, "alice/svm")["encoder/model.safetensors"] == server.objects[encoder]


@pytest.mark.parametrize(
    ("repository", "fault", "changes", "parts"),
    [
        ("alice/x", None, {"HF_TOKEN": ""}, ["no token: log in (hf auth login) or set HF_TOKEN"]),
        ("alice/x", None, {"HF_TOKEN": "hf_old"}, ["the Hub answered 401", "Invalid credentials"]),
        ("alice/x", None, {"HF_TOKEN": "hf_\fx"}, ["alice/x: the Hub's client cannot ask"]),
        (
            "bob/x",
            None,
            {},
            ["bob/x: the Hub answered 403", 'a model under "bob"', "the token needs"],
        ),
        ("alice/x", None, {"HF_HUB_OFFLINE": "1"}, ["HF_HUB_OFFLINE is set"]),
        ("alice/x", None, {"HF_ENDPOINT": "http://127.0.0.1:9"}, ["alice/x", "broke off"]),
        ("alice/x", ("^/lfs/", hub.status(403, "no")), {}, ["the Hub answered 403: no"]),
        ("alice/x", ("create", hub.status(429, "slowly")), {}, ["answered 429: slowly"]),
        ("alice/x", ("create", lambda h: h.say(200, b"ok")), {}, ["does not answer as a Hub"]),
        ("alice/x", None, {"HF_HUB_DISABLE_XET": "0"}, ["broke off", "HF_HUB_DISABLE_XET=1"]),
    ],
    ids=[
        *("no token", "a token that is not valid", "a token that cannot be sent", "no right"),
        *("offline", "no connection"),
        *("a store that refuses", "too often", "no Hub", "no Xet"),
    ],
)
def test_what_stands_in_the_way_is_one_line(ran, server, repository, fault, changes, parts):
    if fault:
        server.faults[fault[0]] = fault[1]
    done = run(ran, server, "finetune-head", repository, **changes)
    assert fails_with(done, *parts)
    assert "hf_" not in done.stderr
    assert server.commits == []


@pytest.fixture
def dry(after, monkeypatch):
    """The command with --dry-run, in this process; gives the message of its error."""
    monkeypatch.chdir(after.path)

    def run(name, repository="alice/x"):
        monkeypatch.setattr(sys, "argv", ["publish", name, repository, "--dry-run"])
        with pytest.raises(InputError) as caught:
            publish.main()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return run


@pytest.mark.parametrize("repository", ["reviews", "a/b/c", "alice/", "alice/a--b", "alice/a b"])
def test_what_cannot_be_a_repository_is_named(dry, repository):
    assert f"{repository}: not a repository's id" in dry("svm", repository)


def test_what_is_not_here_or_not_of_the_last_run_is_named(dry, after):
    assert "bert: no such model; the models are svm, finetune-head" in dry("bert")
    shutil.rmtree("data/models/lora")
    assert "lora: data/models/lora is not here: 'dvc repro lora' trains it" in dry("lora")
    Path("data/models/finetune-head/config.json").write_text('{"model_type": "distilbert"}')
    assert "data/models/finetune-head is not as dvc.lock has it" in dry("finetune-head")
    shutil.rmtree("data/backbone")
    for name in ("svm", "lora-2e-4"):
        assert f"{name}: data/backbone is not as dvc.lock has it" in dry(name)
    Path("data/cards/finetune-full.md").unlink()
    line = "data/cards/finetune-full.md is not here: 'dvc repro cards finetune-full' writes it"
    assert line in dry("finetune-full")
    Path("dvc.lock").unlink()
    assert "dvc.lock: no such file here; run from the project's root" in dry("svm")


def test_a_model_that_was_trained_with_another_encoder_is_not_published(dry):
    lock = declarations.read_yaml("dvc.lock")
    for stage in ("train-lora", "extract-cls-features"):
        (encoder,) = [d for d in lock["stages"][stage]["deps"] if d["path"] == "data/backbone"]
        encoder["md5"] = f"{0:032}.dir"
    YAML().dump(lock, Path("dvc.lock"))
    for name in ("svm", "lora"):
        line = dry(name)
        assert line.startswith(f"{name}: it was trained from other data, or with another encoder,")
        assert line.endswith(f"'dvc repro {name}' trains it anew")


def test_what_dvc_refuses_is_one_line(dry):
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text() + "nonsense: 1\n")
    assert "dvc.yaml" in dry("svm")


def test_a_card_of_another_training_is_not_published(dry, after):
    path = Path("metrics/finetune-full.json")
    scores = json.loads(path.read_text())
    scores["test"]["accuracy"] = 0.123
    path.write_text(json.dumps(scores))
    assert "its scores are not those in metrics/finetune-full.json" in dry("finetune-full")
