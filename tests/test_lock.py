"""dvc.lock and the committed metrics match the committed code and parameters."""

import itertools
import json
import re
from pathlib import Path

import pytest
from dvc.repo import Repo
from test_declarations import NAMES

from bench import plan
from stages.lib.models import registry
from stages.lib.report import inputs

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def stages():
    with Repo(str(ROOT)) as repo:
        yield {stage.name: stage for stage in repo.index.stages}


def stale(entries):
    """Return what is in git and differs from dvc.lock; a fresh clone lacks what is cached."""
    return {
        str(entry): entry.workspace_status()
        for entry in entries
        if not str(entry).startswith("data/") and entry.workspace_status()
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_lock_has_the_hashes_of_the_committed_scripts_and_parameters(stages, name):
    assert stale(stages[name].deps) == {}


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_metrics_are_those_of_the_lock(stages, name):
    assert stale(stages[name].outs) == {}


@pytest.mark.parametrize("name", NAMES)
def test_stages_are_linked_by_the_same_hashes(stages, name):
    """What a stage read is what the stage before it wrote."""
    written = {str(out): out.hash_info for stage in stages.values() for out in stage.outs}
    for dep in stages[name].deps:
        for path, hash_info in written.items():
            if str(dep) == path:
                assert dep.hash_info == hash_info, path


def test_every_collected_run_counts(monkeypatch):
    """No edit may leave the report with single runs where it had seeds."""
    monkeypatch.chdir(ROOT)
    download = json.loads((ROOT / "metrics/download.json").read_text())
    collected = inputs.read_seeds(registry.names(), download)
    assert collected.others.keys() == set(registry.names())
    assert all(collected.others.values())
    assert collected.unused == {}


def table(path):
    """Parse the table of scores in a Markdown file: rows by model, with cells by column."""
    lines = path.read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if re.match(r"\| model .*accuracy", line))
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    ]
    return {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}


def test_the_readmes_table_is_the_reports():
    """The README's table has some of the report's columns."""
    readme, report = table(ROOT / "README.md"), table(ROOT / "metrics/report.md")
    assert list(readme) == list(report)
    for name, row in readme.items():
        assert row == {column: report[name][column] for column in row}


def test_the_readme_begins_with_a_picture_that_the_report_draws(stages):
    """As an output of the report it is as fresh as the lock, by the tests above."""
    first = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    (picture,) = re.findall(r"^!\[.+\]\((.+)\)$", first, re.M)
    assert picture == "metrics/report/cost.png"
    assert (ROOT / picture).is_file()
    assert str(Path(picture).parent) in map(str, stages["report"].outs)
    assert re.findall(r"^\$ (make \w+)", first, re.M) == ["make demo", "make repro"]


def test_the_plan_in_the_docs_is_of_the_committed_figures():
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    for price, machine in ((0.1, None), (3, "NVIDIA H200, fp16")):
        found = plan.table(price, [1e7, 1e9], plan.rates(machine))
        assert found.to_markdown(index=False, disable_numparse=True) in page
