"""Training from the browser: a real job from the form, which outlives page and server, and ends when it is told to."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bottleneck_core.jobs import Job, job_state
from bottleneck_core.jobs.family import family
from tests.browser import scripts_page

from ..jobs.programs import until
from .server import ROOT, wait_for_health
from .train_cases import end_jobs, write_corpus

pytestmark = pytest.mark.e2e

page = scripts_page  # a fixture: these servers end while a page is open


# A job on the page has done more steps than these.
PASSED = """steps => [...document.querySelectorAll("p")].some(p => {
    const found = p.textContent.match(/step ([\\d,]+) of/);
    return found && Number(found[1].replaceAll(",", "")) > steps;
})"""


class Server:
    """The dashboard over a root, on one port for all its lives."""

    def __init__(self, root: Path, log: Path) -> None:
        self.root, self.log = root, log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "streamlit", "run", "app.py"]
        command += ["--server.address", "127.0.0.1", "--server.port", str(self.port)]
        environment = {**os.environ, "BOTTLENECK_RUNS": str(self.root), "OMP_NUM_THREADS": "1"}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        wait_for_health(f"{self.address}/_stcore/health", self.process, self.log)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "runs"
    write_corpus(root)
    yield root
    end_jobs(root)


@pytest.fixture
def server(root: Path, tmp_path: Path) -> Iterator[Server]:
    server = Server(root, tmp_path / "server.log")
    server.start()
    yield server
    server.kill()


def type_into(page, label: str, text: str) -> None:
    field = page.get_by_role("textbox", name=label, exact=True)
    field.fill(text)
    page.get_by_role("button", name=f"{label} {text}").wait_for()  # it is among the changed ones


def shown_command(page) -> list[str]:
    code = page.get_by_test_id("stCode").filter(has_text="-m bottleneck_core train").first
    return shlex.split(code.inner_text())


def steps_shown(page) -> int:
    text = page.get_by_text(re.compile(r"step [\d,]+ of")).first.inner_text()
    return int(re.findall(r"step ([\d,]+) of", text)[0].replace(",", ""))


def test_a_run_is_started_watched_and_stopped_across_reload_and_restart(server, page, root):
    page.goto(server.address)
    page.get_by_role("link", name="0 running · 0 waiting").click()
    page.get_by_role("button", name="Decoupled").click()
    type_into(page, "steps", "1000000")
    type_into(page, "batch size", "2")
    type_into(page, "block", "32")
    type_into(page, "eval every", "500")
    page.get_by_role("combobox", name="data").click()
    page.get_by_role("option", name=re.compile(r"tiny\.byte\.bin")).click()
    page.get_by_text("--data").first.wait_for()
    page.wait_for_url("**exp=paper_decoupled*")
    command = shown_command(page)
    page.get_by_role("button", name="Start", exact=True).click()

    card = page.get_by_role("link", name="nano_decoupled", exact=True)
    card.wait_for()
    folder = root / "nano_decoupled"
    until(lambda: job_state(folder) == "running", "the job to run")
    job = Job.read(folder)
    assert job is not None and list(job.argv) == command  # what was shown is what was started
    assert command[command.index("--out-dir") + 1] == str(folder)
    page.get_by_text(re.compile(r"step [\d,]+ of 1,000,000")).wait_for()
    page.get_by_test_id("stMetric").filter(has_text="loss").locator("canvas, svg.marks").first.wait_for()
    page.get_by_text("1 running · 0 waiting", exact=False).first.wait_for()

    # Another start of the same is another run, and waits: the processor takes one job at a time.
    page.get_by_text("nano_decoupled_2").first.wait_for()
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_text("waits for cpu").wait_for()

    page.reload()
    card.wait_for()
    assert page.get_by_role("textbox", name="steps ●", exact=True).input_value() == "1000000"  # from the address

    members = {process.pid for process in family(job)} | {job.supervisor.pid if job.supervisor else 0}
    server.kill()
    assert job.state == "running" and all(psutil.pid_exists(pid) for pid in members)
    reached = steps_shown(page)
    server.start()
    page.wait_for_function(PASSED, arg=reached)  # the open page finds the new server by itself

    # Streamlit has a Stop of its own in the header, there while a script runs.
    stops = page.get_by_test_id("stMain").get_by_role("button", name="Stop", exact=True)
    stops.nth(1).click()  # what waits: it leaves the queue
    until(lambda: job_state(root / "nano_decoupled_2") == "stopped", "it to leave")
    stops.nth(1).wait_for(state="detached")
    stops.first.click()
    page.get_by_text("stopping").first.wait_for()
    page.get_by_text("0 running · 0 waiting", exact=False).first.wait_for()
    assert not [pid for pid in members if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
    assert job_state(folder) == "stopped" and (folder / "last.pt").exists()
    page.get_by_text("stopped", exact=True).first.wait_for()

    # The newest of those that ended is first; it goes on where it was.
    reached = steps_shown(page)
    page.get_by_role("button", name="Resume", exact=True).first.click()
    until(lambda: job_state(folder) == "running", "the run to go on")
    again = Job.read(folder)
    assert again is not None and list(again.argv) == [*command, "--resume"]
    page.wait_for_function(PASSED, arg=reached)


def test_the_form_takes_typing_and_goes_back(server, page):
    page.goto(f"{server.address}/train")
    field = page.get_by_role("textbox", name="lr", exact=True)
    field.press_sequentially("0.0", delay=20)
    page.get_by_text("--lr must be > 0, got 0.0.").wait_for()  # while typing
    assert page.get_by_role("button", name="Start", exact=True).is_disabled()
    page.keyboard.type("05")
    page.wait_for_url("**set=lr*0.005*")
    page.get_by_text("--lr must be").wait_for(state="detached")
    assert page.evaluate("document.activeElement.value") == "0.005"
    page.get_by_role("button", name="Grouped queries").click()
    page.wait_for_url("**exp=paper_gqa*")
    page.go_back()
    page.get_by_test_id("stCode").filter(has_text="--exp paper_bottleneck --lr 0.005").wait_for()
    assert page.get_by_role("textbox", name="lr ●", exact=True).input_value() == "0.005"

    page.get_by_role("button", name="lr 0.005").click()  # resets it
    page.get_by_text("Nothing changed").wait_for()
    page.get_by_text("Sweep", exact=True).click()
    page.get_by_role("textbox", name="seeds", exact=True).fill("1, 2")
    page.get_by_role("button", name="Start 2 runs").wait_for()
    page.get_by_role("gridcell", name="seed 2", exact=True, include_hidden=True).wait_for(state="attached")
