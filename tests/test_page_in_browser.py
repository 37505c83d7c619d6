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


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    return browser.axe(tmp_path_factory.mktemp("axe"))


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
            !e.caption.textContent.trim() || !e.tBodies[0].rows.length
            || [...e.tBodies[0].rows].some(row => !row.cells[0].textContent.trim())
        ).map(e => e.id)
    """) == []  # fmt: skip


def open_details(chrome):
    chrome.execute_script("for (const e of document.querySelectorAll('details')) e.open = true")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_no_violation(chrome, page, axe, width, dark):
    browser.look(chrome, page, width=width, dark=dark)
    open_details(chrome)
    assert browser.violations(chrome, axe) == []


@pytest.mark.parametrize("width", [320, 390, 599])
def test_on_a_narrow_screen_nothing_scrolls_sideways(chrome, page, width):
    browser.look(chrome, page, width=width)
    open_details(chrome)
    assert chrome.execute_script("""
        return [...document.querySelectorAll('html, body, main *:not(svg *)')].filter(e =>
            e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'visible'
            && !e.closest('thead')
            || e.getBoundingClientRect().right > document.documentElement.clientWidth + 1
        ).map(e => e.outerHTML.slice(0, 200))
    """) == []  # fmt: skip


def test_on_a_narrow_screen_cells_are_named_and_each_pair_of_models_stands_once(chrome, page):
    browser.look(chrome, page, width=390)
    shown, label = chrome.execute_script("""
        const cells = [...document.querySelectorAll('#matrix td')].filter(e => e.offsetHeight);
        return [cells.length, getComputedStyle(cells[0], '::before').content]
    """)
    count = len(experiment.MODELS)
    assert shown == count * (count - 1) / 2
    assert "compared with " in label


def test_a_picture_shows_its_data_after_one_click(chrome, page):
    browser.look(chrome, page, width=1280)
    from selenium.webdriver.common.by import By

    table = chrome.find_element(By.ID, "cost-data")
    assert not table.is_displayed()
    summary = chrome.find_element(By.CSS_SELECTOR, "#cost summary")
    # The page scrolls smoothly, so that a click while it does would miss.
    there = "{block: 'center', behavior: 'instant'}"
    chrome.execute_script(f"arguments[0].scrollIntoView({there})", summary)
    summary.click()
    assert table.is_displayed()


def test_no_table_is_broken_between_two_pages_of_paper(chrome, page):
    browser.look(chrome, page, **VIEWS["paper"])
    page_height = (297 - 2 * 12) * 96 / 25.4
    assert chrome.execute_script("""
        return [...document.querySelectorAll('table')].filter(e => e.offsetHeight).map(e =>
            [e.id, e.offsetHeight, getComputedStyle(e).breakInside]
        ).filter(([id, height, inside]) => height > arguments[0] || inside !== 'avoid')
    """, page_height) == []  # fmt: skip


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
