"""The report as Markdown and as a page: valid, self-contained, the same content, no injection."""

import csv
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import experiment
import pytest
from markdown_it import MarkdownIt

from stages import report
from stages.lib.report import drawing, overview, page
from stages.lib.report.content import Figure, Table, clean, code, escape

ROOT = Path(__file__).parents[3]


class Element:
    def __init__(self, tag, attributes, parent=None):
        self.tag, self.attributes, self.parent = tag, dict(attributes), parent
        self.parts = []  # elements and texts, in order

    @property
    def text(self):
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    @property
    def children(self):
        return [part for part in self.parts if isinstance(part, Element)]

    def all(self, *tags):
        for child in self.children:
            if not tags or child.tag in tags:
                yield child
            yield from child.all(*tags)


class Parser(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.root = self.at = Element("root", {})
        self.feed(text)
        self.close()
        assert self.at is self.root, f"{self.at.tag} is not closed"

    def handle_starttag(self, tag, attributes):
        element = Element(tag, attributes, self.at)
        self.at.parts.append(element)
        if tag not in ("meta", "link", "br", "img"):
            self.at = element

    def handle_startendtag(self, tag, attributes):
        self.at.parts.append(Element(tag, attributes, self.at))

    def handle_endtag(self, tag):
        assert self.at.tag == tag, f"</{tag}> ends <{self.at.tag}>"
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.parts.append(data)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The directory of a report on hostile texts and labels, and the report's content."""
    path = experiment.write_hostile(tmp_path_factory.mktemp("hostile"))
    for name in ("params.yaml", "libraries.yaml"):
        shutil.copy(ROOT / name, path)
    before = Path.cwd()
    os.chdir(path)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("DVC_STAGE", raising=False)
            report.main()
            content = overview.write(report.load())
    finally:
        os.chdir(before)
    return path, content


@pytest.fixture(scope="module")
def html(hostile):
    return (hostile[0] / "metrics/report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def dom(html):
    return Parser(html).root


@pytest.fixture(scope="module")
def markdown(hostile):
    return (hostile[0] / "metrics/report.md").read_text(encoding="utf-8")


def blocks(content, kind):
    return [b for section in content.sections for b in section.blocks if isinstance(b, kind)]


def test_the_seven_questions_stand_in_order_in_both(dom, markdown):
    questions = [
        "Which adaptation should I use?",
        "Are the differences real?",
        "What did the published experiment claim, and what holds here?",
        "How did training go?",
        "Where do the models fail?",
        "Which labels look wrong?",
        "What are the data?",
    ]
    assert [" ".join(h.text.split())[2:] for h in dom.all("h2")] == questions
    assert re.findall(r"^## \d\. (.*)$", markdown, re.M) == questions
    assert [a.text for nav in dom.all("nav") for a in nav.all("a")] == questions


def test_both_have_every_cell_of_every_table(hostile, dom, markdown):
    parsed = Parser(MarkdownIt("commonmark").enable("table").render(markdown)).root
    data = {table for details in dom.all("details") for table in details.all("table")}
    in_page = [table for table in dom.all("table") if table not in data]
    in_markdown = list(parsed.all("table"))
    tables = blocks(hostile[1], Table)
    assert len(tables) == len(in_page) == len(in_markdown) > 8
    joiner = re.compile("[\N{WORD JOINER}\N{FIRST STRONG ISOLATE}\N{POP DIRECTIONAL ISOLATE}]")
    for table, *drawn in zip(tables, in_page, in_markdown, strict=True):
        cells = [cell for row in table.rows for cell in map(page._cell, row)]
        expected = [(clean(cell.text), clean(cell.detail)) for cell in cells]
        for one, detail in zip(drawn, ("{} {}", "{} ({})"), strict=True):
            found = [cell.text for body in one.all("tbody") for cell in body.all("td", "th")]
            assert [joiner.sub("", text) for text in found] == [
                detail.format(*both) if both[1] else both[0] for both in expected
            ]


def test_texts_of_users_are_only_text(html, dom, markdown):
    assert "<script" not in html
    assert not list(dom.all("img", "script", "iframe", "object", "form"))
    assert not [e for e in dom.all() if any(name.startswith("on") for name in e.attributes)]
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    inside = re.sub(r'<img src="report/[\w-]+\.png" alt="[^"]*" />', "", rendered)
    assert not re.search(r"<(script|img|a |del)|<!--", inside)


@pytest.mark.parametrize("text", experiment.HOSTILE)
def test_escaped_text_is_shown_as_it_is(text):
    shown = Parser(MarkdownIt("commonmark", {"html": True}).renderInline(escape(text))).root
    assert not shown.children
    marks = "\N{WORD JOINER}\N{FIRST STRONG ISOLATE}\N{POP DIRECTIONAL ISOLATE}"
    assert shown.text.translate(dict.fromkeys(map(ord, marks))) == clean(text)
    assert Parser(MarkdownIt().renderInline(code(text))).root.children[0].tag == "code"


def test_markdown_notifies_nobody_and_links_nowhere():
    for text in ("@someone", "www.example.com", "https://example.com", "a :smile: b", "$x$"):
        assert text not in escape(text)


def test_long_texts_are_cut():
    assert len(clean("long " * 4000)) < 410


def test_the_page_is_self_contained(html, dom):
    assert not re.search(r"(src|href)=\"(?!#|data:,)", html)
    assert not re.search(r"url\((?!#)|@import", html)
    assert "default-src 'none'" in html
    assert len(html.encode()) < 600_000


def test_landmarks_headings_and_ids_are_sound(dom):
    ids = [element.attributes["id"] for element in dom.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for tag in ("header", "nav", "main", "h1"):
        assert len(list(dom.all(tag))) == 1
    assert next(dom.all("html")).attributes["lang"] == "en"
    assert next(next(dom.all("body")).all("a")).attributes["href"] == "#main"
    for element in dom.all():
        for name in ("aria-labelledby", "href", "xlink:href"):
            target = element.attributes.get(name, "").removeprefix("#")
            assert not target or target.startswith("data:") or target in ids, target
    levels = [int(heading.tag[1]) for heading in dom.all("h1", "h2", "h3")]
    assert levels == [1] + [2] * 7


def test_tables_have_captions_and_scopes(dom):
    for table in dom.all("table"):
        assert next(table.all("caption")).text.strip()
        assert all(
            th.attributes["scope"] == "col" for h in table.all("thead") for th in h.all("th")
        )
        for row in (row for body in table.all("tbody") for row in body.all("tr")):
            assert row.children[0].attributes["scope"] == "row"
        assert table.parent.attributes["tabindex"] == "0"


def test_figures_say_what_they_show_in_words(hostile, dom, markdown):
    drawn = list(dom.all("figure"))
    figures = blocks(hostile[1], Figure)
    assert [figure.key for figure in figures] == [figure.attributes["id"] for figure in drawn]
    for figure, element in zip(figures, drawn, strict=True):
        image = next(e for e in element.all() if e.attributes.get("role") == "img")
        assert len(image.attributes["aria-label"]) > 40
        assert len(list(element.all("svg"))) == len(figure.panels) + bool(figure.legend)
        assert (hostile[0] / f"metrics/report/{figure.key}.png").stat().st_size > 1000
        assert f"](report/{figure.key}.png)" in markdown


def test_every_figure_has_its_data_as_a_table(hostile, dom):
    for element in dom.all("figure"):
        key = element.attributes["id"]
        (details,) = element.all("details")
        assert "open" not in details.attributes
        (table,) = details.all("table")
        body = next(table.all("tbody"))
        shown = [[cell.text for cell in row.children] for row in body.children]
        with (hostile[0] / f"metrics/report/{key}.csv").open(encoding="utf-8", newline="") as file:
            names, *rows = csv.reader(file)
        place = names.index("model")
        expected = [[row[place], *row[:place], *row[place + 1 :]] for row in rows]
        assert len(shown) >= len(experiment.MODELS) - 1
        assert [list(map(number, row)) for row in shown] == [
            list(map(number, row)) for row in expected
        ]


def number(text):
    try:
        return float(text)
    except ValueError:
        return clean(text)


def test_the_answer_and_its_picture_come_first_and_then_the_scores(dom):
    (main,) = dom.all("main")
    first = [
        element.attributes.get("class") or element.attributes.get("id")
        for element in main.all("p", "figure", "table")
        if not any(parent.tag == "details" for parent in parents(element))
    ]
    assert first[:3] == ["answer", "cost", "scores"]


def parents(element):
    while element := element.parent:
        yield element


def test_labels_of_users_stand_in_findings_as_they_are(dom):
    labels = [e.attributes["aria-label"] for e in dom.all() if e.attributes.get("role") == "img"]
    confusion = next(label for label in labels if label.startswith("Confusion"))
    assert any(f"{name} taken for" in confusion for name in experiment.HOSTILE_LABELS)


def test_prose_may_not_hold_html_or_links():
    for text in ("<b>x</b>", "<!-- x -->", "[x](javascript:x)", "![x](http://x)", "<http://x>"):
        assert not Parser(str(page._markdown(text))).root.children


def test_no_colour_of_a_figure_is_fixed(dom):
    for svg in dom.all("svg"):
        colours = {
            match
            for element in svg.all()
            for match in re.findall(r"(?:fill|stroke): (#\w+)", element.attributes.get("style", ""))
        }
        assert colours <= {"#ffffff"}


def luminance(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_contrast_is_enough_in_both_schemes(html, scheme):
    """WCAG 2.2 AA requires 4.5:1 for text, and 3:1 for what is needed to understand a picture."""
    root = re.findall(r":root \{(.*?)\}", html, re.S)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", root))
    pairs = [(text, back) for text in ("text", "muted", "link") for back in ("page", "panel")]
    pairs += [("good", "page"), ("bad", "page"), ("good", "good-page"), ("bad", "bad-page")]
    pairs += [("text", "answer-page"), ("text", "warn-page")]
    pairs += [("muted", "good-page"), ("muted", "bad-page")]
    for text, back in pairs:
        assert contrast(colours[text], colours[back]) >= 4.5, (text, back)
    for number in range(1, 7):
        assert contrast(colours[f"series-{number}"], colours["page"]) >= 3, number


def test_a_cell_of_a_confusion_matrix_can_be_read_at_its_fullest():
    for ink, page_colour in ((drawing.LIGHT, "#ffffff"), (drawing.DARK, "#14181d")):
        mixed = [
            round((int(ink.series[0][p : p + 2], 16) + int(page_colour[p : p + 2], 16)) / 2)
            for p in (1, 3, 5)
        ]
        assert contrast(ink.text, "#" + "".join(f"{part:02x}" for part in mixed)) >= 4.5


def test_the_same_numbers_give_the_same_bytes(hostile, monkeypatch):
    path = hostile[0]
    monkeypatch.chdir(path)

    def written():
        return {f: f.read_bytes() for f in sorted((path / "metrics").rglob("report*/*"))} | {
            name: (path / "metrics" / name).read_bytes() for name in ("report.md", "report.html")
        }

    before = written()
    report.main()
    assert written() == before
