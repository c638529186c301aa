"""`jobs move`, `start`, `resume`, `stop` and `log`: what one job, named by its run folder, is told or says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from bottleneck_core.cli.jobs import DEFAULT_DIR
from bottleneck_core.cli.words import read_words
from bottleneck_core.errors import UserError
from bottleneck_core.jobs import (
    Job,
    find_jobs,
    job_log,
    job_state,
    move_job,
    queued_jobs,
    requeue_job,
    start_now,
    stop_job,
)
from bottleneck_core.store.layout import RunPaths


@dataclass(frozen=True)
class _Named:
    id: tyro.conf.Positional[str | None] = None
    """name of the job, which is that of its run folder, or the folder's path"""


@dataclass(frozen=True)
class _Below:
    runs: Path = DEFAULT_DIR
    """parent of the run folders"""


@dataclass(frozen=True)
class StopWords(_Below, _Named):
    """Stop a background job: it is asked to save and end, and killed where it does not; one that waits is taken from
    the queue."""


@dataclass(frozen=True)
class StartWords(_Below, _Named):
    """Start a job that waits at once, past the order and the limit of its device."""


@dataclass(frozen=True)
class ResumeWords(_Below, _Named):
    """Queue a job that was lost, stopped or failed again: it goes on from its last checkpoint."""


@dataclass(frozen=True)
class MoveWords(_Below, _Named):
    """Give a job that waits another position in the queue."""

    position: tyro.conf.Positional[int | None] = None
    """the new position: 0 is next"""


@dataclass(frozen=True)
class LogWords(_Below, _Named):
    """Print the end of what a job printed."""

    lines: Annotated[int, tyro.conf.arg(aliases=("-n",))] = 40
    """number of lines"""


def main(argv: list[str]) -> int:
    """Exit codes: 0 done; 2 a user's mistake."""
    form, act = {
        "stop": (StopWords, _stop),
        "start": (StartWords, _start),
        "resume": (ResumeWords, _resume),
        "move": (MoveWords, _move),
        "log": (LogWords, _log),
    }[argv[0]]
    words = read_words(form, argv[1:], prog=f"python -m bottleneck_core jobs {argv[0]}")
    if words.id is None:
        raise UserError(f"jobs {argv[0]} needs the job's name: `jobs` lists them")
    act(_find(words.id, words.runs), words)
    return 0


def where_it_is(job: Job, root: Path) -> str:
    """A sentence on a job that was just queued."""
    if job.state != "queued":
        return f"{job.id} runs{f' on {job.device}' if job.device else ''}: {job.run_dir}"
    ahead = [os.path.realpath(other.run_dir) for other in queued_jobs(root)]
    mine = os.path.realpath(job.run_dir)
    position = f" at position {ahead.index(mine)}" if mine in ahead else ""
    return f"{job.id} waits for {job.device}{position}: {job.run_dir}"


def _stop(folder: Path, words: StopWords) -> None:
    waits = job_state(folder) == "queued"
    stopped = stop_job(folder, on_stage=lambda stage: print(f"{stage} sent, waiting", flush=True))
    job = stopped.job
    if stopped.stage is None:
        print(f"{job.id} had ended before: {job.state}")
    elif waits and job.process is None:
        print(f"{job.id} was taken from the queue: {job.state}")
    else:
        code = "" if job.exit_code is None else f" (exit code {job.exit_code})"
        print(f"{job.id} ended by {stopped.stage}: {job.state}{code}")


def _start(folder: Path, words: StartWords) -> None:
    start_now(folder, _root(folder, words.runs))
    print(f"{folder.resolve().name} starts now")


def _resume(folder: Path, words: ResumeWords) -> None:
    root = _root(folder, words.runs)
    print(where_it_is(requeue_job(folder, root), root))


def _move(folder: Path, words: MoveWords) -> None:
    if words.position is None:
        raise UserError(f"jobs move {words.id} needs the new position: 0 is next")
    root = _root(folder, words.runs)
    move_job(folder, root, words.position)
    for position, job in enumerate(queued_jobs(root)):
        print(f"{position}  {job.id}")


def _log(folder: Path, words: LogWords) -> None:
    text = job_log(folder, words.lines)
    if text:
        print(text)


def _root(folder: Path, runs: Path) -> Path:
    """The queue that the job is of; a job that never was of one goes to that of `runs`."""
    job = Job.read(folder)
    return job.root if job and job.root else runs


def _find(name: str, root: Path) -> Path:
    """The folder of the job that `name` means: a path, or the name of one below `root` or in its queue."""
    for folder in (Path(name), root / name):
        if RunPaths(folder).job.is_file():
            return folder
    jobs, _ = find_jobs(root)
    known = {os.path.realpath(job.run_dir): job for job in [*jobs, *queued_jobs(root)]}
    found = [job.run_dir for job in known.values() if job.id == name]
    if len(found) > 1:
        raise UserError(f"{name} is the name of several jobs: give the path, such as {found[0]}")
    if not found:
        names = ", ".join(job.id for job in known.values()) or "none"
        raise UserError(f"there is no job {name} in {root} (jobs there: {names}): give its name or its folder")
    return found[0]
