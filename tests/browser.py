"""A headless Chromium for the tests that look at pages, if one is installed."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

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
