"""Verify the backbone and run it, frozen, once over every review.

    python -m stages.extract_cls_features

reads    data/tokenized, data/backbone (params: extract-cls-features, precision)
writes   data/features/{train,validation,test}.parquet: the [CLS] vector of the last hidden state
         (float32 [dim]) and the label of each review; about.json, copied from data/tokenized
         Only the training vectors are computed in `precision`. Those of validation and test are
         computed in float32, so that their scores equal those of the saved model in float32.
metrics  metrics/extract-cls-features.json: the verified facts; metrics/costs/
"""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from stages.lib.core import manifest, outputs, paths, stage
from stages.lib.core.paths import BACKBONE, FEATURES, SPLITS, TOKENIZED
from stages.lib.schema import params

if TYPE_CHECKING:
    import numpy as np

METRICS = paths.METRICS / "extract-cls-features.json"
# Reviews in memory at a time. They are sorted by length within a chunk.
CHUNK = 8192
# The training reviews come last, because their vectors may need the weights in 16 bit.
ORDER = ("validation", "test", "train")


def main() -> None:
    p = params.load("extract-cls-features", "precision")
    from tqdm.auto import tqdm

    from stages.lib.core import costs, parquet
    from stages.lib.encoder import extraction, precision, processes, tokens
    from stages.lib.vectors import features

    budget = p.extract_cls_features.tokens_per_batch
    float_format = precision.resolve(p.precision)
    extractor = extraction.Extractor(BACKBONE, "fp32", budget)
    sizes = {name: parquet.count(TOKENIZED / f"{name}.parquet") for name in SPLITS}
    start = time.perf_counter()

    def vectors(name: str) -> Iterator[tuple["np.ndarray", "np.ndarray"]]:
        """Yield the [CLS] vectors and labels of a split in chunks, each shared by all processes."""
        if name == "train":
            extractor.cast(float_format)
        with tqdm(total=sizes[name], desc=name, unit="review") as progress:
            for chunk in tokens.chunks(name, CHUNK):
                yield extractor(chunk.input_ids, progress), chunk.labels

    if not processes.state().is_main_process:
        for name in ORDER:
            for _ in vectors(name):
                pass
        processes.leave_group()
        return
    with outputs.replacing_directory(FEATURES) as directory:
        manifest.write(directory, manifest.read(TOKENIZED))
        for name in ORDER:
            with features.writing(directory / f"{name}.parquet", extractor.facts["dim"]) as append:
                for cls, labels in vectors(name):
                    append(cls, labels)
        processes.leave_group()
    seconds = time.perf_counter() - start
    outputs.write_json(METRICS, extractor.facts)
    costs.write(
        "extract-cls-features",
        seconds=seconds,
        samples=sum(sizes.values()),
        size=FEATURES,
        **precision.describe(float_format),
    )


if __name__ == "__main__":
    stage.run(main)
