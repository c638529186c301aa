"""`demo`: from nothing to a page where a run's curve grows, in one command.

Prepares the built-in corpus, starts a nano bottleneck run as a background job, serves the dashboard, shows
the run's progress in the terminal, and ends all of it on Ctrl-C. The run saves; the next demo resumes it.
"""

from __future__ import annotations

import contextlib
import time
import webbrowser
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bottleneck_core.cli.bar import Bar
from bottleneck_core.cli.ending import Ending
from bottleneck_core.cli.server import DEFAULT_ADDRESS, DEFAULT_PORT, Server, check_port, has_display
from bottleneck_core.cli.words import read_words
from bottleneck_core.data.prepare import Progress, default_corpus
from bottleneck_core.errors import UserError
from bottleneck_core.figures.numbers import loss
from bottleneck_core.jobs import Job, job_state, start_job, stop_job
from bottleneck_core.store.events import EventTail
from bottleneck_core.store.layout import RunPaths, run_status
from bottleneck_core.store.status import read_json

HELP = "Prepare the built-in corpus, train a nano run in the background, open the dashboard."
RUN_ID = "demo"
_POLL_S = 0.2
_SERVER_START_S = 60.0
_CONSOLE_LINES = 15


@dataclass(frozen=True, kw_only=True)
class Words:
    """Train a nano bottleneck run on the standard library's source and show it grow. Ctrl-C ends it all."""

    port: int = DEFAULT_PORT
    """port of the dashboard"""
    runs: Path = Path("runs")
    """parent of the run folder"""
    train: bool = True
    """train; --no-train only shows what is there"""
    steps: int | None = None
    """length of the run; unset: that of the nano preset"""


def main(argv: list[str]) -> int:
    """Exit codes: 0 after Ctrl-C, 1 where the run failed, 2 a user's mistake or a dashboard that broke."""
    words = read_words(Words, argv, prog="python -m bottleneck_core demo")
    check_port(DEFAULT_ADDRESS, words.port)
    words.runs.mkdir(parents=True, exist_ok=True)
    server = Server(DEFAULT_ADDRESS, words.port, [words.runs])
    with Ending() as ending:
        return Demo(words, server, ending).run()


class Demo:
    """One demo, from the corpus to Ctrl-C."""

    def __init__(self, words: Words, server: Server, ending: Ending) -> None:
        self.words, self.server, self.ending = words, server, ending
        self.paths = RunPaths(words.runs / RUN_ID)
        self.console = Console(highlight=False)

    def run(self) -> int:
        """Returns the exit code; what was started is stopped on every way out."""
        code = 0
        with ExitStack() as stack:
            if self.words.train and not self._prepare():
                self._say("stopped; `make demo` begins again")
                return code
            trained = self.words.train and self._start()
            if trained:
                stack.callback(self._stop)
            stack.enter_context(self.server)
            self._open()
            if trained:
                code = self._follow()
            while not self.ending.asked:
                self.server.check()
                time.sleep(_POLL_S)
        return code

    def _prepare(self) -> bool:
        """Make the corpus where there is none; false when the user ended that."""
        with Bar("preparing the corpus", self.console) as bar:

            def report(progress: Progress) -> None:
                bar.report(progress.documents, progress.n_documents, "documents")

            try:
                with self.ending.at_once():
                    default_corpus("byte", progress=report)
            except KeyboardInterrupt:
                return False
        return not self.ending.asked

    def _start(self) -> bool:
        """Start, resume or join the run; whether there is a job to follow, which ends with this demo."""
        folder = self.paths.dir
        if job_state(folder) == "running":
            self._say(f"{folder} is being trained already: joining it")
            return True
        status = run_status(folder) if self.paths.config.exists() else None
        if status == "running":
            self._say(f"{folder} is being trained by another process: showing it")
            return False
        if status == "done":
            self._say(
                f"{folder} is finished. To train it again, remove it; to train another: "
                "python -m bottleneck_core train --size nano --exp paper_decoupled"
            )
            return False
        self._say(f"{'training' if status is None else 'resuming'} {folder}")
        steps = () if self.words.steps is None else ("--steps", str(self.words.steps))
        preset = ("--size", "nano", "--exp", "paper_bottleneck")
        # --resume also begins a run where nothing was saved yet, such as one that was killed in its first
        # steps.
        start_job(["train", *preset, "--out-dir", str(folder), *steps, "--resume"], folder)
        return True

    def _open(self) -> None:
        """Wait until the server answers, and tell people where."""
        deadline = time.monotonic() + _SERVER_START_S
        while not self.ending.asked and not self.server.is_ready():
            if time.monotonic() > deadline:
                raise UserError(f"the dashboard does not answer on {self.server.url}: try another --port")
            time.sleep(_POLL_S)
        if not self.ending.asked:
            self._say(f"dashboard: {self.server.url}   (Ctrl-C ends)")
            if has_display():
                webbrowser.open(self.server.url)

    def _follow(self) -> int:
        """Show the run's progress until it or the demo ends. Returns 1 if it failed, else 0."""
        tail, values, step = EventTail(self.paths.events), {"loss": "", "validation": ""}, 0
        with Bar("training", self.console) as bar:
            while not self.ending.asked:
                running = job_state(self.paths.dir) == "running"  # first, so that no event after it is missed
                for event in tail.poll():
                    step = event.get("step", step) + (event["type"] == "train")
                    for name, key in (("loss", "loss"), ("validation", "val_loss")):
                        values[name] = f"{name} {loss(event[key])}" if key in event else values[name]
                total = self.words.steps or read_json(self.paths.config).get("steps")
                bar.report(step, total, "  ".join(filter(None, values.values())) or "starting")
                if not running:
                    return self._tell_end()
                self.server.check()
                time.sleep(_POLL_S)
        return 0

    def _tell_end(self) -> int:
        status, job = run_status(self.paths.dir), Job.read(self.paths.dir)
        folder = self.paths.dir
        if status == "done":
            self._say(f"{folder} is finished; the dashboard goes on until Ctrl-C")
            return 0
        if status == "stopped":
            self._say(f"{folder} was stopped; `make demo` resumes it")
            return 0
        code = job.exit_code if job else None
        lines = self.paths.console.read_text(errors="replace").splitlines()[-_CONSOLE_LINES:]
        self._say(f"{folder} failed (exit code {code}); the end of {self.paths.console}:")
        self._say("\n".join(f"    {line}" for line in lines))
        return 1

    def _stop(self) -> None:
        """End the job if it still runs: it saves within a step."""
        if job_state(self.paths.dir) != "running":
            return
        self._say("the run saves and stops ...")
        polite = stop_job(self.paths.dir).stage != "SIGKILL"
        how = "stopped" if polite else "it did not answer and was killed"
        self._say(f"{how}; `make demo` resumes it")

    def _say(self, text: str) -> None:
        # The terminal may be gone (SIGHUP), and what was started must be stopped all the same.
        with contextlib.suppress(OSError):
            self.console.print(text, markup=False, soft_wrap=True)
