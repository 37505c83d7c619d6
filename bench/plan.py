"""Estimate the time and price of more reviews from the rates of a run.

    python -m bench.plan [--euros-per-hour 0.1] [--reviews 1e7 1e9] [--machine "NVIDIA H200, fp16"]

Reads metrics/costs, or with --machine the section "repro" of that machine in metrics/bench.json. It
assumes that time grows in proportion to the reviews, which the benchmark has measured
(metrics/bench.md: growth, corpus). The price is that of the machine of that run.
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd

METRICS = Path(__file__).parents[1] / "metrics"
# Titles in the table of the steps whose rate is in reviews per second (over all epochs).
STEPS = {
    "tokenize": "tokenize",
    "extract-cls-features": "extract-cls-features",
    "finetune-full": "finetune-full, one epoch",
    "lora": "lora, one epoch",
}


def rates(machine: str | None = None) -> dict[str, float]:
    """Read the reviews per second of each step in the last run, or in that of a benchmark.

    `machine` is a key of metrics/bench.json, where the benchmark has its run. Exits if it has none.
    """
    if machine is None:
        costs = {
            name: json.loads((METRICS / f"costs/{name}.json").read_text(encoding="utf-8"))
            for name in STEPS
        }
    else:
        machines = json.loads((METRICS / "bench.json").read_text(encoding="utf-8"))
        known = [name for name, sections in machines.items() if "repro" in sections]
        if machine not in known:
            sys.exit(f"error: --machine {machine}: 'dvc repro' was timed on: {'; '.join(known)}")
        costs = machines[machine]["repro"]["stages"]
    return {name: costs[name]["samples_per_second"] for name in STEPS}


def table(euros_per_hour: float, reviews: list[float], speeds: dict[str, float]) -> pd.DataFrame:
    """Tabulate, by step, reviews per second and per euro, and the time and price of `reviews`."""
    rows = []
    for name, title in STEPS.items():
        rate = speeds[name]
        rows.append(
            {"step": title, "reviews/s": f"{rate:,.0f}"}
            | {"reviews/euro": f"{_rounded(rate * 3600 / euros_per_hour):,}"}
            | {
                f"{count:,.0f}": f"{duration(count / rate)}, "
                f"{_rounded(count / rate / 3600 * euros_per_hour):,} euros"
                for count in reviews
            }
        )
    return pd.DataFrame(rows)


def duration(seconds: float) -> str:
    """Format a duration in the unit that a person would choose."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _rounded(value: float) -> float:
    """Round to two significant digits."""
    short = float(f"{value:.2g}")
    return int(short) if short >= 10 else short


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.plan", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--euros-per-hour", type=float, default=0.1)
    parser.add_argument("--reviews", type=float, nargs="+", default=[1e7, 1e9])
    parser.add_argument("--machine", help="a machine of metrics/bench.json")
    args = parser.parse_args()
    found = table(args.euros_per_hour, args.reviews, rates(args.machine))
    print(found.to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
