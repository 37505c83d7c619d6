"""Small tables alongside the pictures, which DVC draws and compares (see plots in dvc.yaml).

Each table is in long format, with a column `model`, so that a new model needs no plot of its own.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from stages.lib.report.failures import accuracy_by_length, bins_of_reliability
from stages.lib.report.inputs import CURVES, Results


def write(results: Results, directory: Path) -> None:
    """Write curve-*.csv, confusion.csv, reliability.csv and length.csv, to 6 significant digits."""
    lengths = accuracy_by_length(results)

    def confusion(model: str) -> pd.DataFrame:
        rows = results.predictions[model]["test"]
        return rows.groupby(["label", "prediction"]).size().reset_index(name="reviews")

    def by_length(model: str) -> pd.DataFrame:
        shares = [right / total for right, total in lengths.counts[model]]
        return pd.DataFrame({"words": lengths.means, "accuracy": shares})

    def curve(name: str) -> Callable[[str], pd.DataFrame]:
        of = {"value": name.partition("/")[2]}
        return lambda model: results.curves[model].get(name, pd.DataFrame()).rename(columns=of)

    tables = {
        "confusion": confusion,
        "reliability": lambda model: bins_of_reliability(results, model),
        "length": by_length,
    } | {f"curve-{name.replace('/', '-')}": curve(name) for name in CURVES}
    for name, of_model in tables.items():
        table = pd.concat([of_model(model).assign(model=model) for model in results.models])
        table.to_csv(
            directory / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n"
        )
