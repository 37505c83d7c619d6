"""The saved models, loaded through the libraries that people use."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run_here
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    pipeline,
)

from stages import lora
from stages.lib.schema import params
from stages.lib.training import classifier

# Run in the precision that `auto` means here, and then in the other one (see `make test`).
pytestmark = pytest.mark.precision


@pytest.fixture
def here(ran, monkeypatch):
    monkeypatch.chdir(ran.path)
    return ran


def predictions(name):
    table = pd.read_csv(f"data/predictions/{name}.csv")
    return table[table["split"] == "test"].reset_index(drop=True)


def positive(table):
    """Return the probability of the positive label."""
    score = table["score"].to_numpy()
    return np.where(table["prediction"] == "positive", score, 1 - score)


def texts():
    return pd.read_parquet("data/raw/test.parquet")["text"].tolist()


def scores(model, tokenizer):
    batch = tokenizer(texts(), padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        return model.eval()(**batch).logits.softmax(-1)[:, 1].numpy()


@pytest.mark.parametrize("name", ["finetune-head", "finetune-full"])
def test_a_whole_model_is_a_text_classification_pipeline(here, name):
    classify = pipeline("text-classification", f"data/models/{name}")
    expected = predictions(name)
    for result, row in zip(classify(texts()), expected.itertuples(), strict=True):
        assert result["label"] == row.prediction
        assert result["score"] == pytest.approx(row.score, abs=1e-5)


@pytest.mark.parametrize("name", ["lora-2e-5", "lora-2e-4", "lora"])
def test_an_adapter_reloads_with_its_head_to_the_same_predictions(here, name):
    from peft import AutoPeftModelForSequenceClassification, PeftModel

    tokenizer = AutoTokenizer.from_pretrained(f"data/models/{name}")
    expected = positive(predictions(name))
    model = AutoPeftModelForSequenceClassification.from_pretrained(f"data/models/{name}")
    assert np.allclose(scores(model, tokenizer), expected, atol=1e-6)
    base = AutoModelForSequenceClassification.from_pretrained("data/backbone", num_labels=2)
    model = PeftModel.from_pretrained(base, f"data/models/{name}")
    assert np.allclose(scores(model, tokenizer), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("variant", "trait"),
    [
        ("dora", lambda config, weights: any("lora_magnitude_vector" in name for name in weights)),
        ("rslora", lambda config, weights: config["use_rslora"]),
        ("pissa", lambda config, weights: config["init_lora_weights"] == "pissa"),
    ],
)
def test_a_variant_of_lora_reloads_to_the_reported_scores(after, monkeypatch, variant, trait):
    from peft import AutoPeftModelForSequenceClassification

    plain = (after.path / "data/predictions/lora.csv").read_text()
    after.set(lora__variant=variant)
    monkeypatch.chdir(after.path)
    run_here(monkeypatch, "train-lora")
    assert (after.path / "data/predictions/lora.csv").read_text() != plain
    directory = after.path / "data/models/lora"
    weights = load_file(directory / "adapter_model.safetensors")
    assert trait(json.loads((directory / "adapter_config.json").read_text()), weights)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoPeftModelForSequenceClassification.from_pretrained(directory)
    assert np.allclose(scores(model, tokenizer), positive(predictions("lora")), atol=1e-5)
    merged = model.merge_and_unload()
    assert np.allclose(scores(merged, tokenizer), positive(predictions("lora")), atol=1e-5)


def test_the_merged_model_has_the_adapters_logits(here):
    """W' = W + BA, scaled by alpha / r."""
    from peft import AutoPeftModelForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained("data/backbone")
    model = AutoPeftModelForSequenceClassification.from_pretrained("data/models/lora")
    layer = model.base_model.model.distilbert.transformer.layer[0].attention.q_lin
    weight = layer.base_layer.weight.detach().clone()
    product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    assert product.abs().max() > 0
    before = scores(model, tokenizer)
    merged = model.merge_and_unload()
    assert np.allclose(scores(merged, tokenizer), before, atol=1e-6)
    q_lin = merged.distilbert.transformer.layer[0].attention.q_lin
    assert torch.allclose(q_lin.weight, weight + 16 / 8 * product, atol=1e-6)


def test_the_heads_logits_of_the_whole_model_are_those_of_the_cached_features(here):
    from stages.lib.training import head
    from stages.lib.vectors import features

    tokenizer = AutoTokenizer.from_pretrained("data/backbone")
    model = AutoModelForSequenceClassification.from_pretrained("data/models/finetune-head")
    vectors = head.Vectors(*features.load("test"))
    cached = torch.from_numpy(head.logits(head.Head(model), vectors)).softmax(-1)[:, 1].numpy()
    assert np.allclose(scores(model, tokenizer), cached, atol=1e-5)


def test_features_are_those_of_the_feature_extraction_pipeline(here):
    from stages.lib.vectors import features

    extract = pipeline("feature-extraction", "data/backbone")
    expected = np.array([hidden[0][0] for hidden in extract(texts())])
    assert np.allclose(features.load("test")[0], expected, atol=1e-5)


def test_the_svm_is_its_arrays(here):
    from safetensors.numpy import load_file

    from stages.lib.vectors import features

    saved = load_file("data/models/svm/model.safetensors")
    standardized = (features.load("test")[0] - saved["mean"]) / saved["scale"]
    margins = standardized @ saved["coef"][0] + saved["intercept"]
    probabilities = 1 / (1 + np.exp(-margins / saved["temperature"]))
    assert np.allclose(probabilities, positive(predictions("svm")), atol=1e-6)


def test_no_output_is_a_pickle(here):
    suffixes = {path.suffix for path in here.path.glob("data/**/*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".parquet", ".csv", ".tsv", ".txt", ".md", ".yaml"}


@pytest.mark.parametrize(
    ("shape", "trainable"),
    [
        ({}, 739_586),
        ({"dim": 384, "hidden_dim": 1536, "n_heads": 12}, 222_338),
    ],
    ids=["distilbert-base-uncased", "embedded"],
)
def test_the_published_lora_trains_as_many_parameters_as_published(monkeypatch, shape, trainable):
    monkeypatch.chdir(params.__file__.removesuffix("/stages/lib/schema/params.py"))
    settings = params.load("lora-2e-4").lora_2e_4
    with torch.device("meta"):
        model = DistilBertForSequenceClassification(DistilBertConfig(**shape))
        counts = classifier.parameters(lora.adapt(model, settings))
    assert counts["trainable"] == trainable
    if not shape:
        assert counts["total"] - 147_456 == 66_955_010
