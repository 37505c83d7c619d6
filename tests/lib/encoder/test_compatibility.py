"""stages.lib.encoder.compatibility: the line for each set of files that do not belong together."""

import json

import pytest
import torch
from conftest import change_weights

from stages.lib.core.errors import InputError
from stages.lib.encoder import compatibility


def change_config(own_backbone, **changes):
    path = own_backbone / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def line(own_backbone):
    with pytest.raises(InputError) as error:
        compatibility.check(own_backbone, "mine")
    assert str(own_backbone) not in str(error.value)
    return str(error.value)


def test_files_that_belong_together_need_no_warning(own_backbone):
    assert compatibility.check(own_backbone, "mine") == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n_layers": "six"}, "Field 'n_layers' expected int, got str (value: 'six')"),
        ({"n_layers": 0}, "0 layers, expected at least 1"),
        ({"n_heads": 7}, "config.n_heads 7 must divide config.dim 32 evenly"),
        ({"activation": "swoosh"}, "function swoosh not found"),
        ({"dropout": "much"}, "Field 'dropout' with value 'much'"),
        ({"dtype": "float7"}, "has no attribute 'float7'"),
    ],
)
def test_a_config_that_makes_no_model_is_named_with_the_reason(own_backbone, changes, reason):
    change_config(own_backbone, **changes)
    message = line(own_backbone)
    assert message.startswith("mine/config.json: ")
    assert reason in message


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n_layers": 3}, "the weights lack transformer.layer.2.attention.k_lin.bias and 15 more"),
        ({"dim": 64}, "embeddings.LayerNorm.bias is [32] in the weights and [64] by the config"),
        (
            {"hidden_dim": 32},
            "transformer.layer.0.ffn.lin1.bias is [64] in the weights and [32] by the config",
        ),
        ({"vocab_size": 3000}, "embeddings.word_embeddings.weight is ["),
        (
            {"max_position_embeddings": 32},
            "embeddings.position_embeddings.weight is [64, 32] in the weights and [32, 32] by",
        ),
        ({"model_type": "bert"}, "the weights lack embeddings.token_type_embeddings.weight and "),
    ],
)
def test_weights_that_the_config_contradicts_are_named(own_backbone, changes, reason):
    change_config(own_backbone, **changes)
    message = line(own_backbone)
    assert message.startswith(f"mine: {reason}")
    assert message.endswith("config.json and model.safetensors do not belong together")


def test_missing_weights_are_named_without_a_report_of_the_library(own_backbone, capfd):
    def change(weights):
        del weights["transformer.layer.1.ffn.lin1.bias"]
        del weights["transformer.layer.1.ffn.lin1.weight"]

    change_weights(own_backbone, change)
    assert line(own_backbone).startswith(
        "mine: the weights lack transformer.layer.1.ffn.lin1.bias and 1 more: "
    )
    assert "MISSING" not in capfd.readouterr().err


def test_truncated_weights_are_refused(own_backbone):
    path = own_backbone / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert line(own_backbone).startswith(
        "mine/model.safetensors: not a complete safetensors file: "
    )


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"version": "1.0", "added', b"\xff{}"])
def test_a_tokenizer_that_cannot_be_loaded_is_named(own_backbone, content):
    (own_backbone / "tokenizer.json").write_bytes(content)
    assert line(own_backbone).startswith("mine/tokenizer.json: cannot be used: ")


def test_a_tokenizer_that_does_not_fit_the_embedding_is_refused(own_backbone):
    path = own_backbone / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    rows = len(vocabulary)
    vocabulary["surplus"] = rows
    path.write_text(json.dumps(tokenizer))
    assert line(own_backbone) == (
        f"mine: the tokenizer has {rows + 1} tokens but the embedding has {rows} rows; "
        "they do not belong together"
    )


@pytest.mark.parametrize(
    "place", ["embeddings.word_embeddings.weight", "embeddings.LayerNorm.bias"]
)
def test_quantized_weights_are_refused(own_backbone, place):
    def change(weights):
        weights[place] = weights[place].mul(20).to(torch.int8)

    change_weights(own_backbone, change)
    assert line(own_backbone) == (
        f"mine/model.safetensors: {place} is I8, expected one of F64, F32, F16, BF16; quantized "
        "weights are not read"
    )


def test_a_config_whose_model_gives_tuples_is_refused(own_backbone):
    change_config(own_backbone, return_dict=False)
    assert line(own_backbone).startswith("mine/config.json: return_dict is false, ")


def test_a_vocabulary_that_skips_numbers_is_measured_by_the_last(own_backbone):
    path = own_backbone / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["witty"] = 99
    path.write_text(json.dumps(tokenizer))
    assert line(own_backbone).startswith(
        "mine: the tokenizer has 100 tokens but the embedding has "
    )


def test_a_tokenizer_without_a_token_for_the_unknown_is_refused(own_backbone):
    path = own_backbone / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["unk_token"] = "[NONE]"
    path.write_text(json.dumps(tokenizer))
    assert "Missing [UNK] token" in line(own_backbone)


def test_a_tokenizer_that_pads_with_another_token_than_the_config_says_is_refused(own_backbone):
    change_config(own_backbone, pad_token_id=1)
    assert line(own_backbone) == (
        "mine: the tokenizer pads with 0 ([PAD]), but config.json says pad_token_id: 1"
    )


def test_layers_that_the_config_leaves_out_are_a_warning(own_backbone):
    change_config(own_backbone, n_layers=1)
    assert compatibility.check(own_backbone, "mine") == [
        "mine: the config has 1 layers and the weights have more: 16 tensors are not used"
    ]


@pytest.mark.parametrize("value", [0, 0.5])
def test_constant_matrices_are_a_warning(own_backbone, value):
    def change(weights):
        weights["transformer.layer.0.ffn.lin1.weight"].fill_(value)
        weights["transformer.layer.1.ffn.lin2.weight"].fill_(value)

    change_weights(own_backbone, change)
    assert compatibility.check(own_backbone, "mine") == [
        "mine/model.safetensors: all values of transformer.layer.0.ffn.lin1.weight and of 1 more "
        "are the same: the weights are not those of a trained model"
    ]


def test_weights_of_a_pretraining_head_need_no_warning(own_backbone):
    def change(weights):
        weights["vocab_layer_norm.weight"] = weights["embeddings.LayerNorm.weight"].clone()

    change_weights(own_backbone, change)
    assert compatibility.check(own_backbone, "mine") == []
