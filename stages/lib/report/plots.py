"""Small tables beside the pictures, which DVC draws and compares (see plots in dvc.yaml)."""

from pathlib import Path

import pandas as pd

from stages.lib.report.failures import accuracy_by_length, bins_of_reliability
from stages.lib.report.inputs import Results


def write(results: Results, directory: Path) -> None:
    """length.csv and reliability-<model>.csv, with six digits."""
    lengths = accuracy_by_length(results)
    shares = {
        model: [right / total for right, total in of_bins]
        for model, of_bins in lengths.counts.items()
    }
    tables = {"length": pd.DataFrame({"words": lengths.means, **shares})}
    tables |= {f"reliability-{name}": bins_of_reliability(results, name) for name in results.models}
    for name, table in tables.items():
        table.to_csv(
            directory / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n"
        )
