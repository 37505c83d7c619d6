"""Extract [CLS] vectors under Ray Data, with one copy of the backbone in each worker.

    PYTHONPATH=. python docs/engines/extract_with_ray.py data/tokenized/train.parquet features

A worker with all CPUs of a machine leaves none to read with, and waits for ever. On GPUs give
map_batches num_gpus=1.
"""

import argparse

import pyarrow as pa
import ray

from stages.lib.encoder.extraction import Extractor


class Cls:
    """A worker: adds the vectors to a batch of tokenized reviews."""

    def __init__(self, precision: str) -> None:
        self._extract = Extractor(asked=precision)

    def __call__(self, batch: pa.Table) -> pa.Table:
        cls = self._extract(batch["input_ids"].to_numpy())
        vectors = pa.FixedSizeListArray.from_arrays(cls.ravel(), cls.shape[1])
        return batch.append_column("cls", vectors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tokens", help="a parquet file of data/tokenized, or a folder of shards")
    parser.add_argument("features", help="the folder to write, a parquet file a block")
    parser.add_argument("--precision", default="auto", help="as in params.yaml (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="of one CPU each (%(default)s)")
    args = parser.parse_args()
    ray.data.read_parquet(args.tokens).map_batches(
        Cls,
        fn_constructor_args=[args.precision],
        batch_size=2048,
        batch_format="pyarrow",
        num_cpus=1,
        concurrency=args.workers,
    ).write_parquet(args.features)


if __name__ == "__main__":
    main()
