"""Runs in a real browser: a tag, the filter that finds it, the archive, and the way back."""

from __future__ import annotations

from typing import Any

import pytest

from bottleneck_core.store.attic import put_away_runs
from bottleneck_core.store.notes import read_notes

pytestmark = pytest.mark.e2e

HOSTILE = "<img src=x>*$"


def cell(page: Any, text: str) -> Any:
    return page.get_by_role("gridcell", name=text, exact=True, include_hidden=True)


def tick(page: Any, row: int) -> None:
    box = page.get_by_test_id("stDataFrame").bounding_box()
    page.mouse.click(box["x"] + 18, box["y"] + 52 + 35 * row)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tag_filter_archive_undo(server, page, make_run, tmp_path, scheme):
    address, _ = server
    for name in ("keep", "tagged"):
        run = make_run(name)
        run.train(50)
        run.finish()
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{address}/?q=tagged")  # alone in the table: its place is known
    cell(page, "tagged").wait_for(state="attached")
    cell(page, "keep").wait_for(state="detached")
    tick(page, 0)
    page.get_by_text("1 ticked").wait_for()
    page.get_by_role("button", name="Tag", exact=True).click()
    tags = page.get_by_role("combobox", name="Tags")
    tags.fill(HOSTILE)
    tags.press("Enter")
    page.get_by_label("Note").fill("found again")
    page.get_by_role("button", name="Save", exact=True).click()
    cell(page, HOSTILE).wait_for(state="attached")
    assert read_notes(tmp_path / "tagged").tags == (HOSTILE,)
    assert page.locator("img[src='x']").count() == 0  # a tag is text
    page.keyboard.press("Escape")

    search = page.get_by_placeholder("name, tag, note, lr=0.001")
    search.fill("found again")
    page.wait_for_url("**q=found+again**")
    cell(page, "tagged").wait_for(state="attached")
    search.fill("")
    cell(page, "keep").wait_for(state="attached")
    page.get_by_role("button", name="Filter", exact=True).click()
    chosen = page.get_by_role("combobox", name="Tags").last
    chosen.click()
    page.get_by_role("option", name=HOSTILE).click()
    page.wait_for_url("**tag=**")
    cell(page, "keep").wait_for(state="detached")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")

    page.get_by_role("button", name="Archive", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("tagged", exact=True).wait_for()
    assert (tmp_path / "tagged").is_dir()
    dialog.get_by_role("button", name="Archive", exact=True).click()
    page.get_by_text("tagged archived").wait_for()
    dialog.wait_for(state="detached")
    cell(page, "tagged").wait_for(state="detached")
    assert [run.id for run in put_away_runs(tmp_path)] == ["tagged"] and not (tmp_path / "tagged").exists()
    page.get_by_role("button", name="Undo").click()
    cell(page, "tagged").wait_for(state="attached")
    assert read_notes(tmp_path / "tagged").note == "found again" and not put_away_runs(tmp_path)


def test_groups_open_and_the_context_changes_the_column(server, page, make_run):
    address, _ = server
    for name, seed in (("a", 0), ("b", 1)):
        run = make_run(name)
        run.write("config.json", {**run.config, "seed": seed})
        run.train(50)
    page.goto(f"{address}/?by=seed&at=1M")
    page.get_by_text("2 groups by seed").wait_for()
    page.get_by_role("columnheader", name="KV @1M", include_hidden=True).wait_for(state="attached")
    box = page.get_by_test_id("stDataFrame").bounding_box()
    page.mouse.click(box["x"] + 30, box["y"] + 52)  # the first group's name
    page.wait_for_url("**in=0**")
    cell(page, "a").wait_for(state="attached")
    assert cell(page, "b").count() == 0
    page.reload()
    cell(page, "a").wait_for(state="attached")
    assert cell(page, "b").count() == 0
