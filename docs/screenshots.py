"""Takes the pictures of every page for the README, light and dark, from the runs in a folder.

    make screenshots            or: python docs/screenshots.py [--runs DIR] [--only PAGE,...]

Needs Chromium, as the browser tests do. Pictures go to docs/img.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu"]
WIDTH, TALLEST = 1280, 1500
# Folders of the machine that takes the pictures are nobody's concern.
HOME = "/home/you/bottleneck"
_RENAME = """([from, to]) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(from, to);
}"""
# Page: its address, and a text that is there when it is drawn.
PAGES = {
    "runs": ("/", re.compile(r"\d+ runs")),
    "run": ("/run?id=tiny_bottleneck_ref", "45.8M"),
    "compare": ("/compare?runs=tiny_baseline_ref,tiny_gqa_ref,tiny_bottleneck_ref,tiny_decoupled_ref", "Results"),
    "attention": ("/attention?run=tiny_bottleneck_ref", "Alarms"),
    "kv": ("/kv?context=128000&a.preset=tiny.paper_bottleneck&b.preset=tiny.paper_baseline", "Derivation"),
    "train": ("/train?size=nano&exp=paper_bottleneck", "What will run"),
    "generate": ("/generate?run=nano_bottleneck_ref", "Temperature"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--only", default=",".join(PAGES))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "img")
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    arguments.out.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "streamlit", "run", "app.py", "--server.address", "127.0.0.1", "--server.port", str(port)]
    environment = {**os.environ, "BOTTLENECK_RUNS": str(arguments.runs.resolve()), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/_stcore/health", server)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for name in arguments.only.split(","):
                for theme in ("light", "dark"):
                    take(browser, f"http://127.0.0.1:{port}", name, theme, arguments.out / f"{name}-{theme}.png")
            browser.close()
    finally:
        server.kill()
        server.wait()


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the dashboard ended before it answered")


def take(browser: Any, address: str, name: str, theme: str, path: Path) -> None:
    """One page as it is when it has come to rest: as tall as it is, up to TALLEST."""
    path_of, text = PAGES[name]
    page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme=theme)
    page.goto(address + path_of)
    page.get_by_text(text).first.wait_for(state="attached", timeout=60_000)
    if name == "generate":
        page.get_by_role("button", name="Generate", exact=True).click()
        page.get_by_role("button", name="Keep").first.wait_for(timeout=120_000)
    page.wait_for_timeout(4000)
    height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": WIDTH, "height": min(int(height), TALLEST)})
    page.wait_for_timeout(2000)
    page.evaluate(_RENAME, [str(ROOT), HOME])
    page.screenshot(path=str(path))
    page.close()
    print(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


if __name__ == "__main__":
    main()
