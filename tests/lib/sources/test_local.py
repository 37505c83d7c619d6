"""Local reviews and backbones, and the message for what cannot be used."""

import json
import shutil

import pytest
from conftest import dataset, write_reviews

from stages.lib.core.errors import InputError
from stages.lib.sources import local


def fails(call, *args):
    with pytest.raises(InputError) as error:
        call(*args)
    return str(error.value)


def sizes(splits):
    return {name: len(split) for name, split in splits.items()}


def test_a_folder_has_a_file_for_each_split_with_its_checksum(tmp_path):
    splits, labels, provenance, _ = local.reviews(dataset(path=str(write_reviews(tmp_path))))
    assert sizes(splits) == {"train": 24, "validation": 24, "test": 24}
    assert labels == ["negative", "positive"]
    assert set(provenance["sha256"]) == {"train.csv", "validation.csv", "test.csv"}
    assert provenance["labels"] == {"0": "negative", "1": "positive"}
    assert "split" not in provenance


@pytest.mark.parametrize(
    ("missing", "expected", "told"),
    [
        (["test"], (22, 24, 2), "test split off here: 90/10"),
        (["validation", "test"], (20, 2, 2), "validation and test split off here: 80/10/10"),
    ],
)
def test_what_a_folder_lacks_is_split_off_train(tmp_path, missing, expected, told):
    write_reviews(tmp_path)
    for name in missing:
        (tmp_path / f"{name}.csv").unlink()
    splits, _, provenance, _ = local.reviews(dataset(path=str(tmp_path), split_seed=7))
    assert tuple(sizes(splits).values()) == expected
    assert provenance["split"] == f"{told}, stratified by label, dataset.split_seed 7"


def test_one_file_is_all(tmp_path):
    path = write_reviews(tmp_path) / "train.csv"
    splits, _, provenance, _ = local.reviews(dataset(path=str(path)))
    assert sizes(splits) == {"train": 20, "validation": 2, "test": 2}
    assert list(provenance["sha256"]) == ["train.csv"]
    assert "80/10/10" in provenance["split"]


def test_a_folder_without_train_is_named(tmp_path):
    (write_reviews(tmp_path) / "train.csv").unlink()
    line = fails(local.reviews, dataset(path=str(tmp_path)))
    assert line == (
        f"dataset.path: {tmp_path} lacks train.parquet, train.csv, train.tsv or train.jsonl"
    )


def test_an_ambiguous_split_is_named(tmp_path):
    (write_reviews(tmp_path) / "test.parquet").touch()
    line = fails(local.reviews, dataset(path=str(tmp_path)))
    assert line == f"dataset.path: {tmp_path} has both test.csv and test.parquet"


def test_a_split_by_another_name_does_not_go_unseen(tmp_path):
    (write_reviews(tmp_path) / "validation.csv").rename(tmp_path / "dev.csv")
    line = fails(local.reviews, dataset(path=str(tmp_path)))
    assert line == (
        f"dataset.path: {tmp_path} has dev.csv but no validation: rename it to one of train, "
        f"validation, test, or name one file: dataset.path={tmp_path}/dev.csv"
    )


def test_other_files_may_lie_beside_whole_splits(tmp_path):
    (write_reviews(tmp_path) / "notes.csv").touch()
    assert sizes(local.reviews(dataset(path=str(tmp_path))).splits)["test"] == 24


def shards(directory, names, split="train"):
    """Spread the lines of a split's file over files of these names."""
    header, *rows = (directory / f"{split}.csv").read_text().splitlines()
    (directory / f"{split}.csv").unlink()
    for number, name in enumerate(names):
        (directory / name).parent.mkdir(exist_ok=True)
        part = rows[number * len(rows) // len(names) : (number + 1) * len(rows) // len(names)]
        (directory / name).write_text("\n".join([header, *part]) + "\n")


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00003.csv", "train-00001-of-00003.csv", "train-00002-of-00003.csv"],
        ["train-00000-of-00002-0a1b2c3d.csv", "train-00001-of-00002-9f8e7d6c.csv"],
        ["train/1.csv", "train/2.csv", "train/10.csv"],
        ["train/train-00000-of-00002.csv", "train/train-00001-of-00002.csv"],
    ],
    ids=["set", "hashes", "folder", "both"],
)
def test_a_split_in_several_files_is_read_in_order(tmp_path, names):
    whole = list(local.reviews(dataset(path=str(write_reviews(tmp_path)))).splits["train"].tables())
    shards(tmp_path, names)
    found = local.reviews(dataset(path=str(tmp_path)))
    assert sizes(found.splits) == {"train": 24, "validation": 24, "test": 24}
    texts = [text for table in found.splits["train"].tables() for text in table["text"].to_pylist()]
    assert texts == [text for table in whole for text in table["text"].to_pylist()]
    assert set(found.provenance["sha256"]) == {*names, "validation.csv", "test.csv"}


def test_a_set_that_lacks_a_file_is_named(tmp_path):
    names = [f"train-{number:05}-of-00011.csv" for number in range(11)]
    shards(write_reviews(tmp_path), names)
    (tmp_path / names[7]).unlink()
    assert fails(local.reviews, dataset(path=str(tmp_path))) == (
        f"dataset.path: {tmp_path} lacks train-00007-of-00011.csv"
    )


@pytest.mark.parametrize(
    ("other", "shown"),
    [
        ("train.csv", "train-*-of-00002 and train.csv"),
        ("train-00000-of-00004.csv", "train-*-of-00002 and train-*-of-00004"),
        ("train-00001-of-00002-00.csv", "train-00001-of-00002-00.csv and train-00001-of-00002.csv"),
        ("train/0.csv", "train and train-*-of-00002"),
    ],
)
def test_a_set_beside_other_files_of_its_split_is_ambiguous(tmp_path, other, shown):
    shards(write_reviews(tmp_path), ["train-00000-of-00002.csv", "train-00001-of-00002.csv"])
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).touch()
    line = fails(local.reviews, dataset(path=str(tmp_path)))
    assert line.startswith(f"dataset.path: {tmp_path} has both ")
    assert sorted(line.partition("both ")[2].split(" and ")) == sorted(shown.split(" and "))


def test_a_row_of_a_set_is_named_with_its_file(tmp_path):
    shards(write_reviews(tmp_path), ["train-00000-of-00002.csv", "train-00001-of-00002.csv"])
    with (tmp_path / "train-00001-of-00002.csv").open("a") as file:
        file.write(" ,1\n")
    assert fails(local.reviews, dataset(path=str(tmp_path))) == (
        f"{tmp_path}/train-00001-of-00002.csv: row 13: text is empty"
    )


def test_a_file_of_another_format_is_refused(tmp_path):
    (tmp_path / "reviews.xlsx").touch()
    line = fails(local.reviews, dataset(path=f"{tmp_path}/reviews.xlsx"))
    assert line == (
        f"dataset.path: {tmp_path}/reviews.xlsx: expected .parquet, .csv, .tsv or .jsonl"
    )


def test_a_path_with_nothing_there_is_refused(tmp_path):
    path = f"{tmp_path}/none"
    assert fails(local.reviews, dataset(path=path)) == (
        f"dataset.path: {path}: no such file or folder"
    )
    assert fails(local.backbone, tmp_path / "none", tmp_path) == (
        f"backbone.path: {path} is not a directory"
    )


def test_a_folder_with_nothing_but_its_readme_is_not_given(tmp_path):
    (tmp_path / "README.md").touch()
    (tmp_path / ".DS_Store").touch()
    assert not local.is_given(tmp_path)
    (tmp_path / "train.csv").touch()
    assert local.is_given(tmp_path)
    assert local.is_given(tmp_path / "train.csv")


@pytest.fixture
def backbone(miniature, tmp_path):
    return shutil.copytree(miniature, tmp_path / "backbone")


def test_a_backbone_is_copied_without_what_else_lies_there(backbone, tmp_path):
    (backbone / "pytorch_model.bin").write_bytes(b"pickle")
    (tmp_path / "out").mkdir()
    assert local.backbone(backbone, tmp_path / "out")["path"] == str(backbone)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        ("config.json", "lacks config.json"),
        ("model.safetensors", "lacks model.safetensors"),
        ("tokenizer.json", "lacks tokenizer.json"),
    ],
)
def test_a_backbone_that_lacks_a_file_is_refused(backbone, tmp_path, missing, line):
    (backbone / missing).unlink()
    assert fails(local.backbone, backbone, tmp_path) == f"backbone.path: {backbone} {line}"


def test_pickled_weights_are_refused(backbone, tmp_path):
    (backbone / "model.safetensors").rename(backbone / "pytorch_model.bin")
    assert fails(local.backbone, backbone, tmp_path) == (
        f"backbone.path: {backbone} lacks model.safetensors; pytorch_model.bin is pickled and is "
        "not read: save it as safetensors"
    )


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"model_type": null}'])
def test_a_config_without_architecture_is_refused(backbone, tmp_path, text):
    (backbone / "config.json").write_text(text)
    assert fails(local.backbone, backbone, tmp_path).startswith(
        f"backbone.path: {backbone}/config.json"
    )


def test_a_config_that_is_not_json_is_refused_with_the_reason(backbone, tmp_path):
    path = backbone / "config.json"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert fails(local.backbone, backbone, tmp_path).startswith(
        f"backbone.path: {path}: not JSON: Unexpected UTF-8 BOM"
    )


def test_another_architecture_is_refused(backbone, tmp_path):
    config = json.loads((backbone / "config.json").read_text())
    (backbone / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    assert fails(local.backbone, backbone, tmp_path) == (
        f"backbone.path: {backbone}/config.json: model_type is 'gpt2', expected one of "
        "'distilbert', 'bert', 'roberta', 'electra', 'modernbert'"
    )


def test_weights_in_several_files_are_refused(backbone, tmp_path):
    (backbone / "model.safetensors").rename(backbone / "model-00001-of-00002.safetensors")
    assert fails(local.backbone, backbone, tmp_path) == (
        f"backbone.path: {backbone} lacks model.safetensors; model-00001-of-00002.safetensors is "
        "not read: save all weights in one file"
    )
