"""Every page without a mouse: Tab reaches what matters, focus is seen, and Enter, Space and arrows do it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bottleneck_core.jobs import Job
from tests.browser import settled

from ..jobs.programs import until
from .train_cases import end_jobs, write_corpus

pytestmark = pytest.mark.e2e

# More controls than any page has.
MOST_KEYS = 150
# What focus may change the look of: the control itself and what it lies in or beside.
LOOK = """control => {
    const near = [control, ...control.parentElement.children];
    for (let box = control.parentElement, i = 0; box && i < 3; box = box.parentElement, i++) near.push(box);
    return near.map(element => {
        const style = getComputedStyle(element);
        return [style.outline, style.boxShadow, style.borderColor, style.backgroundColor, style.color].join();
    }).join("|");
}"""


def tab_to(page: Any, control: Any, key: str = "Tab") -> None:
    """Presses `key` until `control` has the focus, as one that the keyboard gave."""
    for _ in range(MOST_KEYS):
        page.keyboard.press(key)
        if control.evaluate("control => control.matches(':focus-visible')"):
            return
    pytest.fail(f"{key} does not reach {control}")


def reach(page: Any, control: Any, key: str = "Tab") -> None:
    """As `tab_to`, once the page is at rest; and the focus is to be seen."""
    control.wait_for(state="attached")
    settled(page)
    before = control.evaluate(LOOK)
    tab_to(page, control, key)
    page.wait_for_function(
        f"([control, before]) => ({LOOK})(control) !== before", arg=[control.element_handle(), before]
    )


def in_main(page: Any) -> Any:
    """The page without the header, which has a Stop and a menu of its own."""
    return page.get_by_test_id("stMain")


def cell(page: Any, text: str) -> Any:
    return page.get_by_role("gridcell", name=text, exact=True, include_hidden=True)


def test_a_run_is_ticked_opened_and_looked_through(server, page, make_run):
    address, _ = server
    run = make_run("only")
    run.train(50)
    run.analyse()
    run.finish()
    page.goto(address)
    cell(page, "only").wait_for(state="attached")
    settled(page)
    search = page.get_by_placeholder("name, tag, note, lr=0.001")
    reach(page, search)
    page.keyboard.type("on")
    page.wait_for_url("**q=on**")
    settled(page)
    table = page.get_by_test_id("data-grid-canvas")
    tab_to(page, table)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+Space")
    page.get_by_text("1 ticked").wait_for()
    # Boxes of choices have a button of that name as well.
    opened = page.get_by_test_id("stButton").get_by_role("button", name="Open", exact=True)
    reach(page, opened, "Shift+Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/run?id=only**")

    page.locator(".bottleneck-chart .main-svg").first.wait_for(state="attached")
    reach(page, page.get_by_role("slider", name="Smoothing"))
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**smoothing=**")
    settled(page)
    reach(page, page.get_by_role("switch", name="log axis"))
    page.keyboard.press("Space")
    page.wait_for_url("**log=true**")
    settled(page)
    reach(page, page.get_by_role("tab", name="Curves"), "Shift+Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url("**tab=Attention**")
    page.get_by_role("combobox", name="Lines").wait_for()


def test_runs_are_added_to_a_comparison_and_put_in_order(server, page, make_run):
    address, _ = server
    for name in ("first", "second"):
        run = make_run(name)
        run.train(30)
        run.finish()
    page.goto(f"{address}/compare?runs=first")
    page.locator("li .name").first.wait_for()
    reach(page, page.get_by_role("combobox", name=re.compile("Add")))
    page.keyboard.type("second")
    page.get_by_role("option", name="second").wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url("**runs=first%2Csecond**")
    chips = page.locator("li")
    chips.nth(1).wait_for()
    settled(page)
    reach(page, chips.first, "Shift+Tab")
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**runs=second%2Cfirst**")


def test_steps_of_the_attention_are_played_stopped_and_chosen(server, page, make_run):
    address, _ = server
    run = make_run("probed")
    run.train(5)
    run.analyse(probes=200)
    page.goto(f"{address}/attention?run=probed")
    main = in_main(page)
    page.locator(".bottleneck-chart .main-svg").first.wait_for(state="attached")
    reach(page, main.get_by_role("slider", name="Step"))
    page.keyboard.press("Home")
    page.wait_for_url("**step=0**")
    settled(page)
    reach(page, main.get_by_role("button", name="Play", exact=True), "Shift+Tab")
    page.keyboard.press("Enter")
    pause = main.get_by_role("button", name="Pause", exact=True)
    pause.wait_for()
    # It plays meanwhile, and each frame is a rerun: what has the focus keeps it.
    tab_to(page, pause)
    page.keyboard.press("Space")
    main.get_by_role("button", name="Play", exact=True).wait_for()
    settled(page)
    reach(page, main.get_by_role("combobox", name="Layer"))
    page.keyboard.press("ArrowDown")
    page.get_by_role("option", name="2", exact=True).wait_for()
    page.keyboard.type("2")
    page.keyboard.press("Enter")
    page.wait_for_url("**layer=2**")


def test_a_cache_is_sized(server, page):
    address, _ = server
    page.goto(f"{address}/kv")
    page.locator(".bottleneck-chart .main-svg").nth(3).wait_for(state="attached")
    main = in_main(page)
    reach(page, main.get_by_role("slider", name=re.compile("Context")))
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**context=**")
    settled(page)
    reach(page, main.get_by_role("combobox", name="Size"))
    page.keyboard.type("large")
    page.get_by_role("option", name="large").wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url("**a.preset=large.paper_bottleneck**")
    settled(page)
    reach(page, main.get_by_role("button", name="Scenario B"))
    page.keyboard.press("Enter")
    page.wait_for_url("**b.preset=large.paper_bottleneck**")


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Path]:
    """What there is to train on below the root; whatever was started ends with the test."""
    yield write_corpus(tmp_path)
    end_jobs(tmp_path)


def test_a_run_is_set_up_and_started(server, page, corpus, tmp_path):
    address, _ = server
    page.goto(f"{address}/train")
    main = in_main(page)
    main.get_by_role("button", name="Decoupled").wait_for()
    reach(page, main.get_by_role("button", name="Decoupled"))
    page.keyboard.press("Space")
    page.wait_for_url("**exp=paper_decoupled**")
    settled(page)
    reach(page, main.get_by_role("combobox", name="data"))
    page.keyboard.type("tiny")
    page.get_by_role("option", name=re.compile(r"tiny\.byte\.bin")).wait_for()
    page.keyboard.press("Enter")
    main.get_by_text("--data").first.wait_for()
    settled(page)
    for label, value in (("steps", "4"), ("batch size", "2"), ("block", "32")):
        reach(page, main.get_by_role("textbox", name=label, exact=True))
        page.keyboard.press("Control+a")
        page.keyboard.type(value)
        main.get_by_role("button", name=f"{label} {value}").wait_for()
        settled(page)
    reach(page, main.get_by_role("button", name="Start", exact=True))
    page.keyboard.press("Enter")
    main.get_by_role("link", name="nano_decoupled", exact=True).wait_for()
    until(lambda: Job.read(tmp_path / "nano_decoupled"), "the job")
    job = Job.read(tmp_path / "nano_decoupled")
    assert job is not None and job.argv[job.argv.index("--steps") + 1] == "4"


def test_a_prompt_is_written_and_the_form_filled(server, page, make_run):
    address, _ = server
    run = make_run("trained")
    run.train(5)
    (run.path / "best.pt").write_bytes(b"weights")
    page.goto(f"{address}/generate")
    main = in_main(page)
    main.get_by_role("button", name="Generate", exact=True).wait_for()
    prompt = main.get_by_role("textbox", name="Prompt")
    reach(page, prompt)
    page.keyboard.press("Control+a")
    page.keyboard.type("Once")
    reach(page, main.get_by_role("spinbutton", name="Temperature"))
    page.wait_for_url("**prompt=Once**")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_url("**temperature=0.9**")
    settled(page)
    reach(page, main.get_by_role("button", name="Generate", exact=True))
