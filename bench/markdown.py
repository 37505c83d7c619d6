"""Rendering of metrics/bench.md from the figures of all machines, with the targets alongside."""

import math
from collections.abc import Callable
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pandas as pd
from scipy import stats

NOTES = Path(__file__).with_name("notes.md")

REFERENCES = {
    "tokenize": "`Dataset.map`, one review at a time",
    "pipeline": '`pipeline("feature-extraction")`',
    "pipeline-32": "the same with batch_size=32",
    "head": "Trainer, frozen backbone",
    "full": "Trainer",
    "lora": "Trainer and PEFT",
}
# Shares of the matrix product that each step should reach in any precision.
ROOFS = {
    "embedded": {"extraction": 0.70, "full": 0.55, "lora": 0.55},
    "base": {"extraction": 0.85, "full": 0.75, "lora": 0.75},
}
TITLES = {
    "embedded": "on the backbone of data/backbone",
    "all": "on all reviews, for stages too quick to time on a part",
    "base": "on DistilBERT-base's shapes",
}
GROWTH = {
    "growth": "stages before training",
    "growth-full": "full fine-tuning",
    "growth-lora": "LoRA",
}
SHAPES = {"embedded": "the backbone of data/backbone", "base": "DistilBERT-base's shapes"}

# A section of each machine that has it, by the machine's letter.
Sections = dict[str, dict[str, Any]]


def write(machines: dict[str, Any]) -> str:
    """Render the report of all sections that were measured, with a column for each machine."""
    letters = dict(zip(ascii_uppercase, machines.values(), strict=False))
    parts = [
        "# Benchmark\n\nWritten by `make bench`; every figure is also in bench.json. "
        "The letters in the tables stand for these machines, each with the precision of `auto`:\n\n"
        + "\n".join(
            f"- {letter}: {machine['device']}, {machine['threads']} threads, "
            f"{machine['precision']}; torch {machine['torch']}, Python {machine['python']}"
            for letter, machine in ((key, results["machine"]) for key, results in letters.items())
        )
    ]
    renderers: dict[str, Callable[[str, Sections], str]] = {
        "embedded": _sides,
        "all": _sides,
        "base": _sides,
        "scores": _scores,
        "dag": _dag,
        "roofline": _roofline,
        "stages": _stages,
        "precision": _precision,
        **dict.fromkeys(GROWTH, _growth),
        "memory": _memory,
        "corpus": _corpus,
        "cache": _cache,
        "nothing": _nothing,
        "sizes": _sizes,
        "repro": _repro,
    }
    for name, render in renderers.items():
        sections = {key: results[name] for key, results in letters.items() if name in results}
        if sections:
            parts.append(render(name, sections))
    parts.append(NOTES.read_text(encoding="utf-8").strip())
    return "\n\n".join(parts) + "\n"


def _each(sections: Sections, say: Callable[[dict[str, Any]], str]) -> str:
    """Say the same about each machine's section, with the date of its measurement."""
    return "\n".join(
        f"- {letter} ({section['date']}): {say(section)}" for letter, section in sections.items()
    )


def _percent(share: float) -> str:
    """Give a small share, such as those of a GPU on short sentences, one digit more."""
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _table(
    sections: Sections, keys: int, rows: Callable[[dict[str, Any]], list[dict[str, Any]]]
) -> str:
    """Tabulate the rows of each machine side by side.

    The first `keys` columns are the same for all machines; the letter of the machine is added to
    the others.
    """
    tables = []
    for letter, section in sections.items():
        table = pd.DataFrame(rows(section))
        tables.append(table.set_index([*table.columns[:keys]]).add_suffix(f" ({letter})"))
    table = pd.concat(tables, axis=1).fillna("").reset_index()
    return table.to_markdown(index=False, disable_numparse=True)


def _spread(values: dict[str, float], digits: int = 1) -> str:
    low, high = (f"{values[key]:,.{digits}f}" for key in ("min", "max"))
    return f"{values['median']:,.{digits}f} ({low} to {high})"


def _accuracy(row: dict[str, Any]) -> str:
    if "ours_accuracy" not in row or "theirs_accuracy" not in row:
        return ""
    one, two = row["ours_accuracy"], row["theirs_accuracy"]
    high, low = (one, two) if one["value"] >= two["value"] else (two, one)
    # The lower limit of the difference: method 10 of Newcombe 1998 (Statistics in Medicine 17,
    # 873-890), from Wilson's limits of each.
    margin = math.hypot(high["value"] - high["low"], low["high"] - low["value"])
    agree = high["value"] - low["value"] <= margin
    return f"{one['value']:.3f} / {two['value']:.3f}, {'agree' if agree else 'differ'}"


def _sides(name: str, sections: Sections) -> str:
    # After one epoch of a part of the reviews, models have hardly begun to learn.
    learned = name == "all"

    def rows(section: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "stage": row["ours"],
                "theirs": REFERENCES[row["theirs"]],
                "ours, reviews/s": _spread(row["ours_reviews_per_second"], 0),
                "theirs, reviews/s": _spread(row["theirs_reviews_per_second"], 0),
                "ratio": _spread(row["ratio"]),
            }
            | ({"test accuracy": _accuracy(row)} if learned else {})
            for row in section["rows"]
        ]

    def say(section: dict[str, Any]) -> str:
        return (
            f"rounds: {section['rounds']}, training reviews: {section['train']:,}, test reviews: "
            f"{section['test']:,}, epochs: {section['epochs']}. With the time of extraction added, "
            f"the head is {section['head_with_extraction']:g} times as fast."
        )

    accuracies = (
        " Accuracies are means over the rounds, each with its own seed on both sides; they agree "
        "if the 95% interval of their difference (Newcombe) contains 0. It covers the choice of "
        "reviews, but not that of seeds."
    )
    return f"""\
## Side by side {TITLES[name]}

Ours and theirs ran in turns. The figures are medians (minimum to maximum) over the rounds for the \
work itself, without imports and loading.{accuracies if learned else ""}

{_each(sections, say)}

{_table(sections, 2, rows)}"""


def _scores(_: str, sections: Sections) -> str:
    def mean(accuracies: list[float]) -> str:
        if len(accuracies) == 1:
            return f"{accuracies[0]:.3f} (1)"
        deviation = pd.Series(accuracies).std()
        return f"{pd.Series(accuracies).mean():.3f} ± {deviation:.3f} ({len(accuracies)})"

    def difference(ours: list[float], theirs: list[float]) -> str:
        if min(len(ours), len(theirs)) == 1:
            return ""
        # Welch's interval, because the two may vary differently.
        low, high = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval()
        return f"{low:+.3f} to {high:+.3f}"

    def rows(section: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "model": name,
                "ours": mean(sides["ours"]),
                "theirs": mean(sides["theirs"]),
                "ours minus theirs": difference(**sides),
            }
            for name, sides in section["models"].items()
        ]

    measured = ", ".join(f"{letter} {section['date']}" for letter, section in sections.items())
    return f"""\
## Test accuracies on all reviews

Means and standard deviations over seeds (their number in brackets), with the committed epochs, \
and the 95% interval of the difference (Welch), which covers the choice of seeds. Ours are the \
committed runs (metrics/), theirs were trained in fp32 on this machine. Measured: {measured}.

{_table(sections, 1, rows)}"""


def _dag(_: str, sections: Sections) -> str:
    def say(section: dict[str, Any]) -> str:
        return (
            f"on {section['reviews']:,} training reviews, ours takes "
            f"{_spread(section['ours'])} s; theirs takes "
            f"{_spread(section['theirs'])} s, which is {section['ratio']:g} times as long."
        )

    return f"""\
## Whole DAG

The time of all models (`dvc repro` from local files, including the start of each stage) against \
the sum of theirs (tokenize, pipeline, head, full, three times LoRA; whole processes), in one epoch.

{_each(sections, say)}"""


def _roofline(_: str, sections: Sections) -> str:
    def rows(section: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "backbone": SHAPES[shape],
                "step": step,
                "target": f"{ROOFS[shape][step]:.0%}",
                "share": _percent(share),
                "useful": _percent(share * section[shape]["useful"][step])
                if "useful" in section[shape]
                else "",
                "GFLOPs per review": f"{section[shape]['flops_per_review'][step] / 1e9:.2g}",
            }
            for shape in SHAPES
            for step, share in section[shape]["shares"].items()
        ]

    def say(section: dict[str, Any]) -> str:
        products = ", ".join(
            f"{section[shape]['peak'] / 1e9:,.0f} GFLOP/s in {section[shape]['precision']} "
            f"beside {name}"
            for shape, name in SHAPES.items()
        )
        # Sections without this key were measured before batches of all lengths were chosen.
        batches = (
            f"batches of all lengths, from {section['of_all_lengths']:,} reviews"
            if "of_all_lengths" in section
            else "training steps on the first batches of 1,024 reviews, which are padded more"
        )
        return f"{products}; {batches}."

    return f"""\
## Roofline

The shares are the FLOP/s of a step (PyTorch's counter, padding included) relative to those of a \
large matrix product in the same process and dtype. The useful share leaves out the tokens that \
are padding. The matrix products, and the batches of the steps:

{_each(sections, say)}

{_table(sections, 3, rows)}"""


def _stages(_: str, sections: Sections) -> str:
    def rows(section: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "stage": name,
                "target": "92%",
                "bare steps, reviews/s": f"{speeds['bare']:,.0f}",
                "stage, reviews/s": f"{speeds['whole']:,.0f}",
                "share": _percent(speeds["share"]),
            }
            for name, speeds in section["stages"].items()
        ]

    measured = ", ".join(f"{letter} {section['date']}" for letter, section in sections.items())
    return f"""\
## Training stages and their bare steps

A stage trains for one epoch on all reviews, with collation, logging, evaluation, checkpoints, and \
in bf16 on a CPU the preparation of each new shape. Its steps, those of the roofline, are measured \
before and after it. Measured: {measured}.

{_table(sections, 2, rows)}"""


def _precision(_: str, sections: Sections) -> str:
    def say(section: dict[str, Any]) -> str:
        speeds = ", ".join(
            f"{speed / 1e9:,.0f} GFLOP/s in {name}" for name, speed in section["products"].items()
        )
        verdict = "is the faster one" if section["right"] else "is not the faster one"
        return f"{speeds}; `auto` is {section['auto']}, which {verdict}."

    return f"""\
## Precision

A large matrix product in each precision between which `precision: auto` chooses:

{_each(sections, say)}"""


def _growth(name: str, sections: Sections) -> str:
    def rows(section: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "stage": name,
                "seconds, x1": f"{sizes['x1']['seconds']:.1f}",
                "seconds, x10": f"{sizes['x10']['seconds']:.1f}",
                "time ratio": f"{sizes['seconds_ratio']:.1f}",
                "peak MB, x1": f"{sizes['x1']['memory_mb']:,.0f}",
                "peak MB, x10": f"{sizes['x10']['memory_mb']:,.0f}",
                "memory ratio": f"{sizes['memory_mb_ratio']:.2f}",
            }
            for name, sizes in section["stages"].items()
        ]

    return f"""\
## Growth of {GROWTH[name]}

The data are training reviews (x1), and ten times as many (x10: repeated, with two words swapped). \
Targets: time ratio at most 10.5; memory ratio at most 1.2 (tokenize, extract-cls-features) or 1.1 \
(the others).

{_each(sections, lambda section: f"{section['reviews']:,} training reviews")}

{_table(sections, 1, rows)}"""


def _memory(_: str, sections: Sections) -> str:
    def rows(section: dict[str, Any]) -> list[dict[str, Any]]:
        sixteen = section["sixteen"]
        return [
            {
                "stage": name,
                "fp32, MB": f"{peaks['fp32']:,.0f}",
                f"{sixteen}, MB": f"{peaks[sixteen]:,.0f}" if sixteen in peaks else "",
                f"{sixteen} / fp32": f"{peaks[sixteen] / peaks['fp32']:.2f}"
                if sixteen in peaks
                else "",
            }
            for name, peaks in section["stages"].items()
        ]

    def say(section: dict[str, Any]) -> str:
        full, lora = section["stages"]["finetune-full"], section["stages"]["lora"]
        ratios = (f"{lora[name] / full[name]:.0%} in {name}" for name in lora)
        return f"LoRA takes {' and '.join(ratios)} of the memory of full fine-tuning."

    return f"""\
## Memory

The table shows the peak memory of each stage: on a CPU that of the process, libraries included; \
on a GPU what PyTorch allocated. Targets: 16 bit at most 1.0 of fp32, LoRA at most 75% of full.

{_each(sections, say)}

{_table(sections, 1, rows)}"""


def _corpus(_: str, sections: Sections) -> str:
    def rows(section: dict[str, Any]) -> list[dict[str, Any]]:
        small, large = (f"{section[key]:,}" for key in ("small", "large"))
        return [
            {
                "stage": name,
                f"seconds, {small}": f"{sizes['small']['seconds']:.1f}",
                f"seconds, {large}": f"{sizes['large']['seconds']:,.1f}",
                "time ratio": f"{sizes['seconds_ratio']:.1f}",
                f"peak MB, {small}": f"{sizes['small']['memory_mb']:,.0f}",
                f"peak MB, {large}": f"{sizes['large']['memory_mb']:,.0f}",
                "memory ratio": f"{sizes['memory_mb_ratio']:.2f}",
            }
            for name, sizes in section["stages"].items()
        ]

    return f"""\
## Corpus that does not fit into memory

The stages ran on training reviews (perturbed copies, in parquet shards) with a miniature \
backbone, each stage in its own process, including its start. Targets: memory ratio at most 1.3, \
time ratio at most that of the reviews.

{_each(sections, lambda section: f"{section['small']:,} and {section['large']:,} reviews")}

{_table(sections, 1, rows)}"""


def _cache(_: str, sections: Sections) -> str:
    def rows(section: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"a gigabyte as": layout, "cache.type": link}
            | {f"{command}, s": f"{value:.1f}" for command, value in seconds.items()}
            for layout, links in section["layouts"].items()
            for link, seconds in links.items()
        ]

    measured = ", ".join(f"{letter} {section['date']}" for letter, section in sections.items())
    return f"""\
## DVC's cache

Times are those of whole commands on a gigabyte of random bytes. After "touched", DVC cannot rely \
on the hash that it knows of a file and computes it again. Measured: {measured}.

{_table(sections, 2, rows)}"""


def _nothing(_: str, sections: Sections) -> str:
    def say(section: dict[str, Any]) -> str:
        return (
            f"`dvc repro` takes {_spread(section['repro'], 2)} s, which is {section['ratio']:g} "
            f"times as long as `dvc status` with {_spread(section['status'], 2)} s."
        )

    return f"""\
## Nothing to do

Target: `dvc repro` takes at most 1.2 times as long as `dvc status`.

{_each(sections, say)}"""


def _sizes(_: str, sections: Sections) -> str:
    def rows(section: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "backbone": SHAPES[shape],
                "step": row["step"],
                "reviews": f"{row['reviews']:,}" if "reviews" in row else "",
                "tokens at a time": f"{row['tokens']:,}",
                "reviews/s": f"{row['reviews_per_second']:,.0f}",
                "share": _percent(row["share"]),
            }
            | ({"MB": f"{row['peak_memory_mb']:,.0f}"} if row["peak_memory_mb"] else {})
            for shape in SHAPES
            if shape in section
            for row in section[shape]["rows"]
        ]

    def say(section: dict[str, Any]) -> str:
        return f"batches of all lengths, from {section['of_all_lengths']:,} reviews"

    return f"""\
## Sizes of batches

The steps of the roofline at growing sizes: tokens per batch in extraction; reviews per batch in \
training, and the most tokens for which gradients are computed at a time. MB is the peak of what \
PyTorch allocates on a GPU.

{_each(sections, say)}

{_table(sections, 4, rows)}"""


def _repro(_: str, sections: Sections) -> str:
    def rows(section: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "stage": name,
                "seconds": f"{costs['seconds']:,.1f}",
                "reviews/s": f"{costs['samples_per_second']:,.0f}",
                "test accuracy": f"{section['accuracy'][name]:.3f}"
                if name in section["accuracy"]
                else "",
            }
            | ({"peak MB": f"{costs['peak_memory_mb']:,.0f}"} if "peak_memory_mb" in costs else {})
            for name, costs in section["stages"].items()
        ]

    def say(section: dict[str, Any]) -> str:
        # A run that was stopped and continued has no time of its own.
        return (
            f"{section['seconds']:,.0f} s in all" if section["seconds"] else "not timed as a whole"
        )

    return f"""\
## `dvc repro` on all reviews

All stages with the parameters as committed, from local files, and what they report. Peak MB is \
that of the process, or what PyTorch allocated on the GPU by the stages that use it.

{_each(sections, say)}

{_table(sections, 1, rows)}"""
