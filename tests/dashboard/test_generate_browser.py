"""Generating in a real browser from a real checkpoint, which is trained for a few steps first."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from bottleneck_core.cli import main
from bottleneck_core.store.samples import read_samples
from tests.browser import PATIENCE_MS, scripts_page

from ..jobs.programs import until

pytestmark = pytest.mark.e2e

page = scripts_page  # a fixture: these servers end while a page is open

HOSTILE = '<img src=x onerror="window.hacked=1"><b>'


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    """A nano run of four steps."""
    corpus = tmp_path / "ids.txt"
    corpus.write_text(" ".join(map(str, b"The cache is small.\n\tIt holds keys and values.\n" * 200)))
    folder = tmp_path / "short"
    words = ["train", "--size", "nano", "--exp", "paper_bottleneck", "--steps", "4", "--batch-size", "2", "--block=64"]
    words += ["--eval-iters", "1", "--analysis-every", "0", "--device", "cpu", "--vocab-size", "256"]
    assert main([*words, "--data", str(corpus), "--out-dir", str(folder)]) == 0, capfd.readouterr().err
    return folder


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def workers(pid: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if "--json-lines" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def query_of(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


def background(locator: Any) -> list[float]:
    """Red, green and blue as the browser mixes them, or lightness and hue: what two colours are compared by."""
    color = locator.evaluate("element => getComputedStyle(element).backgroundColor")
    return [float(part) for part in re.findall(r"[\d.]+", color)]


def test_texts_grow_side_by_side_are_kept_and_found_again(server, page, run):
    address, pid = server
    page.goto(f"{address}/generate?cache3=q8_0%2Cresidual%3D0&tokens=150&temperature=1.0")
    page.get_by_role("textbox", name="Prompt").fill(HOSTILE)
    press(page, "Generate")
    texts = page.locator(".text")
    texts.nth(2).locator(".token").nth(20).wait_for()
    first = texts.first.locator(".token").first
    first.evaluate("token => (token.drawnOnce = true)")
    press(page, "Keep")  # once it is there
    page.get_by_role("button", name="Kept", exact=True).wait_for()
    assert [texts.nth(column).locator(".token").count() for column in range(3)] == [150] * 3
    assert first.evaluate("token => token.drawnOnce"), "what is there already is not drawn again"

    kept, faults = read_samples(run / "samples.jsonl")
    assert faults == [] and [sample.policy for sample in kept] == ["fp16", "q4_0,residual=0", "q8_0,residual=0"]
    for column, sample in enumerate(kept):
        shown = texts.nth(column).evaluate("box => box.textContent")
        pictures = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {127: 0x2421}
        assert shown == (sample.prompt + sample.text).translate(pictures)
        assert sample.prompt == HOSTILE
    assert page.locator(".text img, .text b").count() == 0 and page.evaluate("window.hacked") is None

    second = texts.nth(1)
    marked = second.locator(".token.differs")
    assert marked.count() == 1
    index = int(marked.get_attribute("data-index"))
    fp16, q4 = (sample.pieces or () for sample in kept[:2])
    assert fp16[:index] == q4[:index] and len(fp16) == 150
    page.get_by_text(f"token {index + 1}", exact=True).first.wait_for()

    marked.hover()
    tip = second.locator("xpath=following-sibling::div[@role='tooltip']")
    tip.get_by_text("rank").wait_for()
    assert tip.locator("tr").count() == 5 and "to the fp16 cache" in tip.inner_text()
    assert "not the first column's" in tip.inner_text()
    texts.first.press("ArrowRight")
    texts.first.locator(".token.current").wait_for()
    assert texts.first.locator(".token.current").get_attribute("data-index") == "0"

    steps = page.locator(".legend .step")
    light = [background(steps.nth(at)) for at in range(6)]
    assert len({tuple(color) for color in light}) == 6
    before = steps.first.evaluate("element => getComputedStyle(element).backgroundColor")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "before => getComputedStyle([...document.querySelectorAll('*')].map(e => e.shadowRoot?.querySelector("
        "'.legend .step')).find(Boolean)).backgroundColor !== before",
        arg=before,
    )
    # Likelier is darker in light and lighter in dark; the first number is the lightness.
    dark = [background(steps.nth(at)) for at in range(6)]
    assert [color[0] for color in light] == sorted((color[0] for color in light), reverse=True)
    assert [color[0] for color in dark] == sorted(color[0] for color in dark)

    page.goto(f"{address}/run?id=short&tab=Samples")
    page.locator(".text").nth(2).wait_for()
    assert page.locator(".text").first.evaluate("box => box.textContent").startswith(HOSTILE)
    page.get_by_role("link", name="Generate with this run").click()
    page.wait_for_url("**/generate**")
    page.get_by_role("button", name="Generate", exact=True).wait_for()
    assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()


def test_stop_and_a_closed_page_end_the_worker(server, page, run):
    """Frozen, so that it does not end by itself."""
    address, pid = server
    page.goto(f"{address}/generate?tokens=2000")
    for close in (lambda: press(page, "Stop"), page.close):
        press(page, "Generate")
        until(lambda: workers(pid), "a worker", PATIENCE_MS / 1000)
        (worker,) = workers(pid)
        os.kill(worker.pid, signal.SIGSTOP)
        close()
        until(lambda: not workers(pid), "the worker's end", PATIENCE_MS / 1000)
    assert not (run / "samples.jsonl").exists()


def test_the_form_is_in_the_address_and_comes_back(server, page, run):
    from playwright.sync_api import expect

    address, pid = server
    page.goto(address)
    page.get_by_role("link", name="Generate").click()
    # The end of the page: what is typed while a page still comes is lost.
    page.get_by_role("button", name="Generate", exact=True).wait_for()
    page.get_by_role("textbox", name="Prompt").fill("Once upon\na time")
    temperature = page.get_by_role("spinbutton", name="Temperature")
    temperature.fill("0.25")
    temperature.press("Enter")
    page.wait_for_url("**temperature=0.25**")
    third = page.get_by_role("combobox", name=re.compile("Third cache"))
    third.fill("q3")
    third.press("Enter")
    mistake = page.get_by_role("alert").filter(has_text="q3")
    mistake.wait_for()
    third.fill("k q8_0 v q4_0,residual=64")
    third.press("Enter")
    mistake.wait_for(state="detached")  # the browser's address changes at once; now the server knows it too
    link = page.url
    asked = query_of(link)
    assert asked["prompt"] == "Once upon\na time" and asked["cache3"] == "k q8_0 v q4_0,residual=64"

    page.get_by_role("link", name="Runs", exact=True).click()
    page.wait_for_url(f"{address}/")
    page.get_by_role("link", name="Generate").click()
    page.wait_for_url(lambda url: urlsplit(url).path == "/generate" and query_of(url) == asked)
    expect(page.get_by_role("textbox", name="Prompt")).to_have_value("Once upon\na time", timeout=PATIENCE_MS)

    page.goto(link)
    page.get_by_role("button", name="Generate", exact=True).wait_for()
    expect(page.get_by_role("spinbutton", name="Temperature")).to_have_value("0.25", timeout=PATIENCE_MS)
    assert page.locator(".text").count() == 0 and workers(pid) == []
