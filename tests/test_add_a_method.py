"""The recipe of CONTRIBUTING.md for a new method: the test follows it."""

import re

import pandas as pd
import pytest
from conftest import ROOT
from test_dag import stages_run


def blocks():
    """Return the code blocks of the recipe: script, stages, artifact, section, schema."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    recipe = text[text.index("## Add a method") : text.index("## Change something")]
    return re.findall(r"```(?:python|yaml)\n(.*?)```", recipe, re.DOTALL)


def put(path, before, text):
    """Insert text before the first occurrence of `before` in a file, or at its end."""
    content = path.read_text()
    place = content.index(before) if before else len(content)
    path.write_text(content[:place] + text + content[place:])


@pytest.fixture
def with_bitfit(after):
    script, stages, artifact, section, schema = blocks()
    (after.path / "stages/bitfit.py").write_text(script)
    put(after.path / "dvc.yaml", "\n  # Statements about data and models.", f"\n{stages}")
    put(after.path / "dvc.yaml", "", artifact)
    put(after.path / "params.yaml", "", f"\n{section}")
    put(after.path / "stages/lib/schema/params.py", "    lora: LoraVariant\n", schema)
    return after


def test_the_method_is_trained_and_is_everywhere_and_nothing_else_runs(with_bitfit, monkeypatch):
    done = with_bitfit.dvc("repro")
    assert stages_run(done) == ["train-bitfit", "bitfit", "cards", "report"]
    monkeypatch.chdir(with_bitfit.path)
    costs = with_bitfit.read("metrics/costs/bitfit.json")
    assert 0 < costs["trainable_parameters"] < 0.2 * costs["total_parameters"]
    report = (with_bitfit.path / "metrics/report.md").read_text()
    # It is in the table of scores and in the matrix of differences.
    assert len(re.findall(r"^\| bitfit +\|", report, re.M)) >= 2
    for table in ("curve-train-loss", "confusion", "reliability", "length"):
        rows = pd.read_csv(f"metrics/report/{table}.csv")
        assert "bitfit" in set(rows["model"])
    assert "bitfit" in with_bitfit.dvc("metrics", "show").stdout
    assert "| lr | 0.001 |" in (with_bitfit.path / "data/cards/bitfit.md").read_text()
    done = with_bitfit.run("python", "-m", "commands.predict", "--model", "bitfit", "a great film")
    label, probability = done.stdout.rstrip("\n").split("\t")
    assert label in ("negative", "positive")
    assert 0.5 <= float(probability) <= 1
