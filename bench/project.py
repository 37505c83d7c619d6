"""A copy of the pipeline in its own folder, on a sample of reviews, in which commands are timed."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from stages.lib.core.paths import SPLITS

ROOT = Path(__file__).parents[1]
LINKED = ("stages", "bench", "libraries.yaml", "dvc.yaml", "local")
# A child's peak memory includes that of the process it was forked from, so a small process starts
# the command.
LAUNCHER = """
import pathlib, resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
pathlib.Path(sys.argv[1]).write_text(str(peak))
sys.exit(status)
"""


@dataclass(frozen=True)
class Run:
    """A finished command: wall-clock seconds, peak resident memory (MB), standard output."""

    seconds: float
    memory: float
    stdout: str


class Project:
    """A project that runs stages and references on its own reviews and backbone."""

    def __init__(
        self, path: Path, reviews: Path, backbone: Path, min_steps: int | None = 1
    ) -> None:
        """Create the folder; `min_steps` is the parameter, None as committed.

        With 1, training takes as many steps as the tutorials' way on the same reviews.
        """
        self.path, self.reviews, self.backbone = path, reviews, backbone
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        for name in LINKED:
            (path / name).symlink_to(ROOT / name)
        (path / "metrics").mkdir()
        # The report depends on the collected seeds, which no stage writes.
        for name in ("params.yaml", "metrics/seeds.json"):
            shutil.copyfile(ROOT / name, path / name)
        self.run("dvc", "init", "--no-scm", "--quiet")
        self.set("dataset", path=str(reviews))
        self.set("backbone", path=str(backbone))
        if min_steps is not None:
            self.set(None, min_steps=min_steps)

    def set(self, section: str | None, **values: Any) -> None:
        """Change parameters of a section, or top-level parameters if `section` is None."""
        yaml = YAML()
        content = yaml.load(self.path / "params.yaml")
        (content[section] if section else content).update(values)
        yaml.dump(content, self.path / "params.yaml")

    def run(self, *command: str, stdin: str = "") -> Run:
        """Run a command in the project's folder and measure it.

        If it fails, exit with its output.
        """
        env = os.environ | {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
        start = time.perf_counter()
        with (
            (self.path / "stdin").open("w+") as given,
            (self.path / "stdout").open("w+") as out,
            (self.path / "stderr").open("w+") as err,
        ):
            given.write(stdin)
            given.seek(0)
            launched = [sys.executable, "-c", LAUNCHER, "peak", *command]
            done = subprocess.run(
                launched, cwd=self.path, env=env, stdin=given, stdout=out, stderr=err, check=False
            )
            seconds = time.perf_counter() - start
            out.seek(0)
            err.seek(0)
            stdout = out.read()
            if done.returncode:
                sys.exit(f"{' '.join(command)} failed:\n{stdout}{err.read()}")
        unit = 1 if sys.platform == "darwin" else 1024
        peak = int((self.path / "peak").read_text())
        return Run(seconds, peak * unit / 1e6, stdout)

    def module(self, name: str, *args: str, stdin: str = "") -> Run:
        """Run a module with this interpreter."""
        return self.run(sys.executable, "-m", name, *args, stdin=stdin)

    def read(self, path: str) -> dict[str, Any]:
        """Read a JSON file that a stage wrote."""
        return json.loads((self.path / path).read_text(encoding="utf-8"))


def sample(directory: Path, sizes: dict[str, int], times: int = 1) -> Path:
    """Write `sizes` reviews of each split (repeated if there are fewer), `times` over.

    In each further copy of a review two words are swapped, so that few texts occur twice.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    random = np.random.default_rng(0)
    for split in SPLITS:
        table = pq.read_table(ROOT / "data/raw" / f"{split}.parquet", columns=["text", "label"])
        order = random.permutation(len(table))[: sizes[split]]
        texts, labels = table["text"].to_pylist(), table["label"].to_pylist()
        rows = []
        for number in range(sizes[split] * times):
            row = order[number % len(order)]
            words = texts[row].split()
            if number >= len(order) and len(words) > 1:
                one, two = random.choice(len(words), 2, replace=False)
                words[one], words[two] = words[two], words[one]
            rows.append({"text": " ".join(words), "label": labels[row]})
        pq.write_table(pa.Table.from_pylist(rows), directory / f"{split}.parquet")
    return directory


def base_shapes(directory: Path) -> Path:
    """Save a backbone with DistilBERT-base's shapes, random weights, data/backbone's tokenizer."""
    import torch
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

    if not (directory / "model.safetensors").is_file():
        torch.manual_seed(0)
        DistilBertModel(DistilBertConfig()).save_pretrained(directory)
        AutoTokenizer.from_pretrained(ROOT / "data/backbone").save_pretrained(directory)
    return directory
