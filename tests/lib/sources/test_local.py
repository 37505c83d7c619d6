"""Local reviews and backbones, and the line for what cannot be used."""

import json
import shutil

import pytest
from conftest import write_reviews

from stages.lib.errors import InputError
from stages.lib.sources import local


def fails(call, *args):
    with pytest.raises(InputError) as error:
        call(*args)
    return str(error.value)


def test_reviews_have_their_checksums(tmp_path):
    splits, provenance = local.reviews(write_reviews(tmp_path))
    assert {name: table.num_rows for name, table in splits.items()} == {
        "train": 24,
        "validation": 24,
        "test": 24,
    }
    assert set(provenance["sha256"]) == {"train.csv", "validation.csv", "test.csv"}


def test_a_missing_split_is_named(tmp_path):
    (write_reviews(tmp_path) / "test.csv").unlink()
    line = fails(local.reviews, tmp_path)
    assert line == f"dataset.path: {tmp_path} lacks test.parquet or test.csv"


def test_an_ambiguous_split_is_named(tmp_path):
    (write_reviews(tmp_path) / "test.parquet").touch()
    line = fails(local.reviews, tmp_path)
    assert line == f"dataset.path: {tmp_path} has both of test.parquet or test.csv"


def test_what_is_not_a_directory_is_refused(tmp_path):
    for name, read in (
        ("dataset", local.reviews),
        ("backbone", lambda path: local.backbone(path, tmp_path)),
    ):
        assert fails(read, tmp_path / "none") == f"{name}.path: {tmp_path}/none is not a directory"


def test_a_folder_with_nothing_but_its_readme_is_not_given(tmp_path):
    (tmp_path / "README.md").touch()
    (tmp_path / ".DS_Store").touch()
    assert not local.is_given(tmp_path)
    (tmp_path / "train.csv").touch()
    assert local.is_given(tmp_path)


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


def test_truncated_weights_are_refused(backbone, tmp_path):
    path = backbone / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert fails(local.backbone, backbone, tmp_path).startswith(
        f"backbone.path: {path}: not whole safetensors: "
    )


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"model_type": null}'])
def test_a_config_without_architecture_is_refused(backbone, tmp_path, text):
    (backbone / "config.json").write_text(text)
    assert fails(local.backbone, backbone, tmp_path).startswith(
        f"backbone.path: {backbone}/config.json"
    )


def test_another_architecture_is_refused(backbone, tmp_path):
    config = json.loads((backbone / "config.json").read_text())
    (backbone / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    assert fails(local.backbone, backbone, tmp_path) == (
        f"backbone.path: {backbone}/config.json: model_type is 'gpt2', expected one of "
        "'distilbert', 'bert', 'roberta', 'electra', 'modernbert'"
    )
