"""What goes over the dashboard's websocket to a real browser, page by page, and how soon its first figure is drawn.

    python -m benchmarks.dashboard_frames [--rows 100000] [--runs 500] [--out DIR]

Chromium visits every page over made-up runs (one of `--rows` steps, one with 5,000 probes of 24 x 16 heads, `--runs`
small ones): it opens the page, waits until it is drawn and quiet, zooms a chart, and has the script run again. Reported
are the largest frames of the first load, which carries plotly.js once, and the largest one after it. Needs playwright
and Chromium (/usr/bin/chromium). Writes `results/dashboard_frames.json`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from benchmarks.calibration import calibration
from benchmarks.dashboard_data import write_analysis, write_many, write_run
from benchmarks.dashboard_session import DashboardServer
from benchmarks.record import RESULTS, record

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
_PATIENCE_MS = 120_000
_QUIET_S = 1.5
_DRAWN = "() => [...document.querySelectorAll('.bottleneck-chart')].some(chart => chart._fullLayout)"

ADDRESSES = {
    "Runs": "",
    "Run": "run?id=long",
    "Run, attention": "run?id=deep&tab=Attention",
    "Compare": "compare?runs={small}&group=each+run",
    "Attention": "attention?run=deep",
    "KV calculator": "kv",
    "Train": "train",
    "Generate": "generate",
}
_WITHOUT_CHARTS = ("Train", "Generate")


class Frames:
    """Sizes of the messages that the page's websockets received."""

    def __init__(self, page: Page) -> None:
        self.sizes: list[int] = []
        self.last = time.monotonic()
        page.on("websocket", lambda socket: socket.on("framereceived", self._received))

    def _received(self, payload: bytes | str) -> None:
        self.sizes.append(len(payload))
        self.last = time.monotonic()


def visit(page: Page, frames: Frames, url: str, name: str) -> dict[str, Any]:
    """One page: its first load, then what scrolling, zooming and a rerun bring."""
    frames.sizes.clear()
    start = time.monotonic()
    page.goto(url)
    page.get_by_test_id("stMainBlockContainer").wait_for(timeout=_PATIENCE_MS)
    drawn = None
    if name not in _WITHOUT_CHARTS:
        page.wait_for_function(_DRAWN, timeout=_PATIENCE_MS)
        drawn = round(1e3 * (time.monotonic() - start))
    _wait_for_quiet(page, frames)
    first = list(frames.sizes)
    frames.sizes.clear()
    if name not in _WITHOUT_CHARTS:
        _zoom(page)
        _wait_for_quiet(page, frames)
    page.keyboard.press("r")  # Streamlit's own key: the script again
    _wait_for_quiet(page, frames)
    return {
        "first_figure_ms": drawn,
        "first_load": {"bytes": sum(first), "largest": sorted(first)[-2:]},
        "after": {"frames": len(frames.sizes), "bytes": sum(frames.sizes), "largest": max(frames.sizes, default=0)},
        "exceptions": page.get_by_test_id("stException").count(),
    }


def _zoom(page: Page) -> None:
    plot = page.locator(".bottleneck-chart .nsewdrag").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    if box:
        y = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] * 0.4, y)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.6, y, steps=4)
        page.mouse.up()


def _wait_for_quiet(page: Page, frames: Frames) -> None:
    """Until nothing big has come for a while; the status strip goes on with its few hundred bytes."""
    seen, since = sum(frames.sizes), time.monotonic()
    while time.monotonic() - since < _QUIET_S:
        page.wait_for_timeout(100)
        if sum(frames.sizes) > seen + 4_000:
            seen, since = sum(frames.sizes), time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description="The dashboard's websocket frames in a real browser.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--probes", type=int, default=5_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    words = parser.parse_args()
    found: dict[str, Any] = {"rows": words.rows, "runs": words.runs + 2, "calibration_before": calibration()}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        root = Path(folder)
        write_run(root / "long", rows=words.rows)
        write_run(root / "deep", rows=6_000, eval_every=100, n_layer=24, n_head=16)
        write_analysis(root / "deep", steps=words.probes)
        write_many(root, words.runs)
        small = ",".join(sorted(path.name for path in root.glob("tiny_*"))[:50])
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        found["browser"] = browser.version
        with DashboardServer(root) as server:
            for name, address in ADDRESSES.items():
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                url = f"{server.url}/{address.format(small=small)}"
                found[name] = visit(page, Frames(page), url, name)
                print(json.dumps({name: found[name]}), flush=True)
                page.close()
        browser.close()
    found["largest_after_first_load"] = max(found[name]["after"]["largest"] for name in ADDRESSES)
    found["calibration_after"] = calibration()
    print(record("dashboard_frames", found, out=words.out))


if __name__ == "__main__":
    main()
