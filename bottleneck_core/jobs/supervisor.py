"""The process between a job's starter and its command: it outlives the one and records how the other ended.

    python -m bottleneck_core.jobs.supervisor RUN_DIR [--queue ROOT --device D --nproc N] -- COMMAND...

With a queue it first waits there for its turn. It starts the command as a process group of its own, hands SIGINT
and SIGTERM on to that group, waits, ends what the command left behind, and writes exit code and time into job.json.
While the command lives it holds `job.lock`, so a folder has one job at a time. Its imports are few: it stays in
memory as long as the job.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

import filelock

from bottleneck_core.errors import UserError
from bottleneck_core.jobs.family import end_rest
from bottleneck_core.jobs.identity import MARK, ProcessIdentity, boot_id
from bottleneck_core.jobs.job import POLITE_SIGNALS, Job, State, now, read_job
from bottleneck_core.jobs.start import QUEUED, STARTED
from bottleneck_core.jobs.waiting import Place
from bottleneck_core.store.lock import JOB_LOCK_NAME

# Exit codes of a command that saved and ended on such a signal, and of one that had no handler for it yet.
_STOPPED_CODES = tuple(code for signum in POLITE_SIGNALS for code in (128 + signum, -signum))
_LAUNCHER_FAILED = 1  # torchrun's own code when it is asked to stop, however well its processes did
_LOCK_S = 2.0  # readers that ask whether the lock is held have it for some microseconds


class Supervisor:
    """Runs the command of `job`, as it was asked for, in its folder."""

    def __init__(self, job: Job) -> None:
        self.job = replace(job, mark=secrets.token_hex(8))
        self._lock = filelock.FileLock(job.run_dir / JOB_LOCK_NAME)
        self._child: subprocess.Popen[bytes] | None = None
        self._received: signal.Signals | None = None
        self._held: signal.Signals | None = None  # received before there was a command to hand it to

    def run(self, report: Callable[[str], None]) -> int:
        """Start the command, now or in its turn, `report` on that, wait. Returns its exit code, 2 if there is none."""
        # Before all else, so that no signal is lost. A handler also undoes an inherited "ignore SIGINT", which the
        # command would inherit in turn.
        for signum in POLITE_SIGNALS:
            signal.signal(signum, self._forward)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal may close
        try:
            if self.job.root is None:
                self._start()
            elif not self._start_in_turn(Place(self.job), report):
                return self._withdrawn()
        except UserError as error:
            report(str(error))
            return 2
        report(STARTED)
        if self._held:
            self._send(self._held)
        return self._wait()

    def _start_in_turn(self, place: Place, report: Callable[[str], None]) -> bool:
        """Whether it started, now or later; it does not where it is taken from the queue."""
        try:
            if place.enter(self._record_waiting, self._start):
                return True
            report(QUEUED)
            if place.wait(self._start, gives_up=lambda: self._received is not None):
                return True
        except UserError as error:
            if self.job.supervisor is not None:  # it was recorded, and will not begin
                print(f"error: {error}", file=sys.stderr, flush=True)  # first: who sees the state looks for the reason
                self._record(self.job.ended_as("failed", exit_code=None, stop_signal=None))
                place.leave()
            raise
        if self._received is not None:
            self._record(self.job.ended_as("stopped", exit_code=None, stop_signal=self._received.name))
        place.leave()
        return False

    def _withdrawn(self) -> int:
        return 128 + self._received if self._received else 2

    def _record_waiting(self) -> None:
        self._lock_folder()
        try:
            self._record(replace(self.job, status="queued", supervisor=ProcessIdentity.of(os.getpid())))
        finally:
            self._lock.release()

    def _start(self) -> None:
        """Start the command and record that it runs; the folder's lock stays ours until this process ends.

        Raises UserError where the folder has another job, or the command cannot be started.
        """
        self._lock_folder()
        try:
            self._child = subprocess.Popen(
                self.job.argv, env={**os.environ, MARK: self.job.mark}, stdin=subprocess.DEVNULL, process_group=0
            )
            started = replace(
                self.job,
                status="running",
                started=now(),
                process=ProcessIdentity.of(self._child.pid),  # our child: it cannot vanish before we wait for it
                supervisor=ProcessIdentity.of(os.getpid()),
            )
            self._record(started)
        except BaseException as error:
            self._send(signal.SIGKILL)  # what no record names (the disk may be full) nobody could stop
            self._lock.release()
            if isinstance(error, OSError) and self._child is None:
                raise UserError(f"{self.job.argv[0]} cannot be started ({error.strerror}): check the command") from None
            raise

    def _lock_folder(self) -> None:
        self._refuse_a_second()  # at once, where that is already clear
        try:
            self._lock.acquire(timeout=_LOCK_S)
        except filelock.Timeout:
            raise UserError(self._busy("runs")) from None
        try:
            self._refuse_a_second()
        except UserError:
            self._lock.release()
            raise

    def _refuse_a_second(self) -> None:
        other = read_job(self.job.run_dir)
        if other and other.state in ("queued", "running") and other.mark != self.job.mark:
            raise UserError(self._busy("runs" if other.state == "running" else "waits"))

    def _busy(self, does: str) -> str:
        folder = self.job.run_dir
        return f"a job already {does} in {folder}: wait, or stop it with `jobs stop {folder}`"

    def _wait(self) -> int:
        assert self._child is not None
        code = self._child.wait()
        end_rest(self.job)
        stop_signal = self._received.name if self._received else None
        self._record(self.job.ended_as(self._status(code), exit_code=code, stop_signal=stop_signal))
        return code

    def _status(self, code: int) -> State:
        if code == 0:
            return "done"
        on_request = self._received is not None and (code < 0 or (self.job.nproc > 1 and code == _LAUNCHER_FAILED))
        return "stopped" if code in _STOPPED_CODES or on_request else "failed"

    def _record(self, job: Job) -> None:
        job.write()
        self.job = job

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


def main(argv: Sequence[str]) -> int:
    """`RUN_DIR [flags] -- COMMAND...`; with `--report-fd`, the descriptor of a pipe, detach and report there."""
    parser = argparse.ArgumentParser(prog="python -m bottleneck_core.jobs.supervisor")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--report-fd", type=int)
    parser.add_argument("--queue", type=Path, metavar="ROOT")
    parser.add_argument("--device", default="")
    parser.add_argument("--nproc", type=int, default=1)
    parser.add_argument("--env", action="append", default=[], metavar="NAME", help="variable that the record keeps")
    at = argv.index("--") if "--" in argv else len(argv)
    words, command = parser.parse_args(argv[:at]), tuple(argv[at + 1 :])
    if not command:
        raise UserError("there is no command: give it after --")
    job = Job(
        run_dir=words.run_dir,
        argv=command,
        cwd=os.getcwd(),
        host=socket.gethostname(),
        boot_id=boot_id(),
        created=now(),
        device=words.device,
        nproc=words.nproc,
        root=words.queue,
        env={name: os.environ[name] for name in words.env},
    )
    if words.report_fd is not None and os.fork():
        os._exit(0)  # the starter waits for this process and so leaves no zombie; the copy belongs to init
    return Supervisor(job).run(_reporter(words.report_fd))


def _reporter(descriptor: int | None) -> Callable[[str], None]:
    """The starter hears the first word and goes."""
    pipes = [] if descriptor is None else [descriptor]

    def report(message: str) -> None:
        if pipes:
            with contextlib.suppress(BrokenPipeError), os.fdopen(pipes.pop(), "w") as pipe:
                pipe.write(message)
        elif descriptor is None and message not in (STARTED, QUEUED):
            print(f"error: {message}", file=sys.stderr, flush=True)

    return report


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(2)
