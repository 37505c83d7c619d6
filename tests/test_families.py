"""Every architecture that a backbone may have, through the stages: miniatures with random weights
and their own kind of tokenizer.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from conftest import OPINIONS, WORDS, Project, run_here, use_small_data, write_reviews
from test_models import positive, predictions, scores, texts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    pipeline,
)

from stages import lora
from stages.lib.encoder import tokenizer as tokenizers
from stages.lib.schema import params
from stages.lib.sources import encoders
from stages.lib.training import classifier, dropout, head
from stages.lib.vectors import features

# Run in the precision that `auto` means here, and then in the other one (see `make test`).
pytestmark = pytest.mark.precision

FAMILIES = {"distilbert": "DistilBert", "bert": "Bert", "roberta": "Roberta",
            "electra": "Electra", "modernbert": "ModernBert"}  # fmt: skip
BRACKETS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ANGLES = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
# Positions; RoBERTa starts counting them after its padding token's.
TOKENS = 64
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "max_position_embeddings": TOKENS,
}
OF_FAMILY = {
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_heads": 4, "n_layers": 2,
                   "max_position_embeddings": TOKENS},
    "bert": SHAPE,
    "roberta": SHAPE | {"max_position_embeddings": TOKENS + 2, "type_vocab_size": 1},
    "electra": SHAPE | {"embedding_size": 16},
    # Two windows of different widths, as in real models, and their pooling.
    "modernbert": SHAPE | {"local_attention": 4, "global_attn_every_n_layers": 2,
                           "attention_dropout": 0.1, "classifier_dropout": 0.1,
                           "classifier_pooling": "mean"},
}  # fmt: skip
HEADS = {
    "distilbert": ["pre_classifier", "classifier"],
    "bert": ["classifier"],
    "roberta": ["classifier"],
    "electra": ["classifier"],
    "modernbert": ["head", "classifier"],
}


def bytes_tokenizer(special):
    """Make a byte-level BPE tokenizer; texts start with `special[0]` and end with `special[2]`."""
    start, pad, end, unknown, mask = special
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    ids = {token: tokenizer.token_to_id(token) for token in (start, end)}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=list(ids.items())
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, unk_token=unknown, mask_token=mask,
        cls_token=start, sep_token=end,
    )  # fmt: skip


def make_tokenizer(family, directory):
    if family == "roberta":
        # Old repositories have a vocabulary and merges, but no tokenizer.json.
        fast = bytes_tokenizer(ANGLES)
        fast.backend_tokenizer.model.save(str(directory))
        kind = {"tokenizer_class": "RobertaTokenizer"}
        (directory / "tokenizer_config.json").write_text(json.dumps(kind))
    elif family == "modernbert":
        start, pad, end = "[CLS]", "[PAD]", "[SEP]"
        bytes_tokenizer([start, pad, end, "[UNK]", "[MASK]"]).save_pretrained(directory)
    else:
        vocabulary = [*BRACKETS, *WORDS, "##s", "s"]
        (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
        kind = {"tokenizer_class": f"{FAMILIES[family]}Tokenizer", "model_max_length": TOKENS}
        (directory / "tokenizer_config.json").write_text(json.dumps(kind))
    return AutoTokenizer.from_pretrained(directory)


def make_miniature(family, directory, **changes):
    tokenizer = make_tokenizer(family, directory)
    settings = OF_FAMILY[family] | {"pad_token_id": tokenizer.pad_token_id} | changes
    config = getattr(transformers, f"{FAMILIES[family]}Config")(
        vocab_size=len(tokenizer), **settings
    )
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(directory)
    return directory


def read_json(path):
    return json.loads(Path(path).read_text())


def run_stages(project, monkeypatch):
    """Run the stages that use a backbone, in this process."""
    monkeypatch.chdir(project.path)
    run_here(monkeypatch, "download", "tokenize", "extract-cls-features", "train-finetune-head",
             "train-finetune-full", "train-lora")  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """The working directory is a project after the stages have run on a miniature of the family."""
    directory = tmp_path_factory.mktemp(request.param)
    (directory / "miniature").mkdir()
    miniature = make_miniature(request.param, directory / "miniature")
    project = Project(directory / "project")
    use_small_data(project, write_reviews(directory / "reviews"), miniature)
    with pytest.MonkeyPatch.context() as patch:
        run_stages(project, patch)
        yield request.param


def test_all_families_are_here_and_have_targets():
    assert set(FAMILIES) == set(encoders.FAMILIES) == set(lora.AUTO)


def test_a_text_starts_with_the_token_whose_state_stands_for_it(family):
    tokenizer = AutoTokenizer.from_pretrained("data/backbone")
    start, *_, end = tokenizer("a great film")["input_ids"]
    assert tokenizer.convert_ids_to_tokens([start, end]) == (
        ["<s>", "</s>"] if family == "roberta" else ["[CLS]", "[SEP]"]
    )


def test_features_are_the_first_tokens_hidden_state(family):
    tokenizer = AutoTokenizer.from_pretrained("data/backbone")
    batch = tokenizer(texts(), padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained("data/backbone").eval()(**batch).last_hidden_state
    assert np.allclose(features.load("test")[0], hidden[:, 0], atol=1e-5)


@pytest.mark.parametrize("name", ["finetune-head", "finetune-full"])
def test_a_saved_model_reloads_to_the_reported_scores(family, name):
    classify = pipeline("text-classification", f"data/models/{name}")
    expected = predictions(name)
    for result, row in zip(classify(texts()), expected.itertuples(), strict=True):
        assert result["label"] == row.prediction
        assert result["score"] == pytest.approx(row.score, abs=1e-5)


def test_an_adapter_reloads_with_its_head_to_the_reported_scores(family):
    from peft import AutoPeftModelForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained("data/models/lora")
    model = AutoPeftModelForSequenceClassification.from_pretrained("data/models/lora")
    assert np.allclose(scores(model, tokenizer), positive(predictions("lora")), atol=1e-6)


def test_logits_of_cached_features_are_those_of_the_whole_model(family):
    tokenizer = AutoTokenizer.from_pretrained("data/backbone")
    model = AutoModelForSequenceClassification.from_pretrained("data/models/finetune-head").eval()
    cached = head.logits(head.Head(model), head.Vectors(*features.load("test")))
    batch = tokenizer(texts(), padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        assert np.allclose(model(**batch).logits, cached, atol=1e-5)


def test_training_the_head_leaves_the_backbone_as_it_was(family):
    before = AutoModelForSequenceClassification.from_pretrained("data/backbone")
    after = AutoModelForSequenceClassification.from_pretrained("data/models/finetune-head")
    weights = after.base_model.state_dict()
    assert all(
        torch.equal(weights[name], weight)
        for name, weight in before.base_model.state_dict().items()
    )


def test_lora_trains_adapters_on_the_targets_and_the_head(family):
    config = read_json("data/models/lora/adapter_config.json")
    assert set(config["target_modules"]) == set(lora.AUTO[family])
    assert set(config["modules_to_save"]) >= set(HEADS[family])
    model = classifier.create(["negative", "positive"])
    assert classifier.head(model) == HEADS[family]
    linear = [
        module
        for name, module in model.base_model.named_modules()
        if name.rpartition(".")[2] in lora.AUTO[family]
    ]
    assert len(linear) == (2 if family == "modernbert" else 4)
    adapters = sum(8 * (layer.in_features + layer.out_features) for layer in linear)
    whole = sum(p.numel() for name in HEADS[family] for p in getattr(model, name).parameters())
    total = sum(p.numel() for p in model.parameters())
    counts = classifier.parameters(lora.adapt(model, params.load("lora").lora))
    assert counts == {"trainable": adapters + whole, "total": total + adapters}


def test_named_targets_win_over_auto(family):
    settings = params.load("lora").lora
    model = classifier.create(["negative", "positive"])
    other = {"distilbert": "k_lin", "modernbert": "Wi"}.get(family, "key")
    adapted = lora.adapt(model, settings.model_copy(update={"targets": [other]}))
    assert any(f".{other}.lora_A." in name for name, _ in adapted.named_parameters())


@pytest.fixture
def pair(family):
    """Two classifiers with the same weights, one with cheap dropout, and a padded batch.

    The batch is longer than the windows of local attention.
    """
    originals = [classifier.create(["negative", "positive"]) for _ in range(2)]
    originals[1].load_state_dict(originals[0].state_dict())
    dropout.make_cheap(originals[1])
    tokenizer = AutoTokenizer.from_pretrained("data/backbone")
    long = " ".join((OPINIONS[0] + WORDS[:7]) * 2)
    batch = tokenizer([long, "a witty film"], padding=True, return_tensors="pt",
                      return_token_type_ids=False)  # fmt: skip
    return (*originals, batch)


def without_dropout(model, rest=0.0):
    """Turn dropout off; `rest` is the rate in attention.

    A tiny rate is practically no dropout, but takes the code path of training.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rest if name.endswith(("attention.dropout", "self.dropout")) else 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = rest


def test_cheap_dropout_changes_nothing_without_dropout(pair):
    original, cheap, batch = pair
    with torch.inference_mode():
        expected = original.eval()(**batch).logits
        assert torch.allclose(cheap.eval()(**batch).logits, expected, atol=1e-5)
    without_dropout(original)
    without_dropout(cheap, 1e-9)
    expected, found = (model.train()(**batch).logits for model in (original, cheap))
    assert torch.allclose(found, expected, atol=1e-5)


def test_cheap_dropout_drops_in_training(pair, monkeypatch):
    _, cheap, batch = pair
    drops, draw = [], dropout._draw
    monkeypatch.setattr(dropout, "_draw", lambda x, p: drops.append((x.shape, p)) or draw(x, p))
    first, second = (cheap.train()(**batch).logits for _ in range(2))
    assert not torch.allclose(first, second, atol=1e-5)
    tokens = batch["input_ids"].shape[1]
    # Dropout happens once per layer in the attention, and PyTorch's own is used nowhere.
    attention = [(shape, p) for shape, p in drops if len(shape) == 4]
    assert attention == [((2, 4, tokens, tokens), 0.1)] * 2 * 2
    assert not [m for m in cheap.modules() if type(m) is torch.nn.Dropout]


def test_the_limit_is_what_the_positions_allow(family):
    tokenizer = AutoTokenizer.from_pretrained("data/backbone")
    assert tokenizers.longest(tokenizer, "data/backbone") == TOKENS
    ids = tokenizer(" ".join(WORDS * TOKENS), truncation=True, max_length=TOKENS)["input_ids"]
    model = AutoModel.from_pretrained("data/backbone").eval()
    with torch.inference_mode():
        assert model(torch.tensor([ids])).last_hidden_state.shape == (1, TOKENS, 32)


def test_a_modernbert_that_takes_the_mean_is_made_to_take_cls(family):
    """Otherwise the cached features and an adapter's base would not be what the head learns on."""
    pooling = read_json("data/backbone/config.json").get("classifier_pooling")
    assert pooling == ("cls" if family == "modernbert" else None)


@pytest.fixture(scope="module")
def without_pooler(tmp_path_factory):
    """A project after the stages on a BERT without a pooler, as masked language models are."""
    directory = tmp_path_factory.mktemp("without_pooler")
    miniature = directory / "miniature"
    miniature.mkdir()
    make_miniature("bert", miniature)
    AutoModelForMaskedLM.from_pretrained(miniature).save_pretrained(miniature)
    project = Project(directory / "project")
    use_small_data(project, write_reviews(directory / "reviews"), miniature)
    with pytest.MonkeyPatch.context() as patch:
        run_stages(project, patch)
        yield


def test_a_pooler_that_the_weights_lack_is_trained_and_saved_with_the_head(without_pooler):
    from peft import AutoPeftModelForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained("data/backbone")
    for name, load in (
        ("finetune-head", AutoModelForSequenceClassification),
        ("lora", AutoPeftModelForSequenceClassification),
    ):
        model = load.from_pretrained(f"data/models/{name}")
        assert np.allclose(scores(model, tokenizer), positive(predictions(name)), atol=1e-5)
        costs = read_json(f"metrics/costs/{name}.json")
        assert costs["trainable_parameters"] >= 32 * 33 + 2 * 33
