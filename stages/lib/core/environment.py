"""Environment variables and limits that stop a library when it is imported.

The Hub's client reads its own variables at import, and a user would see only its traceback. With
too little address space, libraries crash or hang in native code.
"""

import os
import sys
from urllib.parse import urlsplit

from stages.lib.core.errors import InputError

# Megabytes. `tokenize` needs 1,200 to 1,600 to import its libraries.
_ADDRESS_SPACE = 1500


def take_out_mistakes() -> list[str]:
    """Remove variables that cannot be read from the environment; return a message for each."""
    checks = {
        "HF_ENDPOINT": (_is_address, "an address such as https://huggingface.co"),
        "HF_HUB_ETAG_TIMEOUT": (_is_whole, "a whole number of seconds"),
        "HF_HUB_DOWNLOAD_TIMEOUT": (_is_whole, "a whole number of seconds"),
    }
    lines = []
    for name, (check, wanted) in checks.items():
        value = os.environ.get(name)
        if value is not None and not check(value):
            del os.environ[name]
            lines.append(f"environment variable {name}: {value!r} is wrong: it should be {wanted}")
    return lines


def check_address_space() -> None:
    """Raise InputError if the operating system limits the address space to less than the libraries
    need (`ulimit -v`)."""
    if sys.platform == "win32":
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _ADDRESS_SPACE * 10**6:
        raise InputError(
            f"the address space is limited to {limit // 10**6} MB (ulimit -v): it should be at "
            f"least {_ADDRESS_SPACE} MB"
        )


def _is_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
        # Reading the port checks it.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_whole(value: str) -> bool:
    try:
        return int(value) > 0
    except ValueError:
        return False
