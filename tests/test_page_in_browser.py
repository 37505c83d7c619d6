"""The report as people see it: on a desktop, a phone and paper, light and dark."""

import shutil
from pathlib import Path

import browser
import experiment
import pytest

from stages import report

ROOT = Path(__file__).parents[1]
VIEWS = {
    "desktop": {"width": 1200},
    "phone": {"width": 360},
    "dark": {"width": 1200, "dark": True},
    "paper": {"width": 703, "dark": True, "media": "print"},
}


@pytest.fixture(scope="module")
def chrome():
    with browser.opened() as chrome:
        yield chrome


@pytest.fixture(scope="module", params=["few reviews, hostile texts", "many reviews"])
def page(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("page")
    if request.param == "many reviews":
        wrong = {name: 100 + 30 * number for number, name in enumerate(experiment.MODELS)}
        experiment.write(path, wrong=wrong, provenance=experiment.OFFICIAL)
    else:
        experiment.write_hostile(path)
    for name in ("params.yaml", "libraries.yaml"):
        shutil.copy(ROOT / name, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DVC_STAGE", raising=False)
        patch.chdir(path)
        report.main()
    return path / "metrics/report.html"


@pytest.mark.parametrize("view", VIEWS)
def test_the_page_renders_without_errors_and_nothing_is_empty_or_cut(chrome, page, view):
    browser.look(chrome, page, **VIEWS[view])
    assert chrome.get_log("browser") == []
    # The page takes the window's full width and no more; only tables scroll, in their own frames.
    width, seen = chrome.execute_script(
        "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    )
    assert width <= seen
    assert chrome.execute_script("""
        const parts = document.querySelectorAll('h1, h2, p, li, figure, .panels, .scroll');
        return [...parts].filter(e => {
            const box = e.getBoundingClientRect();
            return box.left < 0 || box.right > document.documentElement.clientWidth + 1
        }).map(e => e.outerHTML.slice(0, 200))
    """) == []  # fmt: skip
    assert chrome.execute_script("""
        return [...document.querySelectorAll('figure svg')].filter(e => {
            const box = e.getBoundingClientRect();
            return box.width < 150 || box.height < 20 || !e.querySelector('path')
        }).length
    """) == 0  # fmt: skip
    assert chrome.execute_script("""
        return [...document.querySelectorAll('table')].filter(e =>
            !e.caption.innerText.trim() || !e.tBodies[0].rows.length
            || [...e.tBodies[0].rows].some(row => !row.cells[0].innerText.trim())
        ).map(e => e.id)
    """) == []  # fmt: skip


@pytest.mark.parametrize("view", ["desktop", "phone"])
def test_no_text_of_a_figure_is_too_small_to_read(chrome, page, view):
    browser.look(chrome, page, **VIEWS[view])
    smallest = chrome.execute_script("""
        return Math.min(...[...document.querySelectorAll('.panel svg text')].map(
            e => Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b)
                * parseFloat(getComputedStyle(e).fontSize)))
    """)
    assert smallest >= 6.5


def test_dark_is_dark_and_paper_is_white_in_either_scheme(chrome, page):
    script = """
        const text = document.querySelector('figure svg text');
        return [getComputedStyle(document.body).backgroundColor, getComputedStyle(text).fill]
    """
    browser.look(chrome, page, **VIEWS["dark"])
    assert chrome.execute_script(script) == ["rgb(20, 24, 29)", "rgb(230, 232, 235)"]
    for view in ("desktop", "paper"):
        browser.look(chrome, page, **VIEWS[view])
        assert chrome.execute_script(script) == ["rgb(255, 255, 255)", "rgb(28, 33, 38)"]


def test_the_keyboard_reaches_the_report_and_shows_where_it_is(chrome, page):
    browser.look(chrome, page, width=1200)
    from selenium.webdriver.common.keys import Keys

    chrome.switch_to.active_element.send_keys(Keys.TAB)
    link = chrome.switch_to.active_element
    assert link.text == "Skip to the report"
    assert link.rect["y"] >= 0
    assert link.value_of_css_property("outline-style") == "solid"
    link.send_keys(Keys.ENTER)
    assert chrome.switch_to.active_element.get_attribute("id") == "main"
