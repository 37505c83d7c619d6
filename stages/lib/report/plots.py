"""Small tables of what the pictures show. The page has each of them one click away from its
picture, and DVC draws and compares the files alongside the pictures (see plots in dvc.yaml).

Each table is in long format, with a column `model`, so that a new model needs no plot of its own.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from stages.lib.report import learning, statistics
from stages.lib.report.content import Table
from stages.lib.report.failures import accuracy_by_length, bins_of_reliability
from stages.lib.report.inputs import CURVES, Results


def tables(results: Results) -> dict[str, pd.DataFrame]:
    """Return the table of each picture by the picture's key, with a column `model`."""
    lengths = accuracy_by_length(results)

    def cost(model: str) -> pd.DataFrame:
        costs, interval = results.costs[model], results.interval(model, "test")
        columns = {
            "accuracy": results.accuracy(model, "test"),
            "low": interval.low,
            "high": interval.high,
            "parameters": costs["trainable_parameters"],
            "seconds": costs["seconds"],
            "megabytes": costs["size_bytes"] / 1e6,
        }
        return pd.DataFrame([columns])

    def seeds(model: str) -> pd.DataFrame:
        found = results.seeds
        of = {split: results.by_seed(model, split, "accuracy") for split in ("validation", "test")}
        # A model without a seed has one run.
        numbers = [found.last[model], *(run.seed for run in found.others[model])]
        return pd.DataFrame({"seed": ["" if n is None else str(n) for n in numbers]} | of)

    def confusion(model: str) -> pd.DataFrame:
        rows = results.predictions[model]["test"]
        return rows.groupby(["label", "prediction"]).size().reset_index(name="reviews")

    def by_length(model: str) -> pd.DataFrame:
        counts = lengths.counts[model]
        intervals = [statistics.wilson(right, total) for right, total in counts]
        return pd.DataFrame(
            {
                "words": lengths.means,
                "accuracy": [right / total for right, total in counts],
                "low": [interval.low for interval in intervals],
                "high": [interval.high for interval in intervals],
            }
        )

    def curve(name: str) -> Callable[[str], pd.DataFrame]:
        of = {"value": name.partition("/")[2]}
        return lambda model: results.curves[model].get(name, pd.DataFrame()).rename(columns=of)

    by_model = {
        "cost": cost,
        "confusion": confusion,
        "reliability": lambda model: bins_of_reliability(results, model),
        "length": by_length,
        learning.KEY: lambda model: learning.table(results, model),
    } | {f"curve-{name.replace('/', '-')}": curve(name) for name in CURVES}
    if results.several_seeds:
        by_model["seeds"] = seeds
    return {
        key: pd.concat([of(model).assign(model=model) for model in results.models])
        for key, of in by_model.items()
    }


def write(results: Results, directory: Path) -> None:
    """Write each table as <key>.csv, with numbers to 6 significant digits."""
    for key, table in tables(results).items():
        table.to_csv(
            directory / f"{key}.csv", index=False, float_format="%.6g", lineterminator="\n"
        )


def shown(results: Results) -> dict[str, Table]:
    """Return the same tables as content of the report, where it has the picture."""
    found = tables(results)
    if not learning.compared(results)[0]:
        # DVC still draws it, as a point for each model.
        del found[learning.KEY]
    return {
        key: Table(
            f"{key}-data",
            f"What the picture shows, also in report/{key}.csv.",
            ["model", *(column for column in table if column != "model")],
            [
                [row["model"], *(_cell(value) for name, value in row.items() if name != "model")]
                for row in table.to_dict("records")
            ],
            prose=["label", "prediction"],
        )
        for key, table in found.items()
    }


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
