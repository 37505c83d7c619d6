"""A headless Chromium for the tests that look at pages, if one is installed."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

AXE = Path(__file__).with_name("axe")  # its version and hash
NAMES = ("google-chrome", "chromium", "chromium-browser")


@contextlib.contextmanager
def opened() -> Iterator:
    """Yield a WebDriver. Without a browser, skip the test, or fail it if REQUIRE_CHROMIUM=1."""
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    driver = shutil.which("chromedriver")
    if not (browser and driver):
        if os.environ.get("REQUIRE_CHROMIUM") == "1":
            pytest.fail("no chromium and chromedriver here, and REQUIRE_CHROMIUM=1")
        pytest.skip("no chromium and chromedriver here")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    # The sandbox needs more rights than a container has, and the pages are our own.
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


def look(chrome, page: Path, *, width: int, dark: bool = False, media: str = "") -> None:
    """Open a file in a window of this width (in pixels)."""
    chrome.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
    chrome.get(page.as_uri())


def axe(directory: Path) -> str:
    """Install axe-core into `directory` with npm, which checks its hash, and return the script.

    Where it cannot be had, skip the test, or fail it if REQUIRE_AXE=1.
    """
    for name in ("package.json", "package-lock.json"):
        shutil.copy(AXE / name, directory)
    # What .ci/run has fetched is in npm's cache.
    options = (
        "--prefer-offline",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--fetch-retries=0",
    )
    command = ("npm", "ci", *options)
    try:
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, check=False, timeout=60
        )
        reason = done.stderr if done.returncode else ""
    except FileNotFoundError:
        reason = "no npm here"
    except subprocess.TimeoutExpired:
        reason = "npm's registry does not answer"
    if reason:
        if os.environ.get("REQUIRE_AXE") == "1":
            pytest.fail(f"no axe-core, and REQUIRE_AXE=1: {reason}")
        pytest.skip(f"no axe-core: {reason}")
    return (directory / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


def violations(chrome, script: str) -> list[str]:
    """Return what axe-core finds wrong with the open page: the rule and the elements of each."""
    chrome.execute_script(script)
    # Of the rules that pass, only their number is of interest, and not their thousands of elements.
    passes, found = chrome.execute_async_script("""
        const done = arguments[arguments.length - 1];
        axe.run({resultTypes: ["violations"]}).then(
            found => done([found.passes.length, found.violations]));
    """)
    assert passes > 20
    return [
        f"{each['id']}: {json.dumps([node['target'] for node in each['nodes']][:3])}"
        for each in found
    ]
