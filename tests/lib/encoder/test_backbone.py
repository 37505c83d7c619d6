"""stages.lib.encoder.backbone: the message for each backbone that cannot be used."""

import pytest
from conftest import change_weights

from stages.lib.core.errors import InputError
from stages.lib.encoder import backbone


def fails(own_backbone):
    with pytest.raises(InputError) as error:
        backbone.load_verified(own_backbone)
    return str(error.value).removeprefix(f"{own_backbone}: ")


def test_a_good_backbone_has_its_facts(own_backbone):
    model, pad_token_id, facts = backbone.load_verified(own_backbone)
    assert not model.training
    assert pad_token_id == 0
    assert facts["probe_shape"][::2] == [2, 32]
    assert facts["vocabulary"] == facts["embedding_rows"]
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())


def test_weights_that_are_not_finite_are_refused(own_backbone):
    def change(weights):
        weights["transformer.layer.0.ffn.lin1.weight"][0, 0] = float("nan")

    change_weights(own_backbone, change)
    assert fails(own_backbone) == "hidden states are not finite: the weights are broken"
