"""stages.lib.encoder.backbone: the message for each backbone that cannot be used."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from stages.lib.core.errors import InputError
from stages.lib.encoder import backbone


@pytest.fixture
def directory(miniature, tmp_path):
    return shutil.copytree(miniature, tmp_path / "backbone")


def change_weights(directory, change):
    path = directory / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, {"format": "pt"})


def fails(directory):
    with pytest.raises(InputError) as error:
        backbone.load_verified(directory)
    return str(error.value).removeprefix(f"{directory}: ")


def test_a_good_backbone_has_its_facts(directory):
    model, pad_token_id, facts = backbone.load_verified(directory)
    assert not model.training
    assert pad_token_id == 0
    assert facts["probe_shape"][::2] == [2, 32]
    assert facts["vocabulary"] == facts["embedding_rows"]
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())


def test_weights_that_are_not_finite_are_refused(directory):
    def change(weights):
        weights["transformer.layer.0.ffn.lin1.weight"][0, 0] = float("nan")

    change_weights(directory, change)
    assert fails(directory) == "hidden states are not finite: the weights are broken"


def test_missing_weights_are_named(directory):
    def change(weights):
        del weights["transformer.layer.1.ffn.lin1.bias"]
        del weights["transformer.layer.1.ffn.lin1.weight"]

    change_weights(directory, change)
    assert fails(directory) == "the weights lack transformer.layer.1.ffn.lin1.bias and 1 more"


def test_a_tokenizer_that_does_not_fit_the_embedding_is_refused(directory):
    path = directory / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    rows = len(vocabulary)
    vocabulary["surplus"] = rows
    path.write_text(json.dumps(tokenizer))
    assert fails(directory) == (
        f"the tokenizer has {rows + 1} tokens but the embedding has {rows} rows; "
        "they do not belong together"
    )
