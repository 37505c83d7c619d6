"""stages.lib.core.stage: what is printed."""

from stages.lib.core import stage


def test_a_message_is_one_line_that_tells_the_terminal_nothing():
    assert stage.printable("a\nb \x1b[31mred\x00 \u202e") == "a b \\x1b[31mred\\x00 \\u202e"
    assert stage.printable("grün 映画 \U0001f600") == "grün 映画 \U0001f600"


def test_a_long_message_keeps_its_ends():
    line = stage.printable(f"start {'a' * 20_000} end")
    assert len(line) < 1010
    assert line.startswith("start a")
    assert line.endswith("a end")
