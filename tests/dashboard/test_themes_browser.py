"""Train and Generate in a real browser, light and dark: their text can be read, and follows a change of theme."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest

from tests.browser import PATIENCE_MS, settled

from .train_cases import write_corpus

pytestmark = pytest.mark.e2e

# Text with less contrast to what is behind it than WCAG 2.2 asks of large text. Icons and what is disabled may be
# fainter.
FAINT = """() => {
    const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const channels = (color) => {
        context.clearRect(0, 0, 1, 1);
        context.fillStyle = color;
        context.fillRect(0, 0, 1, 1);
        const [red, green, blue, alpha] = context.getImageData(0, 0, 1, 1).data;
        return [red, green, blue, alpha / 255];
    };
    const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
    const parent = (element) => element.parentElement ?? element.getRootNode().host;
    const behind = (element) => {
        const layers = [];
        for (let box = element; box; box = parent(box)) {
            layers.unshift(channels(getComputedStyle(box).backgroundColor));
        }
        return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
    };
    const light = (color) => {
        const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        const [red, green, blue] = color.map((channel) => linear(channel / 255));
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const own = (element) => [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data).join("");
    const skipped = "[data-testid=stIconMaterial], :disabled, [aria-disabled=true], svg, canvas";
    const seen = (element) =>
        element.checkVisibility({ opacityProperty: true }) && element.getBoundingClientRect().width > 1;
    const found = [];
    const look = (root) => {
        for (const element of root.querySelectorAll("*")) {
            if (element.shadowRoot) look(element.shadowRoot);
            const text = element.value || own(element);
            if (!text.trim() || !seen(element) || element.closest(skipped)) continue;
            const below = behind(element);
            const [a, b] = [light(over(channels(getComputedStyle(element).color), below)), light(below)];
            const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (contrast < 3) found.push(`${text.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
        }
    };
    look(document.querySelector("[data-testid=stMain]"));
    return found;
}"""
# How light the page is, from 0 to 255.
LIGHTNESS = """() => getComputedStyle(document.querySelector("[data-testid=stApp]")).backgroundColor
    .match(/[\\d.]+/g).slice(0, 3).map(Number).reduce((sum, channel) => sum + channel) / 3"""


def check_both(page: Any, scheme: str) -> None:
    """The page as it is now, and after the reader's system has changed to the other theme."""
    from playwright.sync_api import TimeoutError

    other = "dark" if scheme == "light" else "light"
    for now in (scheme, other):
        page.emulate_media(color_scheme=now)
        page.wait_for_function(f"({LIGHTNESS})() {'>' if now == 'light' else '<'} 128")
        settled(page)
        with contextlib.suppress(TimeoutError):  # colours take a moment to change
            page.wait_for_function(f"({FAINT})().length === 0", timeout=PATIENCE_MS / 4)
        assert page.evaluate(FAINT) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_form_of_a_new_run_can_be_read(server, page, tmp_path, scheme):
    address, _ = server
    write_corpus(tmp_path)
    page.emulate_media(color_scheme=scheme)
    # A change, which has a chip, and a mistake, which is said.
    page.goto(f"{address}/train?exp=paper_decoupled")
    main = page.get_by_test_id("stMain")
    main.get_by_role("textbox", name="steps", exact=True).fill("40")
    main.get_by_role("button", name="steps 40").wait_for()
    settled(page)
    main.get_by_role("textbox", name="lr", exact=True).fill("0.0")
    main.get_by_text("--lr must be > 0, got 0.0.").wait_for()
    main.get_by_text("What will run").wait_for()
    check_both(page, scheme)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_form_of_a_prompt_can_be_read(server, page, make_run, scheme):
    address, _ = server
    run = make_run("trained")
    run.train(5)
    (run.path / "best.pt").write_bytes(b"weights")
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{address}/generate?cache2=nobody")
    main = page.get_by_test_id("stMain")
    main.get_by_role("textbox", name="Prompt").wait_for()
    main.get_by_text(re.compile("nobody")).last.wait_for()
    main.get_by_role("button", name="Generate", exact=True).wait_for()
    check_both(page, scheme)
