"""Estimate the time and price of more reviews from the rates of the last run on this machine.

    python -m bench.plan [--euros-per-hour 0.1] [--reviews 1e7 1e9]

Reads metrics/costs. It assumes that time grows in proportion to the reviews, which the benchmark
has measured (metrics/bench.md: growth, corpus). The price is that of the machine of that run.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

COSTS = Path(__file__).parents[1] / "metrics/costs"
# Titles in the table of the steps whose rate is in reviews per second (over all epochs).
STEPS = {
    "tokenize": "tokenize",
    "extract-cls-features": "extract-cls-features",
    "finetune-full": "finetune-full, one epoch",
    "lora": "lora, one epoch",
}


def table(euros_per_hour: float, reviews: list[float]) -> pd.DataFrame:
    """Tabulate, by step, reviews per second and per euro, and the time and price of `reviews`."""
    rows = []
    for name, title in STEPS.items():
        costs = json.loads((COSTS / f"{name}.json").read_text(encoding="utf-8"))
        rate = costs["samples_per_second"]
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
    args = parser.parse_args()
    print(table(args.euros_per_hour, args.reviews).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
