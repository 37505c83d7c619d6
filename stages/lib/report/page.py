"""Rendering of the report as one self-contained HTML page, without network access or scripts."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from stages.lib.report import drawing
from stages.lib.report.content import Cell, Figure, Ink, Items, Report, Table, Text, clean

TEMPLATES = Path(__file__).parent / "templates"

_MARKDOWN = MarkdownIt("commonmark", {"html": False}).disable(["image", "link", "autolink"])


def render(report: Report) -> str:
    """Render the whole page."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"markdown": _markdown, "cell": _cell, "clean": clean, "svgs": _svgs}
    environment.tests |= {
        "text": lambda block: isinstance(block, Text),
        "items": lambda block: isinstance(block, Items),
        "table": lambda block: isinstance(block, Table),
        "figure": lambda block: isinstance(block, Figure),
    }
    return environment.get_template("page.html").render(report=report, style=_style())


def _markdown(text: str) -> Markup:
    # The renderer escapes everything that is not Markdown, HTML included.
    return Markup(_MARKDOWN.renderInline(text))  # noqa: S704


def _cell(cell: Cell | str) -> Cell:
    return cell if isinstance(cell, Cell) else Cell(cell)


def _svgs(figure: Figure) -> list[Markup]:
    # matplotlib escapes the texts in the SVG.
    return [Markup(svg) for svg in drawing.svgs(figure)]  # noqa: S704


def _style() -> Markup:
    def series(ink: Ink) -> str:
        return " ".join(f"--series-{n}: {c};" for n, c in enumerate(ink.series, start=1))

    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    for name, ink in (("LIGHT", drawing.LIGHT), ("DARK", drawing.DARK)):
        named = f"--text: {ink.text}; --grid: {ink.grid}; {series(ink)}"
        style = style.replace(f"/* {name} */", named)
    return Markup(style)  # noqa: S704
