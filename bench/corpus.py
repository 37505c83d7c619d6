"""A corpus that does not fit into memory: time and peak memory of the stages before the networks.

The reviews are perturbed copies in parquet shards, named as on the Hub. The backbone is a
miniature, so that a million reviews finish in reasonable time.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.project import ROOT, Project
from stages.lib.core.paths import SPLITS

SMALL, LARGE = 50_000, 1_000_000
STAGES = {
    "download": "stages.download",
    "tokenize": "stages.tokenize",
    "extract-cls-features": "stages.extract_cls_features",
    "svm": "stages.svm",
}
SHARD = 100_000
# Reviews of validation and of test.
OTHERS = 10_000


def measure(work: Path, small: int = SMALL, large: int = LARGE) -> dict[str, Any]:
    """Measure seconds and peak memory (MB) of each stage, in its own process, at two sizes."""
    stages: dict[str, dict[str, Any]] = {}
    backbone = miniature(work / "corpus-backbone")
    for key, count in (("small", small), ("large", large)):
        reviews = write_shards(work / f"corpus-{count}", count)
        project = Project(work / f"corpus-{count}-project", reviews, backbone)
        for name, module in STAGES.items():
            done = project.module(module)
            stages.setdefault(name, {})[key] = {
                "seconds": round(done.seconds, 1),
                "memory_mb": round(done.memory, 1),
            }
    for sizes in stages.values():
        for figure in ("seconds", "memory_mb"):
            ratio = sizes["large"][figure] / sizes["small"][figure]
            sizes[f"{figure}_ratio"] = round(ratio, 2)
    return {"small": small, "large": large, "stages": stages}


def write_shards(directory: Path, count: int) -> Path:
    """Write `count` training reviews, and OTHERS for validation and test, in shards of SHARD.

    They are copies of the reviews of data/raw in which two words are swapped.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    random = np.random.default_rng(0)
    for split in SPLITS:
        table = pq.read_table(ROOT / "data/raw" / f"{split}.parquet")
        words = [text.split() for text in table["text"].to_pylist()]
        labels = table["label"].to_numpy()
        total = count if split == "train" else min(count, OTHERS)
        shards = -(-total // SHARD)
        for shard in range(shards):
            rows = np.arange(shard * SHARD, min(total, (shard + 1) * SHARD)) % len(words)
            swaps = random.random((len(rows), 2))
            texts = [_swapped(words[row], *swap) for row, swap in zip(rows, swaps, strict=True)]
            pq.write_table(
                pa.table({"text": texts, "label": labels[rows]}),
                directory / f"{split}-{shard:05}-of-{shards:05}.parquet",
            )
    return directory


def _swapped(words: list[str], one: float, two: float) -> str:
    """Join the words after swapping those at the relative positions `one` and `two` in [0, 1)."""
    words = words.copy()
    first, second = int(one * len(words)), int(two * len(words))
    words[first], words[second] = words[second], words[first]
    return " ".join(words)


def miniature(directory: Path) -> Path:
    """Save a DistilBERT of one layer of width 64, random weights, and data/backbone's tokenizer."""
    import torch
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

    shutil.rmtree(directory, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data/backbone")
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=64, hidden_dim=128, n_heads=2, n_layers=1
    )
    DistilBertModel(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
