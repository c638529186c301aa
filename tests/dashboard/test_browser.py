"""The dashboard as people use it: a real server, a real browser, a run that grows meanwhile."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from bottleneck_core.figures.palette import ink
from bottleneck_core.store.lock import RunLock

pytestmark = pytest.mark.e2e

# The chart whose title starts so, as plotly sees it.
CHART = """title => {
    const chart = [...document.querySelectorAll(".bottleneck-chart")]
        .find(div => div._fullLayout?.title.text.startsWith(title));
    if (!chart) return null;
    const trace = chart._fullData.find(trace => trace.name.startsWith("train"));
    return {points: trace.x.length, x: [...chart._fullLayout.xaxis.range], y: [...chart._fullLayout.yaxis.range]};
}"""


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


# Lines of the overlay: name, colour, number of points.
LINES = """() => {
    const chart = [...document.querySelectorAll(".bottleneck-chart")]
        .find(div => div._fullLayout?.title.text.startsWith("Validation loss"));
    return chart?._fullData.map(trace => [trace.name, trace.line.color, trace.x.length]);
}"""


def tick(page, row: int) -> None:
    """Ticks a row of the table of runs."""
    box = page.get_by_test_id("stDataFrame").bounding_box()
    page.mouse.click(box["x"] + 18, box["y"] + 52 + 35 * row)


def test_two_runs_are_ticked_compared_and_left_again(server, page, make_run):
    address, _ = server
    hostile = "<b>other</b>,$x"
    for name, exp in (("small_cache", "paper_bottleneck"), (hostile.replace("/", ""), "paper_gqa")):
        run = make_run(name, exp=exp)
        run.train(50)
        run.finish()
    names = {"small_cache", "<b>other<b>,$x"}
    page.goto(address)
    cell(page, "small_cache").wait_for(state="attached")
    tick(page, 0)
    page.get_by_text("1 ticked").wait_for()
    tick(page, 1)
    page.get_by_text("2 ticked").wait_for()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.wait_for_url("**/compare?runs=*")
    page.wait_for_function(f"({LINES})()?.length === 2")
    lines = page.evaluate(LINES)
    assert {name.replace("&lt;", "<").replace("&gt;", ">") for name, _, _ in lines} == names
    assert all(points == 6 for _, _, points in lines)
    cell(page, "attn_mode").wait_for(state="attached")
    assert cell(page, "bottleneck").count() == cell(page, "gqa").count() == 1
    assert set(page.locator("li .name").all_text_contents()) == names
    assert page.locator(".bottleneck-chart b, li b").count() == 0  # names are text

    page.go_back()
    page.wait_for_url(f"{address}/")
    page.get_by_text("2 ticked").wait_for()
    page.go_forward()
    page.wait_for_function(f"({LINES})()?.length === 2")

    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"({LINES})()?.every(([, color]) => !{[color for _, color, _ in lines]}.includes(color))")
    chip = page.locator("li").first
    drawn = "item => getComputedStyle(item.querySelector('line')).stroke"
    dark = page.evaluate(LINES)[0][1]
    red, green, blue = (int(dark[i : i + 2], 16) for i in (1, 3, 5))
    page.wait_for_function(f"item => ({drawn})(item) === 'rgb({red}, {green}, {blue})'", arg=chip.element_handle())

    order = page.locator("li .name").all_text_contents()
    chip.press("ArrowRight")
    page.wait_for_function(f"({LINES})()?.[0][0] === '{lines[1][0]}'")
    assert page.locator("li .name").all_text_contents() == order[::-1]
    page.locator("li .drop").first.click()
    page.wait_for_function(f"({LINES})()?.length === 1")

    page.locator("li .name").first.click()
    page.wait_for_url("**/run?id=*")
    page.go_back()
    page.wait_for_url("**/compare?runs=*")
    page.wait_for_function(f"({LINES})()?.length === 1")
    page.get_by_role("link", name="Runs").click()
    page.get_by_text("2 ticked").wait_for()
    cell(page, "small_cache").wait_for(state="attached")
    tick(page, 0)  # the rows are ticked still: this one is not any more
    page.get_by_text("1 ticked").wait_for()


def test_a_chart_is_taken_along_as_picture_page_and_rows(server, page, make_run, tmp_path):
    address, _ = server
    run = make_run("=hostile <b>&amp;")
    run.train(50)
    run.finish()
    page.goto(address)
    cell(page, run.path.name).wait_for(state="attached")
    tick(page, 0)
    page.get_by_role("button", name="Compare", exact=True).click()
    page.wait_for_function(f"({LINES})()?.length === 1")
    chart = page.locator(".bottleneck-chart").first

    def taken(title: str) -> Path:
        chart.hover()
        with page.expect_download() as download:
            chart.get_by_role("button", name=title).click()
        assert download.value.suggested_filename.startswith("Validation_loss")
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path

    assert taken("Download as PNG").read_bytes().startswith(b"\x89PNG")
    assert taken("Download as SVG").read_bytes().startswith(b"<svg")
    points = page.evaluate(LINES)[0][2]
    rows = list(csv.reader(taken("Download the points").read_text(encoding="utf-8").splitlines()))
    assert rows[0] == ["trace", "x", "y", "z"] and len(rows) == 1 + points
    assert {row[0] for row in rows[1:]} == {f"'{run.path.name}"}  # no formula, and the name as it is
    alone = page.context.browser.new_page()
    alone.goto(taken("Download as a page").as_uri())
    alone.wait_for_function("document.querySelector('#chart')?._fullData?.length > 0")
    assert alone.evaluate("document.querySelector('#chart')._fullData[0].x.length") == points
    assert alone.locator("b").count() == 0
