"""stages.lib.schema.params: the schema, and the message that a user sees for each mistake."""

import copy
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from stages.lib.core import declarations
from stages.lib.core.errors import InputError
from stages.lib.schema import params

ROOT = Path(__file__).parents[3]


@pytest.fixture
def content():
    return declarations.read_yaml(str(ROOT / "params.yaml"))


def change(content, path, value):
    content = copy.deepcopy(content)
    *sections, key = path.split(".")
    place = content
    for section in sections:
        place = place[section]
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("lora.lr", "fast", "lora.lr: 'fast' is wrong: it should be a valid number"),
        ("lora.lr", "2e-4", "lora.lr: '2e-4' is wrong: it should be a valid number"),
        (
            "lora.lr",
            "a" * 20_000,
            f"lora.lr: '{'a' * 37}...{'a' * 38}' is wrong: it should be a valid number",
        ),
        ("lora.lr", -1.0, "lora.lr: -1.0 is wrong: it should be greater than 0"),
        ("lora.lr", float("nan"), "lora.lr: nan is wrong: it should be a finite number"),
        ("lora.lr", None, "lora.lr: None is wrong: it should be a valid number"),
        ("lora.lr", ..., "lora.lr: missing"),
        ("lora.r", 0, "lora.r: 0 is wrong: it should be greater than 0"),
        ("lora.r", 8.5, "lora.r: 8.5 is wrong: it should be a valid integer"),
        ("lora.epochs", True, "lora.epochs: True is wrong: it should be a valid integer"),
        ("lora.dropout", 1.0, "lora.dropout: 1.0 is wrong: it should be less than 1"),
        (
            "lora.targets",
            "q_lin",
            "lora.targets: 'q_lin' is wrong: it should be 'auto' or a list of layers' names",
        ),
        (
            "lora.targets",
            ["q_lin", 1],
            "lora.targets: ['q_lin', 1] is wrong: it should be 'auto' or a list of layers' names",
        ),
        (
            "lora.targets",
            [],
            "lora.targets: [] is wrong: it should be 'auto' or a list of layers' names",
        ),
        ("backbone.hub", None, "backbone.hub: None is wrong: it should be a valid string"),
        ("dataset.path", "", "dataset.path: '' is wrong: it should have at least 1 character"),
        ("lora.lrr", 1, "lora.lrr: unknown parameter; did you mean 'lr'?"),
        ("lora", 3, "lora: 3 is wrong: it should be a section with parameters"),
        ("lora", ..., "lora: missing"),
        ("lora-2e-4.r", "8", "lora-2e-4.r: '8' is wrong: it should be a valid integer"),
        ("source", "s3", "source: 's3' is wrong: it should be 'auto', 'hub' or 'pypi'"),
        ("sorce", "hub", "sorce: unknown parameter; did you mean 'source'?"),
        (
            "precision",
            "int8",
            "precision: 'int8' is wrong: it should be 'auto', 'fp32', 'bf16' or 'fp16'",
        ),
        ("launch", "", "launch: '' is wrong: it should be a command such as 'python'"),
        ("launch", " ", "launch: ' ' is wrong: it should be a command such as 'python'"),
        ("launch", 2, "launch: 2 is wrong: it should be a command such as 'python'"),
        ("seed", -1, "seed: -1 is wrong: it should be greater than or equal to 0"),
        (
            "lora.r",
            10**30,
            f"lora.r: {10**30} is wrong: it should be less than 2147483648",
        ),
        (
            "finetune-head.epochs",
            2**31,
            "finetune-head.epochs: 2147483648 is wrong: it should be less than 2147483648",
        ),
        ("svm.C", "big", "svm.C.0: 'big' is wrong: it should be a valid number"),
        ("svm.C", [0.1, 0], "svm.C.1: 0 is wrong: it should be greater than 0"),
        (
            "dataset.subset",
            1,
            "dataset.subset: 1 is wrong: it should be greater than or equal to 2",
        ),
        (
            "dataset.text_column",
            "",
            "dataset.text_column: '' is wrong: it should have at least 1 character",
        ),
        (
            "dataset.label_column",
            3,
            "dataset.label_column: 3 is wrong: it should be a valid string",
        ),
        (
            "dataset.split_seed",
            -1,
            "dataset.split_seed: -1 is wrong: it should be greater than or equal to 0",
        ),
        ("dataset.hub", None, "dataset.hub: None is wrong: it should be a valid string"),
        ("dataset.config", 1, "dataset.config: 1 is wrong: it should be a valid string"),
        (
            "dataset.textcolumn",
            "review",
            "dataset.textcolumn: unknown parameter; did you mean 'text_column'?",
        ),
        ("dataset.path", 7, "dataset.path: 7 is wrong: it should be a valid string"),
        (
            "tokenize.max_length",
            2,
            "tokenize.max_length: 2 is wrong: it should be greater than or equal to 3",
        ),
        ("finetune-full.warmup", 1, "finetune-full.warmup: 1 is wrong: it should be less than 1"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_parameter(content, path, value, line):
    with pytest.raises(InputError) as error:
        params.parse(change(content, path, value))
    assert str(error.value) == f"params.yaml: {line}"


SECTION = st.fixed_dictionaries(
    {
        "lr": st.floats(1e-12, 1e3),
        "epochs": st.integers(1, 10**6),
        "batch_size": st.integers(1, 10**6),
        "weight_decay": st.floats(0, 1e3),
        "warmup": st.floats(0, 0.999),
        "r": st.integers(1, 10**6),
        "alpha": st.floats(1e-12, 1e6) | st.integers(1, 10**6),
        "dropout": st.floats(0, 0.999),
        "targets": st.just("auto") | st.lists(st.text("abcq_", min_size=1), min_size=1),
        "variant": st.sampled_from(["lora", "dora", "rslora", "pissa"]),
    }
)


@given(SECTION)
def test_a_section_survives_being_written_and_read(section):
    content = declarations.read_yaml(str(ROOT / "params.yaml")) | {"lora": section}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "params.yaml"
        with path.open("w") as file:
            YAML().dump(content, file)
        assert params.parse(declarations.read_yaml(str(path))).lora.model_dump() == section


def test_what_is_not_a_mapping_is_refused():
    with pytest.raises(InputError, match=r"params.yaml: expected sections"):
        params.parse(["seed", 0])


def test_one_number_for_svm_C_is_a_list_of_one(content):
    assert params.parse(change(content, "svm.C", 0.5)).svm.C == [0.5]


def test_numbers_are_read_as_dvc_reads_them(tmp_path):
    from dvc.utils.serialize import load_yaml

    path = tmp_path / "params.yaml"
    path.write_text("a: 2e-4\nb: 2.0e-4\nc: 1_000\nd: yes\ne: 010\nf: 1e3\n")
    assert declarations.read_yaml(str(path)) == load_yaml(str(path))
    assert declarations.read_yaml(str(path))["a"] == 0.0002


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seed: 0\nseed: 1\n", r" line 2 found duplicate key .seed."),
        ("seed: [0\n", r" line 2 expected ',' or '\]'"),
        ("seed: \t0\n", r" line 1 found character .* that cannot start any token"),
    ],
)
def test_broken_yaml_is_one_line_with_the_line_number(tmp_path, monkeypatch, text, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=r"^params.yaml:" + line):
        params.load("seed")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("seed: 2020-13-45\n", "not valid YAML: month must be in 1..12"),
        ("seed: !!int abc\n", "not valid YAML: invalid literal for int"),
        (f"seed: {'9' * 5000}\n", "not valid YAML: Exceeds the limit"),
        ("seed: 0 # \x07\n", "not valid YAML: unacceptable character #x0007"),
        (f"seed: {'[' * 3000}{']' * 3000}\n", "lists or sections within each other are too deep"),
    ],
    ids=["day", "tag", "digits", "control", "deep"],
)
def test_what_yaml_cannot_hold_is_one_line(tmp_path, monkeypatch, text, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        params.load("seed")
    assert str(error.value).startswith(f"params.yaml: {reason}")
    assert "\n" not in str(error.value)


def test_a_name_that_is_no_text_is_an_unknown_parameter(content):
    with pytest.raises(InputError, match=r"^params.yaml: 1: unknown parameter; known: source, "):
        params.parse({**content, 1: 2})


def test_not_utf8_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes(b"seed: \xff\n")
    with pytest.raises(InputError, match=r"^params.yaml: not UTF-8 \(byte 6\)$"):
        params.load("seed")


def test_outside_the_project_the_message_says_where_to_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^params.yaml: no such file here; run from the project"):
        params.load("seed")


def test_load_gives_the_named_sections_alone(monkeypatch):
    monkeypatch.chdir(ROOT)
    p = params.load("svm", "lora-2e-4")
    assert p.lora_2e_4.lr == 2e-4
    assert not hasattr(p, "seed")


def test_under_dvc_an_undeclared_section_is_refused(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DVC_STAGE", "tokenize")
    declarations._declared.cache_clear()
    with pytest.raises(InputError) as error:
        params.load("tokenize", "seed")
    declarations._declared.cache_clear()
    assert str(error.value) == (
        "dvc.yaml: stage 'tokenize' reads the parameter 'seed' but does not declare it under params"
    )


def test_the_published_pair_differs_in_the_learning_rate_alone(content):
    slow, fast = content["lora-2e-5"], content["lora-2e-4"]
    assert (slow.pop("lr"), fast.pop("lr")) == (2e-5, 2e-4)
    assert slow == fast
    assert {key: slow[key] for key in ("r", "alpha", "dropout", "targets")} == {
        "r": 8,
        "alpha": 16,
        "dropout": 0.1,
        "targets": "auto",
    }


def test_adapters_go_only_where_the_backbone_has_layers(miniature, tmp_path, monkeypatch):
    """Any stage says so, before it starts, of any section."""
    content = declarations.read_yaml("params.yaml")
    content["lora-2e-4"]["targets"] = ["q_lin", "q_lim"]
    monkeypatch.chdir(tmp_path)
    YAML().dump(content, Path("params.yaml"))
    params.load("svm")
    shutil.copytree(miniature, "data/backbone")
    with pytest.raises(InputError) as error:
        params.load("svm")
    assert str(error.value) == (
        "params.yaml: lora-2e-4.targets: the backbone has no 'q_lim'; it has "
        "k_lin, lin1, lin2, out_lin, q_lin, v_lin"
    )
    # A stage that replaces the backbone is not stopped by what is wrong with the old one.
    params.load("backbone")


def test_a_broken_backbone_is_named(tmp_path, monkeypatch):
    content = Path("params.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(content)
    Path("data/backbone").mkdir(parents=True)
    Path("data/backbone/model.safetensors").write_bytes(b"half")
    with pytest.raises(InputError, match=r"^data/backbone/model.safetensors: not whole "):
        params.load("svm")
