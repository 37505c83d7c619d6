"""Rendering of metrics/bench.md from the figures, with the targets alongside."""

from pathlib import Path
from typing import Any

import pandas as pd

NOTES = Path(__file__).with_name("notes.md")

# Speed relative to the reference that a machine with AVX512-BF16 should reach.
TARGETS = {
    ("tokenize", "tokenize"): 5,
    ("extract-cls-features", "pipeline"): 7,
    ("extract-cls-features", "pipeline-32"): 7,
    ("finetune-head", "head"): 100,
    ("finetune-full", "full"): 4.5,
    ("lora", "lora"): 5.5,
}
REFERENCES = {
    "tokenize": "`Dataset.map`, one review at a time",
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
    "all": "on all reviews, for stages too quick to time on a part",
    "base": "on DistilBERT-base's shapes",
}
SHAPES = {"embedded": "the backbone of data/backbone", "base": "DistilBERT-base's shapes"}


def write(results: dict[str, Any]) -> str:
    """Render the report of all sections that were measured."""
    machine = results["machine"]
    parts = [
        "# Benchmark\n\nWritten by `make bench`; every figure is also in bench.json. "
        f"Machine: {machine['device']}, {machine['threads']} threads, precision "
        f"{machine['precision']} (`auto`); torch {machine['torch']}, Python {machine['python']}. "
        "The targets are for 2 cores with AVX512-BF16; without native bf16, both sides run in fp32."
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

Ours and theirs ran in turns for {section["rounds"]} rounds on {section["train"]:,} training \
reviews, {section["epochs"]} epoch{"s" if section["epochs"] > 1 else ""}. The figures are medians \
(minimum to maximum) for the work itself, without imports and loading. Accuracies are means over \
the rounds, each with its own seed on both sides; they agree if their 95% intervals (Wilson, \
{section["test"]:,} test reviews) overlap. Measured {section["date"]}.

{_table(rows)}

With the time of extraction added, the head is {section["head_with_extraction"]:g} times as fast.\
{_dag(section["dag"]) if "dag" in section else ""}"""


def _dag(dag: dict[str, Any]) -> str:
    return (
        " The whole DAG up to all models (`dvc repro` from local files, including the start of "
        f"each stage) takes {_spread(dag['ours'])} s. Theirs (tokenize, pipeline, head, full, "
        f"three times LoRA; whole processes) take {_spread(dag['theirs'])} s in total, "
        f"{dag['ratio']:g} times as long (target: 4)."
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
            "GFLOPs per review": ", ".join(
                f"{flops / 1e9:.2g}" for flops in section[shape]["flops_per_review"].values()
            ),
        }
        for shape in SHAPES
    ]
    return f"""\
## Roofline

The shares are the FLOP/s of a step (PyTorch's counter, padding included) relative to those of a \
large matrix product in the same process and dtype. FLOPs per review are in the order of the \
preceding columns. Measured {section["date"]}.

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

The data are {section["reviews"]:,} training reviews (x1), and ten times as many (x10: repeated, \
with two words swapped). Targets: time ratio at most 10.5; memory ratio at most 1.2 (tokenize, \
extract-cls-features) or 1.1 (training). Measured {section["date"]}.

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

The table shows the peak memory of each stage: on a CPU that of the process, libraries included; \
on a GPU what PyTorch allocated. In fp32, LoRA takes {lora / full:.0%} of the memory of full \
fine-tuning. Measured {section["date"]}.

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
## Corpus that does not fit into memory

The stages ran on {small} and {large} training reviews (perturbed copies, in parquet shards) with \
a miniature backbone, each stage in its own process, including its start. Targets: memory ratio at \
most 1.3, time ratio at most {section["large"] / section["small"]:g}. Measured {section["date"]}.

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

Times are those of whole commands on a gigabyte of random bytes. After "touched", DVC cannot rely \
on the hash that it knows of a file and computes it again. Measured {section["date"]}.

{_table(rows)}"""


def _nothing(_: str, section: dict[str, Any]) -> str:
    return f"""\
## Nothing to do

`dvc repro` takes {_spread(section["repro"], 2)} s, which is {section["ratio"]:g} times as long as \
`dvc status` with {_spread(section["status"], 2)} s (target: 1.2). Measured {section["date"]}."""


def _table(rows: list[dict[str, Any]]) -> str:
    table = pd.DataFrame(rows)
    return table.to_markdown(index=False, disable_numparse=True)
