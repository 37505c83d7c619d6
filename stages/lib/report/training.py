"""The section "How did training go?": loss and validation curves."""

from matplotlib.axes import Axes

from stages.lib.report import drawing
from stages.lib.report.content import Figure, Ink, Panel, Section, Table, Text, listed
from stages.lib.report.inputs import CURVES, Results

_TITLES = ("Training loss", "Validation loss", "Validation accuracy")
# The relative rise of validation loss above its minimum that counts as a rise.
RISE = 0.05


def section(results: Results) -> Section:
    """Build the section: a picture per curve, with all trained models, and the table of epochs."""
    trained = [name for name in results.models if results.curves.get(name)]
    figures = [
        _figure(results, trained, metric, title)
        for metric, title in zip(CURVES, _TITLES, strict=True)
    ]
    return Section(
        "training",
        "How did training go?",
        [
            Text(_finding(results, trained), "answer"),
            *figures,
            Text(
                "The horizontal axis is the share of a model's own training, so that runs of "
                "different lengths can be compared. The training loss is a mean over a few steps, "
                "with dropout; the validation loss is over all validation reviews, without "
                "dropout. The saved model is that of the epoch with the highest validation "
                "accuracy. The SVM is not trained by epochs and has no curve."
            ),
            _table(results, trained),
        ],
    )


def _finding(results: Results, trained: list[str]) -> str:
    if all(len(results.curves[name].get("validation/loss", ())) < 2 for name in trained):
        return "Every model was trained for one epoch, so the curves show no trend yet."
    rising = [name for name in trained if rises(results, name)]
    growing = [name for name in trained if _best_is_last(results, name)]
    above = f"more than {RISE:.0%} above its minimum"
    said = []
    if both := [name for name in rising if name in growing]:
        said.append(
            f"The validation loss of {listed(both)} ends {above}, although the validation accuracy "
            "is highest in the last epoch: a sign of overconfidence in errors."
        )
    if over := [name for name in rising if name not in growing]:
        said.append(
            f"The validation loss of {listed(over)} ends {above}, and the validation accuracy is "
            "highest in an earlier epoch: longer training would not help."
        )
    if not rising:
        said.append(f"No model's validation loss ends {above}.")
    if more := [name for name in growing if name not in rising]:
        said.append(
            f"The validation accuracy of {listed(more)} is highest in the last epoch: more epochs "
            "may help."
        )
    return " ".join(said)


def rises(results: Results, name: str) -> bool:
    """Whether the validation loss ends above its minimum by more than RISE."""
    loss = results.curves[name].get("validation/loss")
    if loss is None or len(loss) < 2:
        return False
    return bool(loss["value"].iloc[-1] > (1 + RISE) * loss["value"].min())


def _best_is_last(results: Results, name: str) -> bool:
    accuracy = results.curves[name].get("validation/accuracy")
    if accuracy is None or len(accuracy) < 2:
        return False
    return int(accuracy["value"].to_numpy().argmax()) == len(accuracy) - 1


def _figure(results: Results, trained: list[str], metric: str, title: str) -> Figure:
    def draw(ax: Axes, ink: Ink) -> None:
        for number, name in enumerate(results.models):
            curve = results.curves.get(name, {}).get(metric)
            if curve is not None:
                share = curve["step"] / curve["step"].max()
                drawing.line(ax, ink, number, list(share), list(curve["value"]))
        ax.set_xlabel("share of training")
        ax.set_xlim(left=0)

    ends = [
        f"{name} from {curve['value'].iloc[0]:.3f} to {curve['value'].iloc[-1]:.3f}"
        for name in trained
        if (curve := results.curves[name].get(metric)) is not None
    ]
    return Figure(
        f"curve-{metric.replace('/', '-')}",
        f"{title} of all trained models.",
        f"{title}, from the first to the last logged value: {'; '.join(ends)}.",
        [Panel(title, draw)],
        {name: number for number, name in enumerate(results.models) if name in trained},
    )


def _table(results: Results, trained: list[str]) -> Table:
    rows = []
    for name in trained:
        curves = results.curves[name]
        loss, accuracy = curves.get("validation/loss"), curves.get("validation/accuracy")
        best = int(accuracy["value"].to_numpy().argmax()) + 1 if accuracy is not None else None
        train = curves.get("train/loss")
        rows.append(
            [
                name,
                "" if accuracy is None else f"{len(accuracy)}",
                "" if best is None else f"{best}",
                "" if accuracy is None else f"{accuracy['value'].max():.3f}",
                "" if loss is None else f"{loss['value'].min():.3f}",
                "" if loss is None else f"{loss['value'].iloc[-1]:.3f}",
                "" if train is None else f"{train['value'].iloc[-1]:.3f}",
            ]
        )
    return Table(
        "epochs",
        "Epochs, best epoch, and validation and training losses.",
        [
            "model",
            "epochs",
            "best epoch",
            "best val. accuracy",
            "lowest val. loss",
            "last val. loss",
            "last training loss",
        ],
        rows,
    )
