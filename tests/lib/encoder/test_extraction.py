"""stages.lib.encoder.extraction: [CLS] vectors from token ids, in any form that an engine uses."""

import numpy as np
import pytest
import torch
from transformers import AutoModel

from stages.lib.core.errors import InputError
from stages.lib.encoder.extraction import Extractor

IDS = [[2, 7, 3], [2, 5, 6, 9, 8, 3], [2, 3]]


@pytest.fixture(scope="module")
def extractor(miniature):
    return Extractor(miniature, "fp32", tokens_per_batch=8)


def test_vectors_are_the_backbones_first_hidden_states_in_the_order_of_the_rows(
    extractor, miniature
):
    backbone = AutoModel.from_pretrained(miniature).eval()
    with torch.inference_mode():
        expected = [backbone(torch.tensor([ids])).last_hidden_state[0, 0].numpy() for ids in IDS]
    assert np.allclose(extractor(IDS), expected, atol=1e-6)


@pytest.mark.parametrize("form", [torch.tensor, lambda ids: np.array(ids, np.int32)])
def test_tensors_and_arrays_give_what_lists_give(extractor, form):
    assert np.array_equal(extractor([form(ids) for ids in IDS]), extractor(IDS))


def test_a_backbone_that_is_cast_is_one_that_was_loaded_in_that_precision(miniature):
    loaded, cast = Extractor(miniature, "bf16"), Extractor(miniature, "fp32")
    exact = cast(IDS)
    cast.cast("bf16")
    assert (loaded.precision, cast.precision) == ("bf16", "bf16")
    assert np.array_equal(cast(IDS), loaded(IDS))
    assert not np.array_equal(cast(IDS), exact)


def test_a_backbone_in_bf16_keeps_only_packed_weights_of_its_linear_layers(miniature):
    extractor = Extractor(miniature, "bf16")
    kept = [name for name, _ in extractor._model.named_parameters()]
    assert any("embeddings" in name for name in kept)
    assert not any("_lin." in name for name in kept)


def test_pytorchs_attention_is_used_where_it_is_quicker(miniature, monkeypatch):
    calls = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def counted(*args, **kwargs):
        calls.append(args)
        return attend(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    extractor = Extractor(miniature, "fp32", tokens_per_batch=24)
    extractor(IDS)
    assert calls
    extractor.cast("bf16")
    calls.clear()
    found = extractor(IDS)
    assert not calls
    # Padding is left out; attending to it would move a vector by 0.03.
    alone = np.concatenate([extractor([ids]) for ids in IDS])
    assert np.abs(found - alone).max() < 0.02


@pytest.mark.parametrize(
    ("precision", "advice"),
    [
        ("bf16", "set 'precision: fp32' in params.yaml"),
        ("fp32", "its weights in .+ may be damaged"),
    ],
)
def test_vectors_that_are_not_finite_are_refused(miniature, precision, advice):
    broken = Extractor(miniature, precision)
    with torch.no_grad():
        broken._model.embeddings.word_embeddings.weight[9] = torch.nan
    with pytest.raises(InputError, match=f"not finite in {precision}: {advice}$"):
        broken(IDS)
