"""Turn the reviews into token ids, once for all models.

    python -m stages.tokenize

reads    data/raw, the tokenizer in data/backbone (params: tokenize)
writes   data/tokenized/{train,validation,test}.parquet with the columns input_ids and label;
         truncated at tokenize.max_length, not padded; about.json with max_length
metrics  metrics/tokenize.json: tokens a review, share of reviews that were cut; metrics/costs/
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from stages.lib import about, costs, exploration, outputs, params, stage
from stages.lib.errors import InputError
from stages.lib.splits import SPLITS

RAW = Path("data/raw")
BACKBONE = Path("data/backbone")
TOKENIZED = Path("data/tokenized")
METRICS = Path("metrics/tokenize.json")


def main() -> None:
    p = params.load("tokenize")
    from datasets import Dataset

    from stages.lib import tokenizer as tokenizers

    tokenizer = tokenizers.load(BACKBONE)
    limit = p.tokenize.max_length
    longest = tokenizers.longest(tokenizer, BACKBONE)
    if limit > longest:
        raise InputError(
            f"params.yaml: tokenize.max_length: {limit} is wrong: it should be at most the "
            f"backbone's {longest}"
        )

    def encode(batch: dict[str, list]) -> dict[str, list]:
        whole = tokenizer(batch["text"], return_attention_mask=False)["input_ids"]
        cut = [
            ids
            if len(ids) <= limit
            else tokenizer(text, truncation=True, max_length=limit)["input_ids"]
            for text, ids in zip(batch["text"], whole, strict=True)
        ]
        return {"input_ids": cut, "tokens": [len(ids) for ids in whole]}

    facts: dict[str, dict[str, Any]] = {}
    samples = 0
    start = time.perf_counter()
    with (
        outputs.replacing_directory(TOKENIZED) as directory,
        tempfile.TemporaryDirectory() as cache,
    ):
        about.write(directory, about.read(RAW) | {"max_length": limit})
        for name in SPLITS:
            reviews = Dataset.from_parquet(str(RAW / f"{name}.parquet"), cache_dir=cache)
            tokenized = reviews.map(encode, batched=True, remove_columns="text", desc=name)
            lengths = tokenized["tokens"][:]
            samples += len(lengths)
            facts[name] = {
                "tokens": exploration.distribution(lengths),
                "truncated_share": round(sum(n > limit for n in lengths) / len(lengths), 6),
            }
            tokenized.remove_columns("tokens").to_parquet(directory / f"{name}.parquet")
    seconds = time.perf_counter() - start
    outputs.write_json(METRICS, facts)
    costs.write("tokenize", seconds=seconds, samples=samples, size=TOKENIZED)


if __name__ == "__main__":
    stage.run(main)
