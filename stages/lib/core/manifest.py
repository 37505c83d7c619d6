"""about.json: what data say of themselves, carried from stage to stage beside them.

labels      the names of the labels; the index is the label's number
reviews     where the reviews came from
max_length  tokens at which reviews were cut (from data/tokenized on)

and of the backbone, where it came from.
"""

import json
from pathlib import Path
from typing import Any

from stages.lib.core.errors import InputError

FILE = "about.json"


def write(directory: Path, content: dict[str, Any]) -> None:
    """Write about.json into `directory`."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (directory / FILE).write_text(text + "\n", encoding="utf-8")


def read(directory: Path) -> dict[str, Any]:
    """The about.json of `directory`. Raises InputError when it is broken."""
    try:
        return json.loads((directory / FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{directory / FILE}: not JSON: {error}; 'dvc repro' makes it") from None
