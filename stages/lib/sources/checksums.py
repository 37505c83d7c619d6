"""Comparing the SHA-256 of downloads with the expected one."""

import hashlib
from pathlib import Path

from stages.lib.core.errors import InputError


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def verify(found: str, expected: str, name: str) -> None:
    """Raise InputError when two digests differ."""
    if found != expected:
        raise InputError(f"{name}: sha256 is {found}, expected {expected}; not used")
