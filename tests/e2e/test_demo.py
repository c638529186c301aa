"""`demo` as `make demo` runs it: a run that grows on a page, Ctrl-C, resume, a finished run, a failed one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bottleneck_core.jobs import job_state
from bottleneck_core.store.layout import RunPaths, run_status
from tests.e2e.commands import Command, free_port
from tests.jobs.programs import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.e2e
TRAIN_S = 240  # for some tens of steps of a nano run, on cores that others use too

# Points of all curves on the page; what arrives may be packed, _fullData is what is drawn.
COUNT_POINTS = """
() => [...document.querySelectorAll(".js-plotly-plot")]
  .flatMap(plot => plot._fullData || [])
  .reduce((sum, trace) => sum + (trace.x ? trace.x.length : 0), 0)
"""


def steps_of(folder: Path, kind: str) -> list[int]:
    """Steps of the run's events of one type."""
    lines = RunPaths(folder).events.read_text().splitlines() if RunPaths(folder).events.exists() else []
    events: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [event["step"] for event in events if event["type"] == kind]


def assert_ended_clean(demo: Command) -> None:
    assert "Traceback" not in demo.output
    assert demo.left_behind() == []


def test_a_run_grows_on_the_page_and_survives_ctrl_c(
    command: Callable[..., Command], page: Page, tmp_path: Path
) -> None:
    port, run = free_port(), tmp_path / "runs" / "demo"
    words = ("demo", "--port", str(port), "--steps")

    demo = command(*words, "100000")  # does not end by itself
    demo.until_says(f"dashboard: http://127.0.0.1:{port}")
    until(lambda: steps_of(run, "train"), "the first step", TRAIN_S)
    page.goto(f"http://127.0.0.1:{port}/run?id={run.name}")
    page.wait_for_function(f"({COUNT_POINTS})() > 0", timeout=60_000)
    before = page.evaluate(COUNT_POINTS)
    page.wait_for_function(f"({COUNT_POINTS})() > {before}", timeout=TRAIN_S * 1000)  # by itself, without a reload
    page.goto("about:blank")
    assert demo.interrupt() == 0
    assert_ended_clean(demo)
    assert "`make demo` resumes it" in demo.output
    assert (job_state(run), run_status(run)) == ("stopped", "stopped") and RunPaths(run).last.is_file()
    steps_before, stopped_at = steps_of(run, "train"), steps_of(run, "done")[-1]

    demo = command(*words, str(stopped_at + 15))
    demo.until_says("resuming runs/demo")
    demo.until_says("is finished; the dashboard goes on until Ctrl-C", TRAIN_S)
    assert demo.interrupt() == 0
    assert_ended_clean(demo)
    steps = steps_of(run, "train")
    assert steps[: len(steps_before)] == steps_before and steps == sorted(set(steps))
    assert steps[-1] >= stopped_at and steps_of(run, "done")[-1] == stopped_at + 15
    assert (job_state(run), run_status(run)) == ("done", "done")

    demo = command("demo", "--port", str(port))
    demo.until_says("runs/demo is finished. To train it again, remove it; to train another: python -m")
    demo.until_says("dashboard: ")
    assert demo.interrupt() == 0
    assert_ended_clean(demo)
    assert steps_of(run, "train") == steps


def test_ctrl_c_while_the_corpus_is_prepared(command: Callable[..., Command], tmp_path: Path) -> None:
    demo = command("demo", "--port", str(free_port()))
    demo.until_says("preparing the corpus")
    assert demo.interrupt() == 0
    assert_ended_clean(demo)
    # Nothing half: the token file is whole and described, or there is none.
    tokens = list((tmp_path / "data").glob("*.bin"))
    assert all(path.with_name(path.name + ".json").is_file() for path in tokens)


def test_a_run_that_fails_says_so_with_its_last_words(command: Callable[..., Command], tmp_path: Path) -> None:
    run = tmp_path / "runs" / "demo"
    run.mkdir(parents=True)
    (run / "last.pt").write_bytes(b"no checkpoint")
    demo = command("demo", "--port", str(free_port()))
    demo.until_says("runs/demo failed (exit code 2); the end of runs/demo/console.log", TRAIN_S)
    demo.until_says("last.pt")
    assert demo.interrupt() == 1
    assert_ended_clean(demo)
