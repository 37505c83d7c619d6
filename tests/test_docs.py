"""Every command in README.md and docs/ works: each page is a session in the miniature project.

The line above a block that a test cannot run gives the reason: <!-- not run: needs a GPU -->
"""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest
from test_dag import stages_run

from stages.lib.core import declarations
from stages.lib.models import VERSION

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"^(?:<!-- not run: *(?P<reason>.*?) *-->\n)?```(?P<kind>\S*)\n(?P<text>.*?)^```$", re.M | re.S
)
PLAIN = re.compile(r"dvc (?!queue start)(?:[\w ./:=,-]|'[\w ./:=,-]*')+")
# Commits in a session have an author, whatever git's configuration on this machine.
AUTHOR = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "t"), ("EMAIL", "t@example.org"))
}


class Command(NamedTuple):
    line: str
    output: list[str]


def commands(text):
    """Return the commands of a console block, each with the lines of output below it."""
    found = []
    for line in text.replace("\\\n", "").splitlines():
        if line.startswith("$ "):
            found.append(Command(line.removeprefix("$ "), []))
        else:
            found[-1].output.append(line)
    return found


def session(page):
    """Return the commands of a page that are run."""
    blocks = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [
        command
        for block in blocks
        if block["kind"] == "console" and block["reason"] is None
        for command in commands(block["text"])
    ]


def run(project, line, place):
    """Run a shell command in the directory where the previous one ended; returns its output.

    A DVC command that needs no shell runs without one, as a fork that has the libraries already
    (tests/warm.py). The output of others goes through a file, because a background worker would
    keep a pipe open.
    """
    if PLAIN.fullmatch(line) and place.read_text().strip() == str(project.path):
        done = project.run(*shlex.split(line), check=False, **AUTHOR)
        assert done.returncode == 0, f"$ {line}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr
    output = place.with_suffix(".out")
    script = f'cd "$(cat {place})"\n{line}\npwd > {place}'
    done = project.run(
        "bash", "-eo", "pipefail", "-c", f"exec > {output} 2>&1\n{script}", check=False, **AUTHOR
    )
    text = output.read_text()
    assert done.returncode == 0, f"$ {line}\n{text}"
    return text


@pytest.mark.parametrize(
    "page", [page for page in PAGES if session(page)], ids=lambda page: page.name
)
def test_the_commands_of_a_page_work(page, after, tmp_path):
    after.git("branch", "--move", "main")
    place = tmp_path / "place"
    place.write_text(str(after.path))
    for line, expected in session(page):
        text = run(after, line, place)
        for words in filter(None, (wanted.split() for wanted in expected)):
            assert words[0] in text, f"$ {line}\n{text}"
    if page.name == "own-data.md":
        facts = after.read("metrics/download.json")
        assert facts["test"]["labels"] == {"bad": 2, "fair": 2, "good": 2}
        # This works on a copy of the commit, which gets the reviews from DVC's cache.
        done = after.dvc("exp", "run", "--temp", "download", "-S", "dataset.split_seed=1", **AUTHOR)
        assert stages_run(done) == ["download"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_are_run_or_say_why_not(page):
    text = page.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    assert text.count("```") == 2 * len(blocks)
    assert text.count("<!-- not run") == sum(block["reason"] is not None for block in blocks)
    for block in blocks:
        assert block["reason"] != ""
        if block["kind"] == "console":
            assert block["text"].startswith("$ ")
        else:
            assert block["kind"] not in ("bash", "sh", "shell")
            assert not re.search(r"^\$ ", block["text"], re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_and_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_citation_and_changelog_have_the_version_of_the_cards():
    citation = declarations.read_yaml(str(ROOT / "CITATION.cff"))
    assert citation["version"] == VERSION
    unreleased, released = re.findall(
        r"^## \[([^\]]+)\](?: - (.+))?$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M
    )[:2]
    assert unreleased == ("Unreleased", "")
    assert released == (VERSION, citation["date-released"])
