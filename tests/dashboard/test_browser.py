"""The dashboard as people use it: a real server, a real browser, a run that grows meanwhile."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bottleneck_core.figures.palette import ink
from bottleneck_core.store.lock import RunLock

from .conftest import ROOT

pytestmark = pytest.mark.e2e

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 60_000  # a loaded machine with two cores

# The chart whose title starts so, as plotly sees it.
CHART = """title => {
    const chart = [...document.querySelectorAll(".bottleneck-chart")]
        .find(div => div._fullLayout?.title.text.startsWith(title));
    if (!chart) return null;
    const trace = chart._fullData.find(trace => trace.name.startsWith("train"));
    return {points: trace.x.length, x: [...chart._fullLayout.xaxis.range], y: [...chart._fullLayout.yaxis.range]};
}"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """The dashboard over `tmp_path`: its address and process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py"]
    command += ["--server.address", "127.0.0.1", "--server.port", str(port)]
    environment = {**os.environ, "BOTTLENECK_RUNS": str(tmp_path)}
    log_path = tmp_path / "server.log"
    with open(log_path, "wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            wait_for_health(f"http://127.0.0.1:{port}/_stcore/health", process, log_path)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.kill()
            process.wait()


def wait_for_health(url: str, process: subprocess.Popen, log: Path) -> None:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass  # not listening yet
    pytest.fail(f"the server ended with {process.returncode}:\n{log.read_text()}")


@pytest.fixture
def page() -> Iterator[Any]:
    """A browser page; fails the test on errors in the page's console."""
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        browser.close()
    assert not errors


def cell(page: Any, text: str) -> Any:
    """A table's cell. Tables are painted; their cells are a table inside of the canvas for those who cannot see it."""
    return page.get_by_role("gridcell", name=text, exact=True, include_hidden=True)


def test_a_run_is_found_opened_and_seen_growing(server, page, make_run):
    address, pid = server
    finished, live = make_run("finished"), make_run("live_one", steps=1000)
    finished.train(100)
    finished.finish()
    live.train(300)
    live.analyse()
    with RunLock(live.path):
        page.goto(address)
        cell(page, "live_one").wait_for(state="attached")
        assert cell(page, "finished").count() == 1
        page.get_by_text("2 runs").wait_for()

        box = page.get_by_test_id("stDataFrame").bounding_box()
        page.mouse.click(box["x"] + 50, box["y"] + 55)  # the first row: running runs come first
        page.wait_for_url("**/run?id=live_one")
        page.get_by_role("heading", name="live_one").wait_for()
        page.wait_for_function(f"({CHART})('loss')?.points === 300")

        page.evaluate("window.sameDocument = true")
        loss = page.locator(".bottleneck-chart").first
        loss.scroll_into_view_if_needed()
        plot = loss.locator(".nsewdrag").first.bounding_box()
        page.mouse.move(plot["x"] + 0.2 * plot["width"], plot["y"] + 0.2 * plot["height"])
        page.mouse.down()
        page.mouse.move(plot["x"] + 0.5 * plot["width"], plot["y"] + 0.7 * plot["height"], steps=4)
        page.mouse.up()
        page.wait_for_function(f"(({CHART})('loss').x[0]) > 30")
        zoomed = page.evaluate(CHART, "loss")
        assert zoomed["x"] == pytest.approx([60, 150], abs=6)
        page.wait_for_function(f"({CHART})('perplexity').x[0] === {zoomed['x'][0]}")  # its neighbour follows

        live.train(200)
        page.wait_for_function(f"({CHART})('loss').points === 500")
        grown = page.evaluate(CHART, "loss")
        assert (grown["x"], grown["y"]) == (zoomed["x"], zoomed["y"])
        assert page.evaluate("window.sameDocument")

        page.mouse.dblclick(plot["x"] + 0.4 * plot["width"], plot["y"] + 0.4 * plot["height"])
        page.wait_for_function(f"({CHART})('loss').x[1] === 499")

        page.emulate_media(color_scheme="dark")
        ink_of_loss = "document.querySelector('.bottleneck-chart')._fullLayout.font.color"
        page.wait_for_function(f"{ink_of_loss} === '{ink('text', 'dark')}'")

        page.get_by_role("tab", name="Attention").click()
        head_map = page.locator(".bottleneck-chart:has(.heatmaplayer image)").first
        head_map.scroll_into_view_if_needed()
        cells = head_map.locator(".nsewdrag").bounding_box()
        # Four layers from the top; a click in the third row.
        page.mouse.click(cells["x"] + 0.5 * cells["width"], cells["y"] + 0.6 * cells["height"])
        page.wait_for_url("**layer=layer+2**")

        page.get_by_role("tab", name="Config").click()
        page.wait_for_url("**tab=Config**")
        cell(page, next(iter(live.config))).wait_for(state="attached")
    assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()


def test_a_click_on_a_point_opens_its_run_and_back_returns(server, page, make_run):
    address, _ = server
    for name, exp in (("small_cache", "paper_bottleneck"), ("other", "paper_gqa")):
        run = make_run(name, exp=exp)
        run.train(50)
        run.finish()
    page.goto(f"{address}/?attention=bottleneck")
    cell(page, "small_cache").wait_for(state="attached")
    cell(page, "other").wait_for(state="detached")
    page.locator(".bottleneck-chart .points path").first.click(force=True)
    page.wait_for_url("**/run?id=*")
    page.go_back()
    page.wait_for_url(f"{address}/?attention=bottleneck")
    cell(page, "small_cache").wait_for(state="attached")
    cell(page, "other").wait_for(state="detached")
