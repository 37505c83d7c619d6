"""Models of others, broken ones among them: what commands.predict says of each."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_families import make_miniature

from stages.lib.core.errors import InputError
from stages.lib.models import prediction


@pytest.fixture
def model(miniature, tmp_path, monkeypatch):
    """A directory with a classifier of two labels."""
    from transformers import AutoModelForSequenceClassification

    directory = shutil.copytree(miniature, tmp_path / "model")
    AutoModelForSequenceClassification.from_pretrained(miniature).save_pretrained(directory)
    monkeypatch.chdir(tmp_path)
    return directory


def change(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def line(directory):
    with pytest.raises(InputError) as error:
        prediction.load(directory, "fp32").probabilities(["a great film"])
    return str(error.value)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b'{"model_type": "unheard-of"}'),
        ("model.safetensors", b"half"),
        ("tokenizer.json", b"{}"),
        ("about.json", b"{}"),
        ("adapter_config.json", b"{"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(model, file, content):
    (model / file).write_bytes(content)
    if file == "adapter_config.json":
        (model / "adapter_model.safetensors").touch()
    assert line(model).startswith(str(model))


def test_a_model_whose_labels_do_not_exclude_each_other_is_refused(model):
    change(model, problem_type="multi_label_classification")
    assert "a text may have several of its labels" in line(model)


def test_a_model_of_one_label_is_refused(miniature, model):
    from transformers import AutoModelForSequenceClassification

    one = AutoModelForSequenceClassification.from_pretrained(miniature, num_labels=1)
    one.save_pretrained(model)
    assert "it has one label" in line(model)


def test_a_text_longer_than_all_positions_is_truncated(tmp_path, monkeypatch):
    """The positions of RoBERTa start after the padding id."""
    from transformers import AutoModelForSequenceClassification

    (tmp_path / "made").mkdir()
    directory = make_miniature("roberta", tmp_path / "made")
    AutoModelForSequenceClassification.from_pretrained(directory).save_pretrained(directory)
    config = directory / "tokenizer_config.json"
    kept = {k: v for k, v in json.loads(config.read_text()).items() if k != "model_max_length"}
    config.write_text(json.dumps(kept))
    monkeypatch.chdir(tmp_path)
    model = prediction.load(directory, "fp32")
    assert model.probabilities(["a great film " * 200]).shape == (1, 2)


def test_weights_that_are_no_numbers_are_named(model):
    weights = load_file(model / "model.safetensors")
    weights["classifier.bias"] = torch.full_like(weights["classifier.bias"], torch.nan)
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    assert line(model).startswith("probabilities are not finite")


def test_a_model_is_not_saved_as_what_the_backbone_was_trained_for(
    miniature, tmp_path, monkeypatch
):
    from stages.lib.training import classifier

    monkeypatch.chdir(tmp_path)
    shutil.copytree(miniature, "data/backbone")
    change(tmp_path / "data/backbone", problem_type="multi_label_classification")
    assert classifier.create(["bad", "good"]).config.problem_type is None
