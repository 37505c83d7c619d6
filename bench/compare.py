"""The measurements of the benchmark; each returns plain numbers, which markdown.py reports."""

import json
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy.stats import binomtest
from tqdm import tqdm

from bench.project import ROOT, Project, Run
from stages.lib.encoder import precision
from stages.lib.models import registry
from stages.lib.report import seeds

TRAINED = ("finetune-head", "finetune-full", "lora")
SCRIPTS = {
    "tokenize": "stages.tokenize",
    "extract-cls-features": "stages.extract_cls_features",
    "svm": "stages.svm",
    "finetune-head": "stages.finetune_head",
    "finetune-full": "stages.finetune_full",
    "lora": "stages.lora",
}
# Pairs of our stage and their reference (bench/theirs.py).
PAIRS = (
    ("tokenize", "tokenize"),
    ("extract-cls-features", "pipeline"),
    ("extract-cls-features", "pipeline-32"),
    ("finetune-head", "head"),
    ("finetune-full", "full"),
    ("lora", "lora"),
)
# Pairs that train the whole network. Their names are also those of the roofline's steps.
LEARNING = (("finetune-full", "full"), ("lora", "lora"))
# The stages whose growth each section measures.
GROWING = {
    "growth": ("tokenize", "extract-cls-features", "finetune-head"),
    "growth-full": ("finetune-full",),
    "growth-lora": ("lora",),
}
# Pairs so fast that, on a part of the reviews, start-up would dominate the time.
QUICK = (("tokenize", "tokenize"), ("finetune-head", "head"))


def machine() -> dict[str, Any]:
    """Describe the machine on which the figures were measured."""
    device = precision.device()
    cpu = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ] if sys.platform == "linux" else [platform.processor()]  # fmt: skip
    return {
        "device": (
            torch.cuda.get_device_name(device)
            if device.type == "cuda"
            # Processors by ARM have no such line.
            else next(iter(cpu), platform.machine())
        ),
        "threads": torch.get_num_threads(),
        "precision": precision.resolve("auto"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Return the median, minimum and maximum, to four significant digits."""
    named = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in named.items()}


def run_stage(project: Project, name: str) -> Run:
    """Run a stage's script as DVC would."""
    return project.module(SCRIPTS[name], *([name] if name == "lora" else []))


def work(project: Project, name: str) -> dict[str, float]:
    """Return the seconds of the stage's main loop and, for a model, its test accuracy."""
    seconds = project.read(f"metrics/costs/{name}.json")["seconds"]
    if name in ("tokenize", "extract-cls-features"):
        return {"seconds": seconds}
    # The stage that evaluates would take longer to start than some of these take.
    rows = pd.read_csv(project.path / f"data/predictions/{name}.csv")
    tests = rows[rows["split"] == "test"]
    return {"seconds": seconds, "accuracy": float((tests["prediction"] == tests["label"]).mean())}


def sides(
    project: Project,
    rounds: int,
    pairs: tuple[tuple[str, str], ...] = PAIRS,
    *,
    epochs: int = 1,
) -> dict[str, Any]:
    """Compare stages with their references."""
    for name in TRAINED:
        project.set(name, epochs=epochs)
    project.set("svm", C=[0.01])
    project.module("stages.download")
    run_stage(project, "tokenize")
    run_stage(project, "extract-cls-features")
    ours: dict[str, list[dict[str, float]]] = {name: [] for name, _ in pairs}
    theirs: dict[str, list[dict[str, float]]] = {name: [] for _, name in pairs}
    settings = _settings(project)
    for seed in tqdm(range(rounds), unit="round"):
        # With one epoch of few reviews, the seed alone changes scores by some points, on both
        # sides.
        project.set(None, seed=seed)
        for name, runs in ours.items():
            done = run_stage(project, name)
            runs.append(work(project, name) | {"process": done.seconds})
            for reference in (theirs_name for ours_name, theirs_name in pairs if ours_name == name):
                theirs[reference].append(_reference(project, reference, settings, seed))
    tests = _reviews(project, "test")
    return {
        "rows": [
            _row(name, reference, ours[name], theirs[reference], tests) for name, reference in pairs
        ],
        "head_with_extraction": _head_with_extraction(project, ours, theirs),
        "rounds": rounds,
        "epochs": epochs,
        "train": _reviews(project, "train"),
        "test": tests,
    }


def _reference(
    project: Project, name: str, settings: dict[str, dict[str, Any]], seed: int
) -> dict[str, Any]:
    """Run a reference, and add the seconds of the whole process to its results."""
    done = project.module("bench.theirs", name, stdin=json.dumps(settings[name] | {"seed": seed}))
    return json.loads(done.stdout.splitlines()[-1]) | {"process": done.seconds}


def scores(project: Project, rounds: int, before: dict[str, Any]) -> dict[str, Any]:
    """Collect test accuracies on all reviews, with the committed epochs, by seed.

    Ours are those of the last run and of metrics/seeds.json. The references are trained with
    `rounds` seeds more than in `before`, the section of an earlier run.
    """
    settings = _settings(project)
    collected = seeds.read(ROOT / "metrics/seeds.json")
    most = max(run.train for run in collected)
    models: dict[str, dict[str, list[float]]] = {}
    for name, reference in LEARNING:
        last = json.loads((ROOT / f"metrics/{name}.json").read_text(encoding="utf-8"))
        others = [run for run in collected if (run.model, run.train) == (name, most)]
        known = before.get("models", {}).get(name, {}).get("theirs", [])
        more = range(len(known), len(known) + rounds)
        runs = [
            _reference(project, reference, settings, seed)
            for seed in tqdm(more, desc=reference, unit="seed")
        ]
        models[name] = {
            "ours": [last["test"]["accuracy"], *(run.scores["test"]["accuracy"] for run in others)],
            "theirs": [*known, *(round(run["accuracy"], 6) for run in runs)],
        }
    return {"models": models}


def dag(project: Project, rounds: int) -> dict[str, Any]:
    """Compare dvc repro of all models with the sum of the references, LoRA three times."""
    for name in TRAINED:
        project.set(name, epochs=1)
    settings = _settings(project)
    ours, theirs = [], []
    for seed in tqdm(range(rounds), unit="round"):
        ours.append(_whole_dag(project))
        once = {
            name: _reference(project, name, settings, seed)["process"]
            for name in ("tokenize", "pipeline", "head", "full", "lora")
        }
        theirs.append(sum(once.values()) + 2 * once["lora"])
    ratio = round(statistics.median(theirs) / statistics.median(ours), 2)
    return {"rounds": rounds, "ours": spread(ours), "theirs": spread(theirs), "ratio": ratio}


def products() -> dict[str, Any]:
    """Measure the matrix product in each precision, and judge what `auto` chooses."""
    # It imports what training needs, which takes seconds.
    from bench import roofline

    found = roofline.products(sixteen())
    chosen = precision.resolve("auto")
    return {"products": found, "auto": chosen, "right": found[chosen] == max(found.values())}


def sixteen() -> str:
    """Return the 16-bit precision that `auto` is, or would be if it were no fp32."""
    chosen = precision.resolve("auto")
    if chosen != "fp32":
        return chosen
    return "fp16" if precision.device().type == "cuda" else "bf16"


def fell(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """List the figures of speed that are more than 10% lower than before, in sections of both."""
    one, two = _speeds(before), _speeds(after)
    return [
        f"{name}: {one[name]:.3g} to {speed:.3g} ({speed / one[name] - 1:+.0%})"
        for name, speed in two.items()
        if name in one and speed < 0.9 * one[name]
    ]


def _speeds(results: dict[str, Any]) -> dict[str, float]:
    """Return shares of the matrix product and ratios to the references, which are the code's own.

    Reviews per second depend on what else the machine does.
    """
    roofs = {
        f"roofline, {shape}, {step}": share * section["useful"][step]
        for shape, section in results.get("roofline", {}).items()
        if "of_all_lengths" in results["roofline"] and isinstance(section, dict)
        for step, share in section["shares"].items()
    }
    return roofs | {
        f"{row['ours']} against {row['theirs']}": row["ratio"]["median"]
        for row in results.get("embedded", {}).get("rows", [])
    }


def _head_with_extraction(project: Project, ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Return the time of theirs over that of our head and the extraction of its features."""
    runs = ours.get("extract-cls-features", [work(project, "extract-cls-features")])
    extraction, head, reference = (
        statistics.median(run["seconds"] for run in part)
        for part in (runs, ours["finetune-head"], theirs["head"])
    )
    return round(reference / (head + extraction), 2)


def _reviews(project: Project, split: str) -> int:
    return project.read("metrics/download.json")[split]["reviews"]


def _settings(project: Project) -> dict[str, dict[str, Any]]:
    from ruamel.yaml import YAML

    params = YAML(typ="safe").load(project.path / "params.yaml")
    where = {"reviews": str(project.reviews), "backbone": str(project.backbone)}
    trained = ("epochs", "batch_size", "lr", "weight_decay", "warmup")
    return {
        reference: where | {key: params[name][key] for key in trained if key in params[name]}
        for name, reference in PAIRS
    }


def _whole_dag(project: Project) -> float:
    """Time dvc repro (in s) from the local files to all models, with nothing cached.

    This is the work that the references do, too.
    """
    again = Project(project.path.with_name("dag"), project.reviews, project.backbone)
    for name in (*TRAINED, "lora-2e-5", "lora-2e-4"):
        again.set(name, epochs=1)
    again.set("svm", C=[0.01])
    models = ("svm", *TRAINED, "lora-2e-5", "lora-2e-4")
    return again.run("dvc", "repro", "--quiet", *(f"train-{name}" for name in models)).seconds


def _row(
    name: str,
    reference: str,
    ours: list[dict[str, float]],
    theirs: list[dict[str, float]],
    tests: int,
) -> dict[str, Any]:
    samples = theirs[0]["samples"]
    row: dict[str, Any] = {"ours": name, "theirs": reference}
    for side, runs in (("ours", ours), ("theirs", theirs)):
        row[f"{side}_seconds"] = spread([run["seconds"] for run in runs])
        row[f"{side}_reviews_per_second"] = spread([samples / run["seconds"] for run in runs])
        row[f"{side}_process_seconds"] = spread([run["process"] for run in runs])
        if "accuracy" in runs[0]:
            mean = statistics.mean(run["accuracy"] for run in runs)
            row[f"{side}_accuracy"] = _interval(mean, tests)
    row["ratio"] = spread(
        [one["seconds"] / two["seconds"] for one, two in zip(theirs, ours, strict=True)]
    )
    return row


def _interval(accuracy: float, count: int) -> dict[str, float]:
    """Return the accuracy with its 95% interval (Wilson)."""
    interval = binomtest(round(accuracy * count), count).proportion_ci(method="wilson")
    return {
        "value": round(accuracy, 4), "low": round(interval.low, 4), "high": round(interval.high, 4)
    }  # fmt: skip


def steps(project: Project, section: str) -> dict[str, Any]:
    """Run bench/roofline.py or bench/sizes.py, as `section` says, in the project."""
    float_format = precision.resolve("auto")
    done = project.module(f"bench.{section}", float_format)
    return {"precision": float_format} | json.loads(done.stdout.splitlines()[-1])


def stages(project: Project) -> dict[str, Any]:
    """Compare the reviews/s of training stages with those of their bare steps.

    A stage runs one epoch with all that belongs to it: collation, logging, evaluation, checkpoints,
    and in bf16 on a CPU the preparation of each new shape. Its steps are measured before and after
    it, because the speed of a machine that others use as well changes within minutes.
    """
    rows = {}
    for name, step in LEARNING:
        project.set(name, epochs=1)
        before = _bare(project, step)
        run_stage(project, name)
        whole = project.read(f"metrics/costs/{name}.json")["samples_per_second"]
        bare = statistics.mean([before, _bare(project, step)])
        rows[name] = {"bare": bare, "whole": whole, "share": whole / bare}
    return {"stages": rows}


def _bare(project: Project, step: str) -> float:
    """Measure the reviews/s of a step, on more batches than those of the roofline.

    Six of them leave out the longest reviews, and are 3% narrower than all of them on average.
    """
    asked = [precision.resolve("auto"), "--only", step, "--batches", "12"]
    done = project.module("bench.roofline", *asked)
    return json.loads(done.stdout.splitlines()[-1])["reviews_per_second"][step]


def repro(project: Project) -> dict[str, Any]:
    """Time `dvc repro` of everything (in s), and collect what its stages report."""
    seconds = project.run("dvc", "repro", "--quiet").seconds
    costs = {
        path.stem: project.read(f"metrics/costs/{path.name}")
        for path in sorted((project.path / "metrics/costs").glob("*.json"))
    }
    kept = ("seconds", "samples_per_second", "peak_memory_mb", "precision")
    return {
        "seconds": round(seconds, 1),
        "stages": {
            name: {key: values[key] for key in kept if key in values}
            for name, values in costs.items()
            if "samples_per_second" in values
        },
        "accuracy": {
            name: project.read(f"metrics/{name}.json")["test"]["accuracy"]
            for name in registry.names()
        },
    }


def growth(one: Project, ten: Project, names: tuple[str, ...]) -> dict[str, Any]:
    """Measure seconds and peak memory (MB) of stages on the data and on ten times the data."""
    measured: dict[str, dict[str, dict[str, float]]] = {}
    for size, project in (("x1", one), ("x10", ten)):
        for name in TRAINED:
            project.set(name, epochs=1)
        project.module("stages.download")
        if "tokenize" not in names:
            run_stage(project, "tokenize")
        for name in names:
            done = run_stage(project, name)
            measured.setdefault(name, {})[size] = {
                "seconds": work(project, name)["seconds"],
                "memory_mb": round(done.memory, 1),
            }
    for sizes in measured.values():
        for figure in ("seconds", "memory_mb"):
            sizes[f"{figure}_ratio"] = round(sizes["x10"][figure] / sizes["x1"][figure], 2)
    return {"reviews": _reviews(one, "train"), "stages": measured}


def memory(project: Project) -> dict[str, Any]:
    """Measure peak memory (MB) of training and extraction in 32-bit and 16-bit precision."""
    for name in TRAINED:
        project.set(name, epochs=1)
    project.set("dataset", subset=128)
    project.module("stages.download")
    project.module("stages.tokenize")
    peaks: dict[str, dict[str, float]] = {}
    half = sixteen()
    for float_format in ("fp32", half):
        project.set(None, precision=float_format)
        for name in ("extract-cls-features", "finetune-full", "lora"):
            done = run_stage(project, name)
            on_gpu = project.read(f"metrics/costs/{name}.json")["peak_memory_mb"]
            peak = on_gpu if torch.cuda.is_available() else done.memory
            peaks.setdefault(name, {})[float_format] = round(peak, 1)
    others: dict[str, Callable[[], Run]] = {
        "download": lambda: project.module("stages.download"),
        "tokenize": lambda: run_stage(project, "tokenize"),
        "svm": lambda: run_stage(project, "svm"),
        "finetune-head": lambda: run_stage(project, "finetune-head"),
    }
    for name, run in others.items():
        peaks[name] = {"fp32": round(run().memory, 1)}
    return {"sixteen": half, "stages": peaks}


def nothing(project: Project, rounds: int) -> dict[str, Any]:
    """Time dvc repro with nothing to do, and dvc status, in turns (in s)."""
    for name in (*TRAINED, "lora-2e-5", "lora-2e-4"):
        project.set(name, epochs=1)
    project.set("dataset", subset=64)
    project.run("dvc", "repro", "--quiet")
    repro, status = [], []
    for _ in range(2 * rounds + 1):
        repro.append(project.run("dvc", "repro").seconds)
        status.append(project.run("dvc", "status").seconds)
    return {
        "repro": spread(repro),
        "status": spread(status),
        "ratio": round(statistics.median(repro) / statistics.median(status), 2),
    }
