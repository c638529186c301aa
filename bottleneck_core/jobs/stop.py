"""Stopping a job: a ladder of signals, each with time to take effect, for all that the command started."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bottleneck_core.errors import UserError
from bottleneck_core.jobs.family import family, send, wait
from bottleneck_core.jobs.job import POLITE_SIGNALS, Job, read_job

# Signal and seconds to wait for its effect. A trainer saves on SIGTERM within a step or an evaluation
# batch.
LADDER: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 30.0), (signal.SIGKILL, 10.0))
_RECORD_S = 30.0  # for the supervisor to write down the end; a sync takes seconds on a busy disk


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """How a job ended: by `stage`, a signal's name, or None where it had before; and its last record."""

    stage: str | None
    job: Job


def stop_job(
    run_dir: Path,
    *,
    ladder: Sequence[tuple[signal.Signals, float]] = LADDER,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Stopped:
    """Stop the job of `run_dir` and wait until all its processes are gone; one that waits leaves the queue.

    Goes down the `ladder` of signals as far as needed, calling `on_stage` with the name of each as it is
    sent. Raises UserError where there is no job, where it runs on another machine, and where it outlives
    the ladder.
    """
    job = read_job(run_dir)
    if job is None:
        raise UserError(f"no job was started in {run_dir}: `jobs` lists the folders that have one")
    if job.state not in ("queued", "running"):
        return Stopped(stage=None, job=Job.read(run_dir) or job)
    if not job.is_here:
        raise UserError(f"the job in {run_dir} {_BEING[job.status]} on {job.host}: stop it there")

    processes = _members(run_dir)
    stage = None
    for signum, seconds in ladder if processes else ():
        stage = signum.name
        on_stage(stage)
        _signal(job, processes, signum)

        def meet(others: list[psutil.Process], signum: signal.Signals = signum) -> None:
            if signum not in POLITE_SIGNALS:  # politely the command itself tells what it starts
                send(others, signum)

        processes = wait(processes, seconds, more=lambda: _members(run_dir), found=meet)
        if not processes:
            break
    if processes:
        pids = ", ".join(str(process.pid) for process in processes)
        raise UserError(f"the job in {run_dir} outlives {stage}: look at process {pids} (a hung device or disk?)")
    return Stopped(stage=stage, job=_recorded_end(job, stage))


_BEING = {"queued": "waits", "running": "runs"}


def _members(run_dir: Path) -> list[psutil.Process]:
    """What has to go. Read anew: a job that waits may have begun since."""
    job = Job.read(run_dir)
    if job is None:
        return []
    waiting = job.live_supervisor if job.status == "queued" else None
    return [*family(job), *([waiting] if waiting else [])]


def _signal(job: Job, processes: Sequence[psutil.Process], signum: signal.Signals) -> None:
    """A polite signal goes through the supervisor, which notes it and hands it to the command's group."""
    supervisor = job.live_supervisor
    with contextlib.suppress(psutil.NoSuchProcess):
        if supervisor is not None and signum in POLITE_SIGNALS:
            supervisor.send_signal(signum)
            return
    send(processes, signum)


def _recorded_end(job: Job, stage: str | None) -> Job:
    """The job as its supervisor recorded the end; without one it is recorded here, with no exit code."""
    supervisor = job.live_supervisor
    if supervisor is not None:
        for process in wait([supervisor], _RECORD_S):  # it hangs; the job must not look alive for ever
            process.kill()
            wait([process], _RECORD_S)
    latest = Job.read(job.run_dir) or job
    if latest.status in ("queued", "running"):
        latest = latest.ended_as("stopped", exit_code=None, stop_signal=stage)
        latest.write()
    return latest
