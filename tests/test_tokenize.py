"""stages.tokenize: token ids are those of the tokenizer, whatever pieces the texts come in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from transformers import AutoTokenizer

from stages import tokenize
from stages.lib.core import manifest
from stages.lib.core.errors import InputError
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


def test_the_files_have_a_row_group_per_chunk_and_no_metadata_of_datasets(here, monkeypatch):
    monkeypatch.setattr(tokenize, "CHUNK", 2)
    tokenize.main()
    with pq.ParquetFile(tokenize.TOKENIZED / "train.parquet") as file:
        groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        assert file.schema_arrow.metadata is None
        assert file.schema_arrow.names == ["input_ids", "label"]
        assert file.schema_arrow.field("input_ids").type == pa.list_(pa.int32())
    assert groups == [2, 2, 1]


def break_the_data(path):
    """Overwrite the middle of a parquet file, so that its footer still names all columns."""
    content = bytearray(path.read_bytes())
    texts = pq.read_metadata(path).row_group(0).column(0)
    start = texts.dictionary_page_offset or texts.data_page_offset
    content[start : start + texts.total_compressed_size] = b"x" * texts.total_compressed_size
    path.write_bytes(content)


def test_a_broken_page_is_named_and_leaves_nothing_behind(here):
    break_the_data(tokenize.RAW / "validation.parquet")
    before = sorted(Path("data").iterdir())
    with pytest.raises(InputError, match=r"^data/raw/validation.parquet: cannot be read"):
        tokenize.main()
    assert sorted(Path("data").iterdir()) == before


@pytest.mark.parametrize("broken", [False, True])
def test_nothing_goes_to_the_cache_of_datasets(here, tmp_path, broken):
    if broken:
        break_the_data(tokenize.RAW / "validation.parquet")
    (tmp_path / "home").mkdir()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "home")}
    environment |= {"HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "stages.tokenize"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == broken
    assert len(done.stderr.splitlines()) == broken, done.stderr
    assert not list((tmp_path / "home").iterdir())
    written = ["about.json", "test.parquet", "train.parquet", "validation.parquet"]
    found = sorted(path.name for path in Path("data").glob("tokenized*/*"))
    assert found == ([] if broken else written)
