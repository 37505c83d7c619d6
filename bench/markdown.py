"""metrics/bench.md from the figures, with the targets beside them."""

from pathlib import Path
from typing import Any

import pandas as pd

NOTES = Path(__file__).with_name("notes.md")

# What a machine with AVX512-BF16 should reach; times the reference's speed.
TARGETS = {
    ("tokenize", "tokenize"): 5,
    ("extract-cls-features", "pipeline"): 7,
    ("extract-cls-features", "pipeline-32"): 7,
    ("finetune-head", "head"): 100,
    ("finetune-full", "full"): 4.5,
    ("lora", "lora"): 5.5,
}
REFERENCES = {
    "tokenize": "`Dataset.map`, a review at a time",
    "pipeline": '`pipeline("feature-extraction")`',
    "pipeline-32": "the same with batch_size=32",
    "head": "Trainer, frozen backbone",
    "full": "Trainer",
    "lora": "Trainer and PEFT",
}
ROOFS = {
    "embedded": {"extraction": 0.55, "full": 0.35, "lora": 0.35},
    "base": {"extraction": 0.65, "full": 0.35, "lora": 0.35},
}
TITLES = {
    "embedded": "on the backbone of data/backbone",
    "all": "on all reviews: what is too quick for a part of them",
    "base": "on DistilBERT-base's shapes",
}
SHAPES = {"embedded": "the backbone of data/backbone", "base": "DistilBERT-base's shapes"}


def write(results: dict[str, Any]) -> str:
    """The report of all sections that were measured."""
    machine = results["machine"]
    parts = [
        "# Bench\n\nMade by `make bench`: every figure here is in bench.json. "
        f"Machine: {machine['device']}, {machine['threads']} threads, precision "
        f"{machine['precision']} (`auto`); torch {machine['torch']}, Python {machine['python']}. "
        "The targets are for 2 cores with AVX512-BF16; without native bf16 both sides run in fp32."
    ]
    for name, says in (
        ("embedded", _sides),
        ("all", _sides),
        ("base", _sides),
        ("roofline", _roofline),
        ("growth", _growth),
        ("memory", _memory),
        ("corpus", _corpus),
        ("cache", _cache),
        ("nothing", _nothing),
    ):
        if name in results:
            parts.append(says(name, results[name]))
    parts.append(NOTES.read_text(encoding="utf-8").strip())
    return "\n\n".join(parts) + "\n"


def _spread(values: dict[str, float], digits: int = 1) -> str:
    low, high = (f"{values[key]:,.{digits}f}" for key in ("min", "max"))
    return f"{values['median']:,.{digits}f} ({low} to {high})"


def _accuracy(row: dict[str, Any]) -> str:
    if "ours_accuracy" not in row or "theirs_accuracy" not in row:
        return ""
    one, two = row["ours_accuracy"], row["theirs_accuracy"]
    agree = one["low"] <= two["high"] and two["low"] <= one["high"]
    return f"{one['value']:.3f} / {two['value']:.3f}, {'agree' if agree else 'differ'}"


def _sides(name: str, section: dict[str, Any]) -> str:
    rows = [
        {
            "stage": row["ours"],
            "theirs": REFERENCES[row["theirs"]],
            "ours, reviews/s": _spread(row["ours_reviews_per_second"], 0),
            "theirs, reviews/s": _spread(row["theirs_reviews_per_second"], 0),
            "ratio": _spread(row["ratio"]),
            "target": f"{TARGETS[row['ours'], row['theirs']]:g}",
            "test accuracy": _accuracy(row),
        }
        for row in section["rows"]
    ]
    return f"""\
## Side by side {TITLES[name]}

{section["rounds"]} rounds in turns on {section["train"]:,} training reviews, \
{section["epochs"]} epoch{"s" if section["epochs"] > 1 else ""}; medians (least to most) of the \
work itself, without imports and loading. Accuracies are means over the rounds, each with a seed \
of its own on both sides, and agree where their 95% intervals (Wilson, {section["test"]:,} test \
reviews) overlap. {section["date"]}.

{_table(rows)}

The head with extraction's time added: {section["head_with_extraction"]:g} times.\
{_dag(section["dag"]) if "dag" in section else ""}"""


def _dag(dag: dict[str, Any]) -> str:
    return (
        " The whole DAG up to all models (`dvc repro` from local files, starting each stage "
        f"included): {_spread(dag['ours'])} s. The sum of theirs (tokenize, pipeline, head, full, "
        f"three times LoRA; whole processes): {_spread(dag['theirs'])} s, {dag['ratio']:g} times "
        "as long (target: 4)."
    )


def _roofline(_: str, section: dict[str, Any]) -> str:
    rows = [
        {
            "backbone": SHAPES[shape],
            "precision": section[shape]["precision"],
            "matrix product, GFLOP/s": f"{section[shape]['peak'] / 1e9:,.0f}",
            **{
                f"{step} (target)": f"{share:.0%} ({ROOFS[shape][step]:.0%})"
                for step, share in section[shape]["shares"].items()
            },
            "GFLOPs a review": ", ".join(
                f"{flops / 1e9:.2g}" for flops in section[shape]["flops_per_review"].values()
            ),
        }
        for shape in SHAPES
    ]
    return f"""\
## Roofline

FLOP/s of a step (PyTorch's counter, padding included) over those of a large matrix product in the \
same process and dtype; FLOPs a review in the order of the columns before. {section["date"]}.

{_table(rows)}"""


def _growth(_: str, section: dict[str, Any]) -> str:
    rows = [
        {
            "stage": name,
            "seconds, x1": f"{sizes['x1']['seconds']:.1f}",
            "x10": f"{sizes['x10']['seconds']:.1f}",
            "time ratio": f"{sizes['seconds_ratio']:.1f}",
            "peak MB, x1": f"{sizes['x1']['memory_mb']:,.0f}",
            "x10 ": f"{sizes['x10']['memory_mb']:,.0f}",
            "memory ratio": f"{sizes['memory_mb_ratio']:.2f}",
        }
        for name, sizes in section["stages"].items()
    ]
    return f"""\
## Growth

{section["reviews"]:,} training reviews, and ten times as many (repeated, with two words swapped). \
Targets: time at most x10.5; memory at most x1.2 (tokenize, extract-cls-features) and x1.1 \
(training). {section["date"]}.

{_table(rows)}"""


def _memory(_: str, section: dict[str, Any]) -> str:
    sixteen = section["sixteen"]
    rows = [
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
    full, lora = (section["stages"][name]["fp32"] for name in ("finetune-full", "lora"))
    return f"""\
## Memory

Peak of each stage (on a CPU of the process, libraries included; on a GPU of what PyTorch \
allocated). LoRA takes {lora / full:.0%} of what full fine-tuning takes, in fp32. {section["date"]}.

{_table(rows)}"""


def _corpus(_: str, section: dict[str, Any]) -> str:
    small, large = (f"{section[key]:,}" for key in ("small", "large"))
    rows = [
        {
            "stage": name,
            f"seconds, {small}": f"{sizes['small']['seconds']:.1f}",
            large: f"{sizes['large']['seconds']:,.1f}",
            "time ratio": f"{sizes['seconds_ratio']:.1f}",
            f"peak MB, {small}": f"{sizes['small']['memory_mb']:,.0f}",
            f"{large} ": f"{sizes['large']['memory_mb']:,.0f}",
            "memory ratio": f"{sizes['memory_mb_ratio']:.2f}",
        }
        for name, sizes in section["stages"].items()
    ]
    return f"""\
## A corpus that does not fit

{small} and {large} training reviews (perturbed copies, in parquet shards) on a miniature \
backbone; each stage a process of its own, starting included. Targets: memory at most x1.3, time \
at most x{section["large"] / section["small"]:g}. {section["date"]}.

{_table(rows)}"""


def _cache(_: str, section: dict[str, Any]) -> str:
    rows = [
        {"a gigabyte as": layout, "cache.type": link}
        | {f"{command}, s": f"{value:.1f}" for command, value in seconds.items()}
        for layout, links in section["layouts"].items()
        for link, seconds in links.items()
    ]
    return f"""\
## DVC's cache

Whole commands on a gigabyte of random bytes; after "touched", DVC cannot trust what it knows of a \
file and hashes it again. {section["date"]}.

{_table(rows)}"""


def _nothing(_: str, section: dict[str, Any]) -> str:
    return f"""\
## Nothing to do

`dvc repro` {_spread(section["repro"], 2)} s, `dvc status` {_spread(section["status"], 2)} s: \
{section["ratio"]:g} times as long (target: 1.2). {section["date"]}."""


def _table(rows: list[dict[str, Any]]) -> str:
    table = pd.DataFrame(rows)
    return table.to_markdown(index=False, disable_numparse=True)
