"""stages.tokenize: token ids are those of the tokenizer, whatever pieces the texts come in."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from stages import tokenize
from stages.lib.core import manifest
from stages.lib.encoder import tokens
from stages.lib.reviews import splitting

TEXTS = ["a great film", "the film is not very witty at all", "Dull", "unheard of: a film", "it"]
LABELS = [1, 0, 0, 1, 1]


@pytest.fixture
def here(tmp_path, monkeypatch, miniature, project):
    monkeypatch.chdir(project.path)
    tokenize.BACKBONE.parent.mkdir()
    tokenize.BACKBONE.symlink_to(miniature)
    tokenize.RAW.mkdir()
    manifest.write(tokenize.RAW, {"labels": ["negative", "positive"], "reviews": {}})
    for split in ("train", "validation", "test"):
        table = pa.table([TEXTS, LABELS], schema=splitting.SCHEMA)
        pq.write_table(table, tokenize.RAW / f"{split}.parquet")
    project.set(tokenize__max_length=6)


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_ids_are_the_tokenizers_own(here, monkeypatch, miniature, chunk):
    monkeypatch.setattr(tokenize, "CHUNK", chunk)
    tokenize.main()
    found = tokens.load("train")
    tokenizer = AutoTokenizer.from_pretrained(miniature)
    expected = tokenizer(TEXTS, truncation=True, max_length=6)["input_ids"]
    assert [row.tolist() for row in found.input_ids] == expected
    assert found.labels.tolist() == LABELS


def test_the_facts_are_of_whole_texts(here, monkeypatch):
    monkeypatch.setattr(tokenize, "CHUNK", 2)
    tokenize.main()
    facts = pq.read_table(tokenize.TOKENIZED / "train.parquet")
    assert max(facts["input_ids"].combine_chunks().value_lengths().to_pylist()) == 6
    train = json.loads(tokenize.METRICS.read_text())["train"]
    assert train["tokens"]["p100"] == 10
    # [CLS] and [SEP] count, so the second and the fourth text are longer than six tokens.
    assert train["truncated_share"] == 0.4
