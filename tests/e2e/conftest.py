"""Commands as real processes, and a real browser where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.commands import Command, free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Chromium as root, with nothing of its own to say to the network.
_CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """`command(word, ...)` starts `python -m bottleneck_core word ...` in the test's folder."""
    started: list[Command] = []

    def start(*words: str) -> Command:
        started.append(Command(tmp_path, *words))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def dashboard(command: Callable[..., Command]) -> Callable[..., str]:
    """`dashboard(root, ...)` serves these parents of run folders and returns the address, ready to be opened."""

    def serve(*roots: Path) -> str:
        port = free_port()
        server = command("serve", "--port", str(port), "--runs", *map(str, roots))
        server.until_says("You can now view")
        return f"http://127.0.0.1:{port}"

    return serve


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's path. Where there is none these tests skip; on the test machine that is an error."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        assert os.environ.get("CI") != "true", "no chromium: the browser tests cannot run"
        pytest.skip("no chromium (on Debian, apt install chromium)")
    return found


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """One browser for all tests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in a context of its own, 1280 x 900. What its console calls an error fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not errors, errors
