"""The process between a job's starter and its command: it outlives the one and records how the other ended.

    python -m bottleneck_core.jobs.supervisor RUN_DIR -- COMMAND...

It starts the command as a process group of its own, hands SIGINT and SIGTERM on to that group, waits, and
writes exit code and time into job.json. While it lives it holds `job.lock`, so a folder has one job at a
time. Its imports are few: it stays in memory as long as the job.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import filelock

from bottleneck_core.errors import UserError
from bottleneck_core.jobs.identity import ProcessIdentity, boot_id
from bottleneck_core.jobs.job import POLITE_SIGNALS, Job, State, job_state, now
from bottleneck_core.jobs.start import STARTED
from bottleneck_core.store.lock import JOB_LOCK_NAME

# Exit codes of a command that saved and ended on such a signal, and of one that had no handler for it yet.
_STOPPED_CODES = tuple(code for signum in POLITE_SIGNALS for code in (128 + signum, -signum))


class Supervisor:
    """Runs `command` as the job of `run_dir`."""

    def __init__(self, run_dir: Path, command: Sequence[str]) -> None:
        self.run_dir = run_dir
        self.command = list(command)
        self._child: subprocess.Popen[bytes] | None = None
        self._received: signal.Signals | None = None
        self._held: signal.Signals | None = None  # received before there was a command to hand it to

    def run(self, report: Callable[[str], None]) -> int:
        """Start the command, `report` that it runs or why not, wait. Returns its exit code, 2 if none."""
        try:
            lock = filelock.FileLock(self.run_dir / JOB_LOCK_NAME).acquire(timeout=0)
        except filelock.Timeout:
            report(self._busy())
            return 2
        with lock:
            if job_state(self.run_dir) == "running":  # its supervisor was killed, the command was not
                report(self._busy())
                return 2
            # Before the start, so that no signal is lost. A handler also undoes an inherited "ignore
            # SIGINT", which the command would inherit in turn.
            for signum in POLITE_SIGNALS:
                signal.signal(signum, self._forward)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal may close
            try:
                self._child = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, process_group=0)
            except OSError as error:
                report(f"{self.command[0]} cannot be started ({error.strerror}): check the command")
                return 2
            try:
                job = self._record(self._child.pid)
            except BaseException:  # a full disk: what no record names nobody could stop
                self._send(signal.SIGKILL)
                raise
            report(STARTED)
            if self._held:
                self._send(self._held)
            return self._wait(job)

    def _wait(self, job: Job) -> int:
        assert self._child is not None
        code = self._child.wait()
        stop_signal = self._received.name if self._received else None
        job.ended_as(self._status(code), exit_code=code, stop_signal=stop_signal).write()
        return code

    def _status(self, code: int) -> State:
        if code == 0:
            return "done"
        killed_on_request = code < 0 and self._received is not None
        return "stopped" if code in _STOPPED_CODES or killed_on_request else "failed"

    def _record(self, pid: int) -> Job:
        job = Job(
            run_dir=self.run_dir,
            argv=tuple(self.command),
            cwd=os.getcwd(),
            host=socket.gethostname(),
            boot_id=boot_id(),
            created=now(),
            status="running",
            process=ProcessIdentity.of(pid),  # our child: it cannot vanish before we wait for it
            supervisor=ProcessIdentity.of(os.getpid()),
        )
        job.write()
        return job

    def _forward(self, signum: int, frame: FrameType | None) -> None:
        self._received = signal.Signals(signum)
        if self._child is None:
            self._held = self._received
        else:
            self._send(self._received)

    def _send(self, signum: signal.Signals) -> None:
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signum)

    def _busy(self) -> str:
        return f"a job already runs in {self.run_dir}: wait, or stop it with `jobs stop {self.run_dir}`"


def main(argv: Sequence[str]) -> int:
    """`[--report-fd FD] RUN_DIR -- COMMAND...`; with the descriptor of a pipe, detach and report there."""
    words = list(argv)
    report_fd = None
    if words[:1] == ["--report-fd"]:
        report_fd, words = int(words[1]), words[2:]
    if len(words) < 3 or words[1] != "--":
        raise UserError("usage: python -m bottleneck_core.jobs.supervisor RUN_DIR -- COMMAND...")
    supervisor = Supervisor(Path(words[0]), words[2:])
    if report_fd is None:
        return supervisor.run(lambda message: None if message == STARTED else print(message, file=sys.stderr))
    if os.fork():  # the starter waits for this process and so leaves no zombie; the copy belongs to init
        os._exit(0)

    def report(message: str) -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(report_fd, "w") as pipe:
            pipe.write(message)

    return supervisor.run(report)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(2)
