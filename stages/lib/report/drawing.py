"""Drawing of pictures: series distinguished by colour, marker and line style; the panels of a
picture as one PNG, or as one SVG each."""

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from stages.lib.report.content import Figure, Ink, Panel
from stages.lib.report.statistics import Interval

# Ten markers, six colours and six line styles: the first thirty models all look different.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "p", "*")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
WIDTH = 3.6  # of a panel, in inches
LONGEST = 14  # characters of a label on an axis

# Okabe and Ito's hues, distinguishable with any colour vision, each with a lightness that gives a
# contrast of at least 3:1 with the page, white or dark.
LIGHT = Ink(
    "#1c2126", "#c9ced6", ("#0072b2", "#c14f00", "#007f5f", "#a8457f", "#8a6100", "#4a4a4a")
)
DARK = Ink("#e6e8eb", "#444c57", ("#56b4e9", "#f0803c", "#2bc49a", "#e39ac6", "#e8bd3a", "#c9c9c9"))
# Placeholders for the colours in an SVG, replaced by variables of the page's style: see `_svg`.
_NAMED = Ink("#010101", "#020202", tuple(f"#0303{number:02x}" for number in range(1, 7)))

mpl.rcParams.update(
    {
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "report",
    }
)


def style(number: int, ink: Ink) -> dict[str, Any]:
    """Return the matplotlib style of a model's series: colour, marker and line style."""
    return {
        "color": ink.series[number % len(ink.series)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number % len(LINES)],
    }


def point(ax: Axes, ink: Ink, number: int, x: float, y: float, interval: Interval) -> None:
    """Draw one measurement with its interval."""
    look = style(number, ink) | {"linestyle": "none"}
    # A share of 0 or 1 may lie outside its own interval by a rounding error.
    below, above = max(0.0, y - interval.low), max(0.0, interval.high - y)
    ax.errorbar([x], [y], yerr=[[below], [above]], markersize=6, elinewidth=1, **look)


def points(ax: Axes, ink: Ink, number: int, x: list[float], y: list[float]) -> None:
    """Draw single measurements, hollow."""
    look = style(number, ink) | {"linestyle": "none", "markerfacecolor": "none"}
    ax.plot(x, y, markersize=4, **look)


def line(ax: Axes, ink: Ink, number: int, x: list[float], y: list[float]) -> None:
    """Draw a series; with 12 points or fewer, each has a marker."""
    look = style(number, ink) | ({} if len(x) <= 12 else {"marker": None})
    ax.plot(x, y, markersize=4, linewidth=1.3, **look)


def ranges(
    ax: Axes, ink: Ink, number: int, x: list[float], low: Iterable[float], high: Iterable[float]
) -> None:
    """Draw vertical bars from `low` to `high`."""
    ax.vlines(x, list(low), list(high), colors=style(number, ink)["color"], linewidth=1)


def png(figure: Figure, path: Path) -> None:
    """Write all panels to one PNG, up to three side by side, in the light colours."""
    columns = min(3, len(figure.panels))
    rows = -(-len(figure.panels) // columns)
    names_a_row = 6 if columns > 1 else 3
    height = rows * figure.height + 0.2 * -(-len(figure.legend) // names_a_row) + 0.2
    canvas = Canvas(figsize=(max(columns * 3.4, 5.5), height), layout="constrained")
    axes = list(canvas.subplots(rows, columns, squeeze=False).flat)
    for ax, panel in zip(axes, figure.panels, strict=False):
        _draw(ax, panel, LIGHT)
    for ax in axes[len(figure.panels) :]:
        ax.set_axis_off()
    if figure.legend:
        handles = _handles(figure, LIGHT)
        canvas.legend(
            handles=handles, loc="outside lower center", ncols=names_a_row, frameon=False,
            columnspacing=1.2,
        )  # fmt: skip
    canvas.dpi = 120
    _lay_out(FigureCanvasAgg(canvas))
    canvas.savefig(path, metadata={"Software": None})


def svgs(figure: Figure) -> list[str]:
    """Draw one SVG per panel, and one of the legend if there is one.

    Colours are the variables --text, --grid and --series-1 to --series-6 of the page's style.
    """
    drawn = []
    for number, panel in enumerate(figure.panels):
        canvas = Canvas(figsize=(WIDTH, figure.height), layout="constrained")
        _draw(canvas.subplots(), panel, _NAMED)
        drawn.append(_svg(canvas, f"{figure.key}-{number}"))
    if figure.legend:
        rows = -(-len(figure.legend) // 3)
        canvas = Canvas(figsize=(WIDTH, 0.1 + 0.2 * rows))
        canvas.legend(
            handles=_handles(figure, _NAMED), loc="center", ncols=3, frameon=False, fontsize=8,
            columnspacing=1, handlelength=2.6, borderpad=0, labelcolor=_NAMED.text,
        )  # fmt: skip
        drawn.append(_svg(canvas, f"{figure.key}-legend"))
    return drawn


def _handles(figure: Figure, ink: Ink) -> list[Line2D]:
    return [
        Line2D([], [], label=_plain(name), markersize=5, **style(number, ink))
        for name, number in figure.legend.items()
    ]


def _lay_out(backend: FigureCanvasBase) -> None:
    """Lay a picture out for the backend that writes it.

    savefig would do so too, but draw the whole picture once more for it.
    """
    engine = backend.figure.get_layout_engine()
    if engine is not None:
        engine.execute(backend.figure)
        backend.figure.set_layout_engine(None)


def _plain(text: str) -> str:
    # matplotlib would typeset what is between two dollar signs as a formula.
    return text.replace("$", r"\$")


def _draw(ax: Axes, panel: Panel, ink: Ink) -> None:
    ax.patch.set_alpha(0)
    ax.grid(color=ink.grid, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_title(_plain(panel.title), color=ink.text)
    panel.draw(ax, ink)
    ax.tick_params(which="both", color=ink.grid, labelcolor=ink.text)
    ax.spines[:].set_color(ink.grid)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set_color(ink.text)


def _svg(canvas: Canvas, key: str) -> str:
    canvas.patch.set_alpha(0)
    canvas.dpi = 72
    _lay_out(FigureCanvasSVG(canvas))
    file = io.StringIO()
    canvas.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.S)
    box = re.search(r'viewBox="[^"]+"', text)
    assert box is not None
    # Only ids that something refers to are kept, made unique by the figure's key.
    used = set(re.findall(r"#([\w.-]+)[\")]", text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{key}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{key}-", text)
    text = re.sub(
        r"<svg[^>]*>", f'<svg {box[0]} aria-hidden="true" focusable="false">', text, count=1
    )
    names = {_NAMED.text: "--text", _NAMED.grid: "--grid"}
    names |= {colour: f"--series-{n}" for n, colour in enumerate(_NAMED.series, start=1)}
    for colour, name in names.items():
        text = text.replace(colour, f"var({name})")
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "'DejaVu Sans', Verdana, sans-serif", text)
    return re.sub(r"\n\s*", "\n", text).strip()


def label(text: str) -> str:
    """Shorten a label, possibly a user's, for an axis, and escape it for matplotlib."""
    return _plain(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")
