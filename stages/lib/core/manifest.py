"""about.json: metadata that is stored next to the data and passed on from stage to stage.

labels      the label names; the index of a name is the label's number
reviews     the provenance of the reviews
max_length  the number of tokens at which reviews were truncated (from data/tokenized on)

The about.json of the backbone holds its provenance.
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
    """Read the about.json in `directory`. Raises InputError if it is not a JSON object."""
    try:
        content = json.loads((directory / FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{directory / FILE}: not JSON: {error}; 'dvc repro' creates it") from None
    if not isinstance(content, dict):
        raise InputError(f"{directory / FILE}: not a JSON object; 'dvc repro' creates it")
    return content
