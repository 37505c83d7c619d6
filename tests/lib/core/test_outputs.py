"""stages.lib.core.outputs: an output is complete or absent."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from stages.lib.core import outputs


@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_appears_when_the_block_ends(tmp_path, before):
    path = tmp_path / "deep" / "deeper" / "out.txt"
    if before:
        path.parent.mkdir(parents=True)
        path.write_text(before)
    with outputs.replacing(path) as aside:
        aside.write_text("new")
        assert not path.exists() or path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_directory_replaces_the_one_before_whole(tmp_path):
    path = tmp_path / "out"
    for name in ("first", "second"):
        with outputs.replacing_directory(path) as aside:
            (aside / name).write_text(name)
    assert [child.name for child in path.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_after_an_error_the_old_output_is_as_it_was(tmp_path, error):
    path = tmp_path / "out"
    with outputs.replacing_directory(path) as aside:
        (aside / "kept").write_text("kept")
    with pytest.raises(error), outputs.replacing_directory(path) as aside:
        (aside / "half").write_text("half")
        raise error
    assert [child.name for child in path.iterdir()] == ["kept"]
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_aside_is_hidden_and_says_what_it_is_part_of(tmp_path):
    with outputs.replacing(tmp_path / "out.json") as aside:
        aside.touch()
    assert re.fullmatch(r"\.out\.json\.\w+\.part", aside.name)


@pytest.mark.parametrize("moment", ["in the block", "between two renames"])
def test_what_a_killed_run_left_aside_is_swept_away(tmp_path, moment):
    path = tmp_path / "out"
    code = f"""
import os, pathlib
from stages.lib.core import outputs
with outputs.replacing_directory({str(path)!r}):
    pass
with outputs.replacing_directory({str(path)!r}) as aside:
    (aside / "half").write_text("half")
    if {moment!r} == "in the block":
        os._exit(9)
    rename = pathlib.Path.rename
    pathlib.Path.rename = lambda path, to: os._exit(9) if path == aside else rename(path, to)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 9
    assert any(left.name.endswith(".part") for left in tmp_path.iterdir())
    with outputs.replacing_directory(path) as aside:
        (aside / "whole").touch()
    assert list(tmp_path.iterdir()) == [path]
    assert list(path.iterdir()) == [path / "whole"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_directory_that_cannot_take_the_name_leaves_it_to_the_old_one(
    tmp_path, monkeypatch, error
):
    path = tmp_path / "out"
    with outputs.replacing_directory(path) as aside:
        (aside / "kept").write_text("kept")
    rename = Path.rename

    def refuse(self, target):
        if self == aside:
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(error), outputs.replacing_directory(path) as aside:
        (aside / "new").write_text("new")
    assert list(tmp_path.iterdir()) == [path]
    assert [child.name for child in path.iterdir()] == ["kept"]


@pytest.mark.parametrize("after", ["the old one has lost the name", "the new one has the name"])
def test_an_interrupt_between_renames_leaves_the_name_to_the_old_one(tmp_path, monkeypatch, after):
    path = tmp_path / "out"
    with outputs.replacing_directory(path) as aside:
        (aside / "kept").write_text("kept")
    rename = Path.rename
    moved = []

    def interrupt(self, target):
        rename(self, target)
        moved.append(self)
        if moved == ([path] if after == "the old one has lost the name" else [path, aside]):
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt), outputs.replacing_directory(path) as aside:
        (aside / "new").write_text("new")
    assert list(tmp_path.iterdir()) == [path]
    assert [child.name for child in path.iterdir()] == ["kept"]


def test_a_file_does_not_take_the_place_of_a_directory(tmp_path):
    path = tmp_path / "out"
    with outputs.replacing_directory(path) as aside:
        (aside / "kept").write_text("kept")
    with pytest.raises(OSError), outputs.replacing(path) as aside:
        aside.write_text("new")
    assert list(tmp_path.iterdir()) == [path]
    assert [child.name for child in path.iterdir()] == ["kept"]


@pytest.fixture
def flushed(monkeypatch):
    """What is flushed to the disk, by its inode, which a rename leaves as it is."""
    inodes = []
    monkeypatch.setattr(os, "fsync", lambda number: inodes.append(os.fstat(number).st_ino))
    return inodes


def inodes(*paths):
    return [path.stat().st_ino for path in paths]


def test_a_file_is_on_the_disk_before_it_takes_the_name_and_then_the_name(tmp_path, flushed):
    path = tmp_path / "out"
    with outputs.replacing(path) as aside:
        aside.write_text("new")
        assert flushed == []
    assert flushed == inodes(path, tmp_path)


def test_files_in_a_directory_are_on_the_disk_before_it_takes_the_name(tmp_path, flushed):
    path = tmp_path / "out"
    with outputs.replacing_directory(path) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "file").write_text("new")
    assert flushed == inodes(path / "inner" / "file", path / "inner", path, tmp_path)


@pytest.mark.parametrize("before", ["file", "directory"])
def test_what_cannot_be_flushed_does_not_take_the_name(tmp_path, monkeypatch, before):
    path = tmp_path / "out"
    if before == "file":
        path.write_text("kept")
    else:
        with outputs.replacing_directory(path) as aside:
            (aside / "kept").touch()

    def fail(number):
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="broken"), outputs.replacing(path) as aside:
        if before == "file":
            aside.write_text("new")
        else:
            aside.mkdir()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "kept" if before == "file" else (path / "kept").exists()


@pytest.mark.parametrize("works", [True, False])
def test_no_descriptor_stays_open(tmp_path, monkeypatch, works):
    if not works:

        def fail(number):
            raise OSError(errno.EIO, "the disk is broken")

        monkeypatch.setattr(os, "fsync", fail)
    before = len(list(Path("/dev/fd").iterdir()))
    try:
        with outputs.replacing_directory(tmp_path / "out"):
            pass
    except OSError:
        assert not works
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_json_is_utf_8_where_the_locale_is_not(tmp_path):
    path = tmp_path / "out.json"
    code = (
        "import sys; from stages.lib.core.outputs import write_json as w; w(sys.argv[1], '\\u00fc')"
    )
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, path]
    subprocess.run(command, cwd=ROOT, env=os.environ | locale, check=True)
    assert path.read_bytes() == '"ü"\n'.encode()


def test_json_keeps_order_and_refuses_what_is_not_json(tmp_path):
    path = tmp_path / "out.json"
    outputs.write_json(path, {"b": 1, "a": "ü"})
    assert path.read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "ü"\n}\n'
    with pytest.raises(ValueError, match="Out of range float"):
        outputs.write_json(path, {"b": float("nan")})
    assert path.read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "ü"\n}\n'


def test_a_link_to_a_directory_is_replaced_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/kept").touch()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with outputs.replacing_directory(tmp_path / "out") as aside:
        (aside / "new").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    assert (tmp_path / "elsewhere/kept").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "out"]
