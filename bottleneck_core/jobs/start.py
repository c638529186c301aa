"""Starting a job: a detached supervisor, and word from it that the command runs."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import bottleneck_core
from bottleneck_core.errors import UserError
from bottleneck_core.jobs.job import Job
from bottleneck_core.store.layout import RunPaths

PROGRAM = (sys.executable, "-m", "bottleneck_core")
_START_TIMEOUT_S = 60.0  # an interpreter and few imports; a machine that swaps may need many seconds
STARTED = "started"  # the supervisor's report that the command runs and its record is on disk


def start_job(
    argv: Sequence[str],
    run_dir: Path,
    *,
    program: Sequence[str] = PROGRAM,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Job:
    """Start `program` with the words `argv` in the background, its output in `run_dir/console.log`.

    `cwd` is where relative paths in `argv` start (default: the current folder), `env` what is added to this
    process's environment. The job has a session of its own, no standard input, and lives on when its
    starter ends. When this returns, the command runs and `run_dir/job.json` says so. Raises UserError when
    the folder has a job that runs, or the command cannot be started.
    """
    run_dir = run_dir.absolute()
    run_dir.mkdir(parents=True, exist_ok=True)
    reader, writer = os.pipe()
    try:
        with open(RunPaths(run_dir).console, "ab") as console:
            starter = subprocess.Popen(
                [
                    *(sys.executable, "-m", "bottleneck_core.jobs.supervisor", "--report-fd", str(writer)),
                    *(str(run_dir), "--", *program, *argv),
                ],
                cwd=cwd,
                env=_environment(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                pass_fds=(writer,),
                start_new_session=True,
            )
        os.close(writer)
        writer = -1
        starter.wait()
        report = _read(reader)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    if report != STARTED:
        raise UserError(report or f"the job did not start: {RunPaths(run_dir).console} says why")
    job = Job.read(run_dir)
    assert job is not None  # written before the report
    return job


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment; the package is importable from any folder, and output comes at once."""
    home = str(Path(bottleneck_core.__path__[0]).parent)
    paths = [home, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, paths))),
        "PYTHONUNBUFFERED": "1",
        **extra,
    }


def _read(pipe: int) -> str:
    """What the supervisor reports, up to the end of the pipe; empty if it ended or hung without a word."""
    words = b""
    while select.select([pipe], [], [], _START_TIMEOUT_S)[0] and (part := os.read(pipe, 4096)):
        words += part
    return words.decode(errors="replace")
