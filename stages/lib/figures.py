"""The pictures of the report."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

# Okabe and Ito's palette: told apart by people with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})


def confusion_matrices(predictions: dict[str, pd.DataFrame], path: Path) -> None:
    """One confusion matrix a model, on the test split."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    figure.suptitle("Test reviews by true and predicted label")
    for ax, (name, table) in zip(figure.subplots(2, 3).flat, predictions.items(), strict=True):
        test = table[table["split"] == "test"]
        ConfusionMatrixDisplay.from_predictions(
            test["label"],
            test["prediction"],
            cmap="Blues",
            colorbar=False,
            ax=ax,
        )
        ax.set_title(name)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("predicted")
        ax.set_ylabel("true")
    figure.savefig(path, dpi=150)


def training_curves(curves: Path, models: Sequence[str], path: Path) -> None:
    """Training loss, validation loss and validation accuracy of all models that were trained by
    epochs, against the share of the training that is done."""
    panels = {
        "training loss": "train/loss",
        "validation loss": "validation/loss",
        "validation accuracy": "validation/accuracy",
    }
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots(1, len(panels))
    for ax, (title, metric) in zip(axes, panels.items(), strict=True):
        for name, colour in zip(models, COLOURS, strict=True):
            file = curves / name / "plots" / "metrics" / f"{metric}.tsv"
            if file.is_file():
                _draw(ax, pd.read_csv(file, sep="\t"), name, colour)
        ax.set_title(title)
        ax.set_xlabel("share of the training")
        ax.grid(alpha=0.3)
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=150)


def _draw(ax: Axes, table: pd.DataFrame, name: str, colour: str) -> None:
    share = table["step"] / table["step"].max()
    marker = "o" if len(table) <= 10 else None
    ax.plot(share, table.iloc[:, -1], label=name, color=colour, marker=marker, markersize=3)
