"""Tokenize the reviews once for all models.

    python -m stages.tokenize

reads    data/raw, the tokenizer in data/backbone (params: tokenize)
writes   data/tokenized/{train,validation,test}.parquet with the columns input_ids and label;
         truncated to tokenize.max_length, not padded; about.json with max_length
metrics  metrics/tokenize.json: tokens per review, share of truncated reviews; metrics/costs/

The reviews pass through `Dataset.map` in chunks that are in memory. Peak memory grew with the
reviews when `map` took a whole split, whether from memory-mapped files (827 MB for a million
reviews, 579 MB for 50,000) or as a stream (803 MB and 576 MB).
"""

import time
from typing import TYPE_CHECKING

from stages.lib.core import costs, distributions, manifest, outputs, paths, stage
from stages.lib.core.errors import InputError
from stages.lib.core.metrics import Tokens
from stages.lib.core.paths import BACKBONE, RAW, SPLITS, TOKENIZED
from stages.lib.schema import params

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

METRICS = paths.METRICS / "tokenize.json"
# Reviews in memory at a time.
CHUNK = 2048


def encode(reviews: "pa.Table", tokenizer: "PreTrainedTokenizerBase", limit: int) -> "pa.Table":
    """Replace the texts by `input_ids`, at most `limit` of them, and `tokens`, their number before
    truncation."""
    import pyarrow as pa

    # The backend computes only ids, whereas calling the tokenizer also builds other outputs.
    fast = tokenizer.backend_tokenizer
    fast.no_truncation()
    fast.no_padding()
    texts = reviews["text"].to_pylist()
    whole = [encoding.ids for encoding in fast.encode_batch_fast(texts)]
    cut = [
        ids
        if len(ids) <= limit
        else tokenizer(text, truncation=True, max_length=limit)["input_ids"]
        for text, ids in zip(texts, whole, strict=True)
    ]
    return pa.table(
        {
            "input_ids": pa.array(cut, pa.list_(pa.int32())),
            "label": reviews["label"],
            "tokens": pa.array(map(len, whole), pa.int64()),
        }
    )


def main() -> None:
    p = params.load("tokenize")
    import datasets
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from tqdm.auto import tqdm

    from stages.lib.core import parquet
    from stages.lib.encoder import tokenizer as tokenizers

    # There is one progress bar for each split, instead of one for each chunk.
    datasets.disable_progress_bars()
    tokenizer = tokenizers.load(BACKBONE)
    limit = p.tokenize.max_length
    longest = tokenizers.longest(tokenizer, BACKBONE)
    if limit > longest:
        raise InputError(
            f"params.yaml: tokenize.max_length: {limit} is wrong: it should be at most the "
            f"backbone's {longest}"
        )

    schema = pa.schema([("input_ids", pa.list_(pa.int32())), ("label", pa.int64())])
    raw = {name: RAW / f"{name}.parquet" for name in SPLITS}
    sizes = {name: parquet.count(path) for name, path in raw.items()}
    facts: dict[str, Tokens] = {}
    start = time.perf_counter()
    with outputs.replacing_directory(TOKENIZED) as directory:
        manifest.write(directory, {**manifest.read(RAW), "max_length": limit})
        for name, path in raw.items():
            lengths: list[np.ndarray] = []
            with (
                parquet.opened(path) as reviews,
                pq.ParquetWriter(directory / f"{name}.parquet", schema) as file,
                tqdm(total=sizes[name], desc=name, unit="review") as progress,
            ):
                for batch in reviews.iter_batches(CHUNK, columns=["text", "label"]):
                    chunk = datasets.Dataset(pa.Table.from_batches([batch])).with_format("arrow")
                    tokenized = chunk.map(
                        encode,
                        batched=True,
                        batch_size=None,
                        remove_columns=["text"],
                        fn_kwargs={"tokenizer": tokenizer, "limit": limit},
                        # Computing a fingerprint would pickle the tokenizer, and nothing is cached.
                        new_fingerprint=name,
                    )
                    table = tokenized[:]
                    file.write_table(table.select(schema.names).cast(schema))
                    lengths.append(np.array(table["tokens"]))
                    progress.update(len(table))
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
