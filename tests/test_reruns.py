"""What runs again after an edit: prose, lists and other stages' parameters train nothing."""

import json

import pytest

from stages.lib.models import registry

SAYING = {"cards", "report"}
EVALUATING = set(registry.names())


def changed(project):
    """Return the stages that `dvc status` names."""
    return set(json.loads(project.dvc("status", "--json").stdout))


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("models/card.py", SAYING),
        ("models/registry.py", SAYING),
        ("report/overview.py", {"report"}),
        ("scores/scoring.py", SAYING | EVALUATING),
        ("schema/params.py", set()),
        ("reviews/splitting.py", {"download", "label-issues"}),
        ("labels/issues.py", {"label-issues", "report"}),
        (
            "vectors/linear.py",
            {"extract-cls-features", "train-svm", "train-finetune-head", "label-issues"},
        ),
    ],
)
def test_an_edit_of_a_room_runs_the_stages_that_declare_it(after, module, stages):
    path = after.path / "stages/lib" / module
    path.write_text(path.read_text() + "\n# Another word.\n")
    assert changed(after) == stages


def test_another_stages_new_parameter_runs_nothing_else(after):
    path = after.path / "params.yaml"
    path.write_text(path.read_text().replace("\ntokenize:\n", "\ntokenize:\n  lowercase: false\n"))
    schema = after.path / "stages/lib/schema/params.py"
    text = schema.read_text()
    section = "class Tokenize(Section):\n"
    assert section in text
    schema.write_text(text.replace(section, f"{section}    lowercase: bool\n"))
    assert changed(after) == {"tokenize"}


def test_another_model_in_the_list_runs_nothing(after):
    path = after.path / "dvc.yaml"
    path.write_text(path.read_text() + "  another: {path: data/models/another, type: model}\n")
    assert changed(after) == set()
