"""stages.lib.core.outputs: whole or not at all."""

import pytest

from stages.lib.core import outputs


@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_appears_when_the_block_ends(tmp_path, before):
    path = tmp_path / "deep" / "out.txt"
    if before:
        path.parent.mkdir()
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


def test_what_a_killed_run_left_aside_is_swept_away(tmp_path):
    (tmp_path / ".out.json.0123abcd.part").write_text("half")
    outputs.write_json(tmp_path / "out.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_json_keeps_order_and_refuses_what_is_not_json(tmp_path):
    path = tmp_path / "out.json"
    outputs.write_json(path, {"b": 1, "a": "ü"})
    assert path.read_text() == '{\n  "b": 1,\n  "a": "ü"\n}\n'
    with pytest.raises(ValueError, match="Out of range float"):
        outputs.write_json(path, {"b": float("nan")})
    assert path.read_text() == '{\n  "b": 1,\n  "a": "ü"\n}\n'


def test_a_link_to_a_directory_is_replaced_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/kept").touch()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with outputs.replacing_directory(tmp_path / "out") as aside:
        (aside / "new").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    assert (tmp_path / "elsewhere/kept").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "out"]
