"""stages.lib.encoder.tokenizer: the message for each tokenizer that does not fit its backbone."""

import json
import shutil

import pytest

from stages.lib.core.errors import InputError
from stages.lib.encoder import tokenizer


@pytest.fixture
def directory(miniature, tmp_path):
    return shutil.copytree(miniature, tmp_path / "backbone")


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def fails(directory):
    with pytest.raises(InputError) as error:
        tokenizer.load(directory)
    return str(error.value).removeprefix(f"{directory}: ")


def test_a_tokenizer_without_padding_is_refused(directory):
    change(directory / "tokenizer_config.json", lambda content: content.pop("pad_token"))
    assert fails(directory) == "the tokenizer has no padding token"


@pytest.mark.parametrize("number", [3, None])
def test_a_config_that_pads_with_another_token_is_refused(directory, number):
    change(directory / "config.json", lambda content: content.update(pad_token_id=number))
    assert fails(directory) == (
        f"the tokenizer pads with 0 ([PAD]), but config.json says pad_token_id: {number}"
    )


def test_a_tokenizer_that_adds_no_first_token_is_refused(directory):
    change(directory / "tokenizer.json", lambda content: content.update(post_processor=None))
    assert fails(directory) == "the tokenizer does not start a text with [CLS] or <s>"


def test_the_limit_is_the_smaller_of_the_tokenizers_and_the_positions(directory):
    loaded = tokenizer.load(directory)
    assert tokenizer.longest(loaded, directory) == 64
    loaded.model_max_length = 10
    assert tokenizer.longest(loaded, directory) == 10


def test_a_backbone_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path):
    assert fails(tmp_path / "backbone") == "no backbone in it; 'dvc repro' creates it"
