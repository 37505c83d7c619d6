"""Extract [CLS] vectors under Spark, with one copy of the backbone in each task.

The command is in docs/scale.md.
"""

import argparse
from collections.abc import Iterator

import pandas as pd
from pyspark.sql import SparkSession

from stages.lib.encoder.extraction import Extractor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tokens", help="a parquet file of data/tokenized, or a folder of shards")
    parser.add_argument("features", help="the folder to write, a parquet file a task")
    parser.add_argument("--precision", default="auto", help="as in params.yaml (%(default)s)")
    args = parser.parse_args()

    def extract(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Add the vectors to the batches of a task."""
        extractor = Extractor(asked=args.precision)
        for batch in batches:
            yield batch.assign(cls=list(extractor(batch["input_ids"])))

    spark = SparkSession.builder.getOrCreate()
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 2048)
    tokens = spark.read.parquet(args.tokens)
    schema = ", ".join(f"{name} {kind}" for name, kind in [*tokens.dtypes, ("cls", "array<float>")])
    tokens.mapInPandas(extract, schema).write.parquet(args.features)


if __name__ == "__main__":
    main()
