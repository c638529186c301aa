"""`jobs`: the background jobs below a folder; its words add one to the queue, order, start, resume and stop them."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from bottleneck_core.cli.words import read_words
from bottleneck_core.errors import UserError
from bottleneck_core.jobs import Job, find_jobs, queued_jobs

HELP = "List, queue, order, start, resume and stop background jobs."
DEFAULT_DIR = Path("runs")
_WORDS = {
    "add": "jobs_add",
    "move": "jobs_change",
    "start": "jobs_change",
    "resume": "jobs_change",
    "stop": "jobs_change",
    "limit": "jobs_limit",
    "log": "jobs_change",
}


@dataclass(frozen=True)
class Words:
    """List background jobs and the queue.

    jobs add -- train ... queues a run; jobs move, start, resume, stop and log take the job's name; jobs limit shows
    and sets how many jobs a device takes at once. Each has its own --help.
    """

    dir: tyro.conf.Positional[Path] = DEFAULT_DIR
    """parent of the run folders"""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """print one JSON document and nothing else"""


def main(argv: list[str]) -> int:
    """Exit codes: 0 listed, or done by the time this returns; 2 a user's mistake."""
    if argv and argv[0] in _WORDS:
        return importlib.import_module(f"bottleneck_core.cli.{_WORDS[argv[0]]}").main(argv)
    words = read_words(Words, argv, prog="python -m bottleneck_core jobs")
    if not words.dir.is_dir() and words.dir != DEFAULT_DIR:
        raise UserError(f"{words.dir} is no folder: name the parent of the run folders")
    jobs, errors = find_jobs(words.dir)
    waiting = queued_jobs(words.dir)
    listed = {os.path.realpath(job.run_dir) for job in jobs}
    jobs += [job for job in waiting if os.path.realpath(job.run_dir) not in listed]  # of folders elsewhere
    rows = job_rows(jobs, waiting)
    if words.json:
        print(json.dumps(rows, indent=2, allow_nan=False))
    else:
        _print_table(rows, [job.command_line for job in jobs])
    for error in errors:
        print(f"warning: {error}", file=sys.stderr)
    return 0


def job_rows(jobs: list[Job], waiting: list[Job]) -> list[dict[str, Any]]:
    """Jobs as plain values; `position` counts from 0 in the order of `waiting`, null for what does not wait."""
    positions = {os.path.realpath(job.run_dir): position for position, job in enumerate(waiting)}
    return [
        {
            "id": job.id,
            "path": str(job.run_dir),
            "state": job.state,
            "position": positions.get(os.path.realpath(job.run_dir)),
            "device": job.device or None,
            "nproc": job.nproc,
            "pid": job.process.pid if job.process else None,
            "host": job.host,
            "argv": list(job.argv),
            "created": job.created,
            "started": job.started,
            "ended": job.ended,
            "exit_code": job.exit_code,
        }
        for job in jobs
    ]


def _print_table(rows: list[dict[str, Any]], commands: list[str]) -> None:
    if not rows:
        print("no jobs: `jobs add -- train --size nano` queues one, `demo` starts one")
        return
    table: list[tuple[str, ...]] = [("job", "state", "pid", "device", "position", "exit", "created", "command")]
    for row, command in zip(rows, commands, strict=True):
        created = row["created"][:19].replace("T", " ")
        pid = row["pid"] if row["state"] == "running" else None
        values = (row["id"], row["state"], pid, row["device"], row["position"], row["exit_code"], created, command)
        table.append(tuple("" if value is None else str(value) for value in values))
    print_rows(table)


def print_rows(rows: Sequence[tuple[str, ...]]) -> None:
    """A table; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
