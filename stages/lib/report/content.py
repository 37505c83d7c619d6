"""What a report consists of, whoever draws it: `markdown` and `page` render the same content.

Prose (`Text`, captions, notes) is Markdown of one paragraph; what comes from data goes into it
through `code` or `escape`. Cells are plain text, escaped where they are drawn.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from matplotlib.axes import Axes


@dataclass(frozen=True)
class Cell:
    text: str
    detail: str = ""  # smaller, after the text
    kind: str = ""  # "review" for a text that somebody wrote, else a verdict


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first of each row is its header. Columns of `prose` hold words, which are
    set to the left, all others numbers."""

    key: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    prose: Sequence[str] = ()


@dataclass(frozen=True)
class Ink:
    """The colours that a picture is drawn with."""

    text: str
    grid: str
    series: Sequence[str]


@dataclass(frozen=True)
class Panel:
    """One pair of axes of a picture; `draw` fills it."""

    title: str
    draw: Callable[[Axes, Ink], None]


@dataclass(frozen=True)
class Figure:
    """A picture. `finding` says in words what it shows, for who does not see it."""

    key: str
    caption: str
    finding: str
    panels: Sequence[Panel]
    legend: dict[str, int] = field(default_factory=dict)  # names of series and their numbers
    height: float = 2.7  # of a panel, in inches; it is 3.6 wide


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
    title: str
    lead: Sequence[Block]
    sections: Sequence[Section] = field(default_factory=list)

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
    """A text of somebody's on one line, without control characters, and cut when very long."""
    text = " ".join(text.split())
    text = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) in ("Cc", "Cs") else char
        for char in text
    )
    return text if len(text) <= LONGEST else text[:LONGEST].rstrip() + " …"


def escape(text: str) -> str:
    """Plain text as Markdown, in which nothing of it is markup, a link, a formula or a mention."""
    escaped = re.sub(r"([\\`*_\[\]>|~#&$]|<(?!\s)|:(?=[/\w]))", r"\\\1", clean(text))
    escaped = re.sub(r"(?i)(www)\.", r"\1\.", escaped)
    # A code host would notify who is called so: a word joiner is not seen.
    escaped = escaped.replace("@", "@\N{WORD JOINER}")
    if any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in escaped):
        return f"\N{FIRST STRONG ISOLATE}{escaped}\N{POP DIRECTIONAL ISOLATE}"
    return escaped


_RIGHT_TO_LEFT = {"R", "AL", "RLE", "RLO", "LRE", "LRO", "RLI", "LRI", "FSI"}


def code(text: str) -> str:
    """Plain text as code in Markdown."""
    return f"`{clean(text).replace('`', chr(39))}`"


def listed(names: Sequence[str], last: str = "and") -> str:
    """`a, b and c`."""
    return f" {last} ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def plural(count: int, one: str, many: str = "") -> str:
    """`1 review`, `2 reviews`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    shown = f"{100 * difference:+.1f}"
    return ("0.0" if float(shown) == 0 else shown).replace("-", "\N{MINUS SIGN}")


def p_value(p: float) -> str:
    """`p < 0.001` or `p = 0.012`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def seconds(value: float) -> str:
    """A duration for people."""
    if value < 100:
        return f"{value:.3g} s"
    return f"{value / 60:,.1f} min" if value < 6000 else f"{value / 3600:,.1f} h"


def size(count: int) -> str:
    """Bytes for people, in powers of ten."""
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if count >= 10**power:
            return f"{count / 10**power:,.3g} {unit}"
    return f"{count} bytes"


def megabytes(value: float) -> str:
    return f"{value:,.0f} MB"


def span(low: float, high: float) -> str:
    """An interval of shares."""
    return f"{low:.3f}\N{EN DASH}{high:.3f}"


def between(low: float, high: float) -> str:
    """An interval of differences of shares, in points."""
    return f"{points(low)} to {points(high)}"
