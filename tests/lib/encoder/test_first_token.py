"""stages.lib.encoder.first_token: the same function with less computation in the last layer."""

import copy

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertModel,
)

from stages.lib.encoder import first_token
from stages.lib.training import dropout

CONFIG = DistilBertConfig(
    vocab_size=50, dim=16, hidden_dim=32, n_heads=2, n_layers=2, max_position_embeddings=16
)
BATCH = {
    "input_ids": torch.tensor([[2, 7, 8, 9, 3], [2, 10, 3, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}


@pytest.fixture(params=["sdpa", "eager"])
def classifier(request):
    torch.manual_seed(0)
    model = DistilBertForSequenceClassification(CONFIG)
    model.set_attn_implementation(request.param)
    return model.eval()


def test_logits_loss_and_gradients_are_those_of_the_whole_model(classifier):
    narrow = copy.deepcopy(classifier)
    first_token.keep_first(narrow)
    labels = torch.tensor([0, 1])
    expected, found = (model(**BATCH, labels=labels) for model in (classifier, narrow))
    assert torch.allclose(found.logits, expected.logits, atol=1e-6)
    expected.loss.backward()
    found.loss.backward()
    for (name, one), two in zip(classifier.named_parameters(), narrow.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, atol=1e-6), name


def test_the_last_hidden_state_is_that_of_the_first_token():
    torch.manual_seed(0)
    model = DistilBertModel(CONFIG).eval()
    expected = model(**BATCH).last_hidden_state[:, :1]
    first_token.keep_first(model)
    found = model(**BATCH).last_hidden_state
    assert found.shape == (2, 1, 16)
    assert torch.allclose(found, expected, atol=1e-6)


def test_it_goes_together_with_cheap_dropout(classifier):
    whole, narrow = copy.deepcopy(classifier), copy.deepcopy(classifier)
    first_token.keep_first(narrow)
    dropout.make_cheap(narrow)
    assert torch.allclose(narrow(**BATCH).logits, whole(**BATCH).logits, atol=1e-6)
    narrow.train()
    once, twice = narrow(**BATCH).logits, narrow(**BATCH).logits
    assert not torch.allclose(once, twice)


def test_what_is_saved_is_a_distilbert_like_any_other(classifier, tmp_path):
    expected = classifier(**BATCH).logits
    first_token.keep_first(classifier)
    classifier.save_pretrained(tmp_path)
    again = DistilBertForSequenceClassification.from_pretrained(tmp_path).eval()
    assert torch.allclose(again(**BATCH).logits, expected, atol=1e-6)


def test_other_architectures_are_left_alone():
    config = BertConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_attention_heads=2,
        num_hidden_layers=2, max_position_embeddings=16,
    )  # fmt: skip
    model = BertModel(config).eval()
    first_token.keep_first(model)
    assert model(**BATCH).last_hidden_state.shape == (2, 5, 16)
