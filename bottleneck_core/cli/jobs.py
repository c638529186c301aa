"""`jobs`: the background jobs below a folder; `jobs stop ID` ends one."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from bottleneck_core.cli.words import read_words
from bottleneck_core.errors import UserError
from bottleneck_core.jobs import Job, find_jobs, stop_job
from bottleneck_core.store.layout import RunPaths

HELP = "List and stop background jobs."
DEFAULT_DIR = Path("runs")


@dataclass(frozen=True)
class Words:
    """List background jobs; `jobs stop ID` stops one, which saves first."""

    dir: tyro.conf.Positional[Path] = DEFAULT_DIR
    """parent of the run folders"""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """print one JSON document and nothing else"""


@dataclass(frozen=True)
class StopWords:
    """Stop a background job: it is asked to save and end, and killed where it does not."""

    id: tyro.conf.Positional[str]
    """name of the job, which is that of its run folder, or the folder's path"""
    runs: Path = DEFAULT_DIR
    """parent of the run folders"""


def main(argv: list[str]) -> int:
    """Exit codes: 0 listed, or ended by the time this returns; 2 a user's mistake."""
    if argv[:1] == ["stop"]:
        if len(argv) == 1:
            raise UserError("jobs stop needs the job to stop: `jobs` lists them")
        stop = read_words(StopWords, argv[1:], prog="python -m bottleneck_core jobs stop")
        return _stop(_find(stop.id, stop.runs))
    words = read_words(Words, argv, prog="python -m bottleneck_core jobs")
    if not words.dir.is_dir() and words.dir != DEFAULT_DIR:
        raise UserError(f"{words.dir} is no folder: name the parent of the run folders")
    jobs, errors = find_jobs(words.dir)
    if words.json:
        print(json.dumps([_row(job) for job in jobs], indent=2, allow_nan=False))
    else:
        _print_table(jobs)
    for error in errors:
        print(f"warning: {error}", file=sys.stderr)
    return 0


def _row(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "path": str(job.run_dir),
        "state": job.state,
        "pid": job.process.pid if job.process else None,
        "host": job.host,
        "argv": list(job.argv),
        "created": job.created,
        "ended": job.ended,
        "exit_code": job.exit_code,
    }


def _print_table(jobs: list[Job]) -> None:
    if not jobs:
        print("no jobs: `demo` starts one")
        return
    rows = [("job", "state", "pid", "exit", "started", "command")]
    for job in jobs:
        pid = str(job.process.pid) if job.process and job.state == "running" else ""
        code = "" if job.exit_code is None else str(job.exit_code)
        rows.append((job.id, job.state, pid, code, job.created[:19].replace("T", " "), job.command_line))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _find(name: str, root: Path) -> Path:
    """The folder of the job that `name` means: a path, or the name of one below `root`."""
    for folder in (Path(name), root / name):
        if RunPaths(folder).job.is_file():
            return folder
    jobs, _ = find_jobs(root)
    found = [job.run_dir for job in jobs if job.id == name]
    if len(found) > 1:
        raise UserError(f"{name} is the name of several jobs: give the path, such as {found[0]}")
    if not found:
        known = ", ".join(job.id for job in jobs) or "none"
        raise UserError(f"there is no job {name} in {root} (jobs there: {known}): give its name or its folder")
    return found[0]


def _stop(folder: Path) -> int:
    stopped = stop_job(folder, on_stage=lambda stage: print(f"{stage} sent, waiting", flush=True))
    job = stopped.job
    if stopped.stage is None:
        print(f"{job.id} had ended before: {job.state}")
    else:
        code = "" if job.exit_code is None else f" (exit code {job.exit_code})"
        print(f"{job.id} ended by {stopped.stage}: {job.state}{code}")
    return 0
