"""stages.lib.encoder.backbone: the message for each backbone that cannot be used."""

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
