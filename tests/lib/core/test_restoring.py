"""stages.lib.core.restoring: what DVC removed is put back as dvc.lock has it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from dvc.exceptions import DvcException
from dvc.output import Output
from dvc.repo import Repo
from workspace import COMMITTED, FILES, OUTPUTS, content, remove, write

from stages.lib.core import restoring


def restore(stage="write"):
    with Repo() as repo:
        return restoring.restore(repo.stage.load_one(name=stage).outs)


def test_outputs_of_the_running_stage_are_put_back(written, monkeypatch):
    remove(written, *OUTPUTS, "pictures")
    monkeypatch.setenv("DVC_STAGE", "write")
    restoring.restore_running_stage()
    assert content(written) == FILES
    assert not (written / "pictures").exists()


def test_without_dvc_nothing_is_put_back(written):
    remove(written)
    restoring.restore_running_stage()
    assert content(written) == {}


def test_what_is_half_written_is_replaced(written):
    write(written, dict.fromkeys(FILES, "half") | {"folder/stray": "stray"})
    assert restore() == []
    assert content(written) == FILES


def test_what_is_as_it_was_is_not_touched(written):
    for path in FILES:
        os.utime(written / path, (1, 1))
    (written / "file.txt").unlink()
    assert restore() == []
    assert {path for path in FILES if (written / path).stat().st_mtime != 1} == {"file.txt"}


def test_what_no_run_has_written_yet_is_left_alone(written):
    """As in a clone before the first run: dvc.lock has nothing of the stage."""
    (written / "dvc.lock").unlink()
    write(written, {"file.txt": "mine"})
    (written / "numbers.json").unlink()
    before = content(written)
    assert restore() == []
    assert content(written) == before


@pytest.mark.parametrize("link", ["symlink", "hardlink"])
def test_copies_are_put_back_where_the_cache_would_be_linked(written, link):
    """A file that git tracks is edited in place; through a link that would change the cache."""
    remove(written)
    subprocess.run(["git", "config", "--file", ".dvc/config", "cache.type", link], check=True)
    assert restore() == []
    for name in FILES:
        assert not (written / name).is_symlink()
        assert (written / name).stat().st_nlink == 1
        (written / name).write_text("edited")
    remove(written)
    assert restore() == []
    assert content(written) == FILES


def test_without_a_cache_git_has_the_last_commit_and_the_rest_is_named(written, capfd):
    remove(written)
    shutil.rmtree(written / ".dvc/cache")
    assert sorted(restore()) == ["file.txt", "folder"]
    assert content(written) == {"numbers.json": COMMITTED["numbers.json"]}
    assert capfd.readouterr() == ("", "")


def test_it_is_the_last_commit_even_where_another_one_is_staged(written):
    subprocess.run(["git", "add", "numbers.json"], check=True)
    remove(written)
    shutil.rmtree(written / ".dvc/cache")
    restore()
    assert content(written) == {"numbers.json": COMMITTED["numbers.json"]}
    staged = subprocess.run(["git", "show", ":numbers.json"], check=True, capture_output=True)
    assert staged.stdout.decode() == FILES["numbers.json"]


def test_without_a_cache_what_exists_with_other_content_is_left_alone(written):
    shutil.rmtree(written / ".dvc/cache")
    changed = dict.fromkeys(FILES, "changed")
    write(written, changed)
    assert restore() == []
    assert content(written) == changed


@pytest.mark.parametrize("error", [DvcException("no"), PermissionError("no")], ids=repr)
def test_what_the_cache_cannot_give_comes_from_git_or_is_named(written, monkeypatch, error):
    def fail(out, **_):
        raise error

    remove(written)
    monkeypatch.setattr(Output, "checkout", fail)
    assert sorted(restore()) == ["file.txt", "folder"]
    assert content(written) == {"numbers.json": COMMITTED["numbers.json"]}


def test_a_folder_that_is_in_git_alone_comes_from_there(written):
    remove(written, "pictures")
    assert restore("draw") == []
    assert [path.name for path in Path("pictures").iterdir()] == ["a.svg"]


def test_what_a_checkout_left_half_way_is_no_part_of_what_git_gives(written, monkeypatch):
    def fail(out, **_):
        write(written, {"pictures/half": "half"})
        raise OSError

    remove(written, "pictures")
    monkeypatch.setattr(Output, "changed_cache", lambda out: False)
    monkeypatch.setattr(Output, "checkout", fail)
    assert restore("draw") == []
    assert [path.name for path in Path("pictures").iterdir()] == ["a.svg"]
