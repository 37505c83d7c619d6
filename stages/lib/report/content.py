"""The content of a report, whatever its format: `markdown` and `page` render the same content.

Prose (`Text`, captions, notes) is one paragraph of Markdown; text from the data is inserted through
`code` or `escape`. Cells are plain text, which the renderer escapes.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Cell:
    text: str
    detail: str = ""  # set in smaller type after the text
    kind: str = ""  # "review" for the text of a review, otherwise a verdict


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first cell of each row is its header. The columns named in `prose` hold
    words and are left-aligned; all others hold numbers."""

    key: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    prose: Sequence[str] = ()


@dataclass(frozen=True)
class Ink:
    """The colours of a picture."""

    text: str
    grid: str
    series: Sequence[str]


@dataclass(frozen=True)
class Panel:
    """One plot of a picture; `draw` fills its axes."""

    title: str
    draw: "Callable[[Axes, Ink], None]"


@dataclass(frozen=True)
class Figure:
    """A picture. `finding` states in words what it shows, for readers who cannot see it."""

    key: str
    caption: str
    finding: str
    panels: Sequence[Panel]
    legend: dict[str, int] = field(default_factory=dict)  # number of each series by name
    height: float = 2.7  # of a panel, in inches


@dataclass(frozen=True)
class Text:
    markdown: str
    kind: str = ""  # "answer" or "warning" stand out


@dataclass(frozen=True)
class Items:
    """A list of paragraphs."""

    items: Sequence[str]


Block = Text | Items | Table | Figure


@dataclass(frozen=True)
class Section:
    key: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """A report; `data` has the table of what each figure shows, by the figure's key."""

    title: str
    lead: Sequence[Block]
    sections: Sequence[Section]
    data: dict[str, Table]

    @property
    def figures(self) -> list[Figure]:
        return [
            block
            for section in self.sections
            for block in section.blocks
            if isinstance(block, Figure)
        ]


LONGEST = 400  # characters of a review that are shown


def clean(text: str) -> str:
    """Return a user's text on one line, without control characters, truncated when very long."""
    text = " ".join(text.split())
    text = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) in ("Cc", "Cs") else char
        for char in text
    )
    return text if len(text) <= LONGEST else text[:LONGEST].rstrip() + " …"


def escape(text: str) -> str:
    """Escape plain text for Markdown: none of it becomes markup, a link, a formula or a mention."""
    escaped = re.sub(r"([\\`*_\[\]>|~#&$]|<(?!\s)|:(?=[/\w]))", r"\\\1", clean(text))
    escaped = re.sub(r"(?i)(www)\.", r"\1\.", escaped)
    # A code host would notify the user of that name; an invisible word joiner prevents it.
    escaped = escaped.replace("@", "@\N{WORD JOINER}")
    if any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in escaped):
        return f"\N{FIRST STRONG ISOLATE}{escaped}\N{POP DIRECTIONAL ISOLATE}"
    return escaped


_RIGHT_TO_LEFT = {"R", "AL", "RLE", "RLO", "LRE", "LRO", "RLI", "LRI", "FSI"}


def code(text: str) -> str:
    """Format plain text as a Markdown code span."""
    return f"`{clean(text).replace('`', chr(39))}`"


def listed(names: Sequence[str]) -> str:
    """Join names as `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def plural(count: int, noun: str) -> str:
    """Format a count with its noun: `1 review`, `2 reviews`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def points(difference: float) -> str:
    """Format a difference of shares in percentage points, with its sign."""
    shown = f"{100 * difference:+.1f}"
    return ("0.0" if float(shown) == 0 else shown).replace("-", "\N{MINUS SIGN}")


def p_value(p: float) -> str:
    """Format a p-value as `p < 0.001` or `p = 0.012`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def seconds(value: float) -> str:
    """Format a duration in seconds, minutes or hours."""
    if value < 100:
        return f"{value:.3g} s"
    return f"{value / 60:,.1f} min" if value < 6000 else f"{value / 3600:,.1f} h"


def size(count: int) -> str:
    """Format a number of bytes, with decimal units."""
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if count >= 10**power:
            return f"{count / 10**power:,.3g} {unit}"
    return f"{count} bytes"


def megabytes(value: float) -> str:
    return f"{value:,.0f} MB"


def span(low: float, high: float) -> str:
    """Format an interval of shares."""
    return f"{low:.3f}\N{EN DASH}{high:.3f}"


def between(low: float, high: float) -> str:
    """Format an interval of differences of shares, in percentage points."""
    return f"{points(low)} to {points(high)}"
