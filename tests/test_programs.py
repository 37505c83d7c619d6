"""commands.programs: what is said when git or DVC fails."""

import pytest

from commands import programs
from stages.lib.core.errors import InputError


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (["ERROR: no such branch", "hint: look again"], "no such branch"),
        (["WARNING: a newer one is out", "ERROR: no such branch"], "no such branch"),
        (["warning: old"], "warning: old"),
        ([], "no reason given"),
    ],
)
def test_the_first_line_that_is_no_warning_is_the_reason(says, reason):
    script = "".join(f"echo '{line}' >&2; " for line in says) + "exit 1"
    with pytest.raises(InputError) as caught:
        programs.output("sh", "-c", script)
    assert str(caught.value).endswith(f": {reason}")
