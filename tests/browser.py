"""A real browser for the tests that need one.

A browser lives as long as its test. Playwright's loop runs in the test's own thread, so one that outlived its test
would be in the way of every later test in the same process that has a loop, another Playwright among them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP *.rebound.example 127.0.0.1",  # a stranger's name that means this machine
]
PATIENCE_MS = 120_000  # a loaded machine with two cores


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Where there is none the test skips; on the test machine that is an error."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        assert os.environ.get("CI") != "true", "no chromium: the browser tests cannot run"
        pytest.skip("no chromium (on Debian, apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextlib.contextmanager
def watched(browser: Browser, console: bool = True, **context: Any) -> Iterator[Page]:
    """A page in a context of its own that fails the test on errors of its scripts, and of its `console` too.

    Streamlit looks for itself below the address that a page is opened at, and again at the root: that is no error.
    """
    errors: list[str] = []
    opened = browser.new_context(**{"viewport": {"width": 1440, "height": 1000}, **context})
    page = opened.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.on("pageerror", lambda error: errors.append(str(error)))
    if console:

        def told(message: ConsoleMessage) -> None:
            if message.type == "error" and "/_stcore/" not in message.location["url"]:
                errors.append(message.text)

        page.on("console", told)
    yield page
    opened.close()
    assert not errors, errors


def settled(page: Page) -> None:
    """Waits for the end of the server's work on the page: a click in the middle of it may be lost."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with watched(browser) as page:
        yield page


@pytest.fixture
def scripts_page(browser: Browser) -> Iterator[Page]:
    """As `page`, where a server that ends or is killed may show in the console."""
    with watched(browser, console=False) as page:
        yield page
