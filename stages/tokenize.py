"""Tokenize the reviews once for all models.

    python -m stages.tokenize

reads    data/raw, the tokenizer in data/backbone (params: tokenize)
writes   data/tokenized/{train,validation,test}.parquet with the columns input_ids and label;
         truncated to tokenize.max_length, not padded; about.json with max_length
metrics  metrics/tokenize.json: tokens per review, share of truncated reviews; metrics/costs/
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.lib.core import costs, distributions, manifest, outputs, paths, stage
from stages.lib.core.errors import InputError
from stages.lib.core.paths import BACKBONE, RAW, SPLITS, TOKENIZED
from stages.lib.schema import params

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

METRICS = paths.METRICS / "tokenize.json"
# Reviews in memory at a time.
CHUNK = 2048


def count(path: Path) -> int:
    """Count the reviews in a split."""
    from stages.lib.core import parquet

    with parquet.opened(path) as file:
        return int(file.metadata.num_rows)


def chunks(path: Path) -> Iterator[tuple[list[str], list[int]]]:
    """Yield the texts and labels of a split in chunks of at most CHUNK reviews."""
    from stages.lib.core import parquet

    with parquet.opened(path) as file:
        for batch in file.iter_batches(CHUNK, columns=["text", "label"]):
            yield batch["text"].to_pylist(), batch["label"].to_pylist()


def encode(
    tokenizer: "PreTrainedTokenizerBase", texts: list[str], limit: int
) -> tuple[list[list[int]], list[int]]:
    """Return the token ids of each text, at most `limit`, and their number before truncation."""
    # The backend computes only ids, whereas calling the tokenizer also builds other outputs.
    fast = tokenizer.backend_tokenizer
    fast.no_truncation()
    fast.no_padding()
    whole = [encoding.ids for encoding in fast.encode_batch_fast(texts)]
    cut = [
        ids
        if len(ids) <= limit
        else tokenizer(text, truncation=True, max_length=limit)["input_ids"]
        for text, ids in zip(texts, whole, strict=True)
    ]
    return cut, [len(ids) for ids in whole]


def main() -> None:
    p = params.load("tokenize")
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from tqdm.auto import tqdm

    from stages.lib.encoder import tokenizer as tokenizers

    tokenizer = tokenizers.load(BACKBONE)
    limit = p.tokenize.max_length
    longest = tokenizers.longest(tokenizer, BACKBONE)
    if limit > longest:
        raise InputError(
            f"params.yaml: tokenize.max_length: {limit} is wrong: it should be at most the "
            f"backbone's {longest}"
        )

    schema = pa.schema([("input_ids", pa.list_(pa.int32())), ("label", pa.int64())])
    sizes = {name: count(RAW / f"{name}.parquet") for name in SPLITS}
    facts: dict[str, dict[str, Any]] = {}
    start = time.perf_counter()
    with outputs.replacing_directory(TOKENIZED) as directory:
        manifest.write(directory, manifest.read(RAW) | {"max_length": limit})
        for name, size in sizes.items():
            lengths: list[np.ndarray] = []
            with (
                pq.ParquetWriter(directory / f"{name}.parquet", schema) as file,
                tqdm(total=size, desc=name, unit="review") as progress,
            ):
                for texts, labels in chunks(RAW / f"{name}.parquet"):
                    ids, tokens = encode(tokenizer, texts, limit)
                    file.write_table(pa.table([ids, labels], schema))
                    lengths.append(np.array(tokens))
                    progress.update(len(texts))
            tokens = np.concatenate(lengths)
            facts[name] = {
                "tokens": distributions.summarize(tokens),
                "truncated_share": round(float((tokens > limit).mean()), 6),
            }
    seconds = time.perf_counter() - start
    outputs.write_json(METRICS, facts)
    costs.write("tokenize", seconds=seconds, samples=sum(sizes.values()), size=TOKENIZED)


if __name__ == "__main__":
    stage.run(main)
