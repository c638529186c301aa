"""A command of the package as a person starts it: a process in some folder, its output, its end, what it leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil

from tests.jobs.programs import until

ROOT = Path(__file__).resolve().parents[2]
START_S = 120  # imports on a machine whose cores are busy with other tests


class Command:
    """`python -m bottleneck_core ...` in `folder`, output in a file. `close` kills it and what it left behind."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        self._log = folder / f"output-{len(list(folder.glob('output-*')))}.txt"
        environment = {key: value for key, value in os.environ.items() if key not in ("BOTTLENECK_RUNS", "DISPLAY")}
        environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bottleneck_core", *words],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        """What it printed so far."""
        return self._log.read_text(errors="replace")

    def until_says(self, text: str, seconds: float = START_S) -> None:
        """Wait until it has printed `text`; fail at once when it ends without."""

        def said() -> bool:
            ended = self.process.poll() is not None
            if text in self.output:
                return True
            assert not ended, f"ended with {self.process.returncode} before it said {text!r}:\n{self.output}"
            return False

        until(said, f"{text!r}", seconds)

    def interrupt(self, seconds: float = START_S) -> int:
        """Ctrl-C, and the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(seconds)

    def left_behind(self) -> list[str]:
        """Command lines of processes that work in the folder or are about it, this one's own aside."""
        return [" ".join(process.cmdline()) for process in self._others()]

    def close(self) -> None:
        """Leave nothing running."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self._others():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _others(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                about = process.cwd().startswith(str(self.folder)) or str(self.folder) in " ".join(process.cmdline())
                if about and process.pid not in (os.getpid(), self.process.pid):
                    found.append(process)
        return found


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
