"""Stopping a job: a ladder of signals, each with time to take effect, for all that the command started."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bottleneck_core.errors import UserError
from bottleneck_core.jobs.job import POLITE_SIGNALS, Job

# Signal and seconds to wait for its effect. A trainer saves on SIGTERM within a step or an evaluation
# batch.
LADDER: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 30.0), (signal.SIGKILL, 10.0))
_POLL_S = 0.02
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
    """Stop the job of `run_dir` and wait until all its processes are gone.

    Goes down the `ladder` of signals as far as needed, calling `on_stage` with the name of each as it is
    sent. Raises UserError where there is no job, where it runs on another machine, and where it outlives
    the ladder.
    """
    job = Job.read(run_dir)
    if job is None:
        raise UserError(f"no job was started in {run_dir}: `jobs` lists the folders that have one")
    if job.state == "running" and not job.is_here:
        raise UserError(f"the job in {run_dir} runs on {job.host}: stop it there")
    if job.state != "running":
        return Stopped(stage=None, job=Job.read(run_dir) or job)

    processes = _tree(job)
    stage = None
    for signum, seconds in ladder if processes else ():
        stage = signum.name
        on_stage(stage)
        _send(job, processes, signum)
        processes = _wait({*processes, *_tree(job)}, seconds)
        if not processes:
            break
    if processes:
        pids = ", ".join(str(process.pid) for process in processes)
        raise UserError(f"the job in {run_dir} outlives {stage}: look at process {pids} (a hung device or disk?)")
    return Stopped(stage=stage, job=_recorded_end(job, stage))


def _tree(job: Job) -> list[psutil.Process]:
    """The command's process, its descendants, the rest of its group: what must be gone before the job is."""
    leader = job.live_process
    if leader is None:
        return []
    family = {leader}
    with contextlib.suppress(psutil.NoSuchProcess):
        family.update(leader.children(recursive=True))
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(process.pid) == leader.pid:
                family.add(process)
    return list(family)


def _send(job: Job, processes: Sequence[psutil.Process], signum: signal.Signals) -> None:
    """A polite signal goes through the supervisor, which notes it and hands it to the command's group."""
    supervisor = job.live_supervisor
    with contextlib.suppress(psutil.NoSuchProcess):
        if supervisor is not None and signum in POLITE_SIGNALS:
            supervisor.send_signal(signum)
            return
    for process in processes:  # one by one: psutil looks at the start time before it signals, killpg does not
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signum)


def _recorded_end(job: Job, stage: str | None) -> Job:
    """The job as its supervisor recorded the end; without one it is recorded here, with no exit code."""
    supervisor = job.live_supervisor
    if supervisor is not None:
        for process in _wait({supervisor}, _RECORD_S):  # it hangs; the job must not look alive for ever
            process.kill()
            _wait({process}, _RECORD_S)
    latest = Job.read(job.run_dir) or job
    if latest.status == "running":
        latest = latest.ended_as("stopped", exit_code=None, stop_signal=stage)
        latest.write()
    return latest


def _wait(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those of `processes` that still live after `seconds`, or none as soon as all have ended.

    psutil.wait_procs also waits for zombies, which nobody here can reap: where init does not, it waits in
    vain.
    """
    deadline = time.monotonic() + seconds
    while (alive := [process for process in processes if _lives(process)]) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return alive


def _lives(process: psutil.Process) -> bool:
    """Whether it runs; a zombie does not, it only waits for its parent to look."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
