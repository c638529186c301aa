"""Starting a job: a detached supervisor, and word from it that the command runs, or waits in a queue."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import bottleneck_core
from bottleneck_core.errors import UserError
from bottleneck_core.jobs.identity import MARK
from bottleneck_core.jobs.job import Job, read_job
from bottleneck_core.jobs.queue import device_name
from bottleneck_core.store.layout import RunPaths

PROGRAM = (sys.executable, "-m", "bottleneck_core")
_START_TIMEOUT_S = 60.0  # an interpreter and few imports; a machine that swaps may need many seconds
STARTED = "started"  # the supervisor's report that the command runs and its record is on disk
QUEUED = "queued"  # its report that the record and the queue have the job, and a slot is not free


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
    the folder has a job that runs or waits, or the command cannot be started.
    """
    return _launch([*program, *argv], run_dir, (), cwd, env)


def queue_job(
    argv: Sequence[str],
    run_dir: Path,
    *,
    root: Path,
    device: str,
    nproc: int = 1,
    program: Sequence[str] = PROGRAM,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Job:
    """As `start_job`, as soon as `device` has a free slot in the queue of `root`: at once, or in turn.

    `device` ("cpu", "cuda:0", ...) is what is counted; the words that make the command use it are the caller's.
    `nproc` > 1 starts the program that often through torchrun, which gives process i the GPU i: a slot is taken of
    each of the first `nproc`, and the command's device is "cuda", not "cuda:0". When this returns, the job is
    recorded, as "running" or as "queued". Raises UserError as `start_job`, for what is no device, and for a queue
    that cannot be written.
    """
    if nproc < 1:
        raise UserError(f"{nproc} processes cannot train: give 1 or more")
    command = full_command(argv, nproc=nproc, program=program)
    return _launch(command, run_dir, _place(root, device_name(device), nproc), cwd, env)


def requeue_job(run_dir: Path, root: Path) -> Job:
    """Queue a job that was lost, stopped or failed again, on its device, with the words that it was asked for with.

    Where the trainer left something, `--resume` is among them: it goes on from last.pt, and begins anew where
    nothing was saved yet. A job that had no device takes no slot. Raises UserError where there is no such job, and
    as `queue_job`.
    """
    job = read_job(run_dir)
    if job is None:
        raise UserError(f"no job was started in {run_dir}: `jobs` lists the folders that have one")
    if job.state not in ("lost", "stopped", "failed"):
        raise UserError(f"the job in {run_dir} is {job.state}: only what was lost, stopped or failed is queued again")
    if not Path(job.cwd).is_dir():
        raise UserError(f"{job.cwd}, where the job in {run_dir} started, is gone: start it anew from another folder")
    paths = RunPaths(run_dir)
    begun = any(path.exists() for path in (paths.last, paths.events, paths.manifest))
    command = [*_without_resume(job.argv), "--resume"] if begun else list(job.argv)
    return _launch(command, run_dir, _place(root, job.device, job.nproc), Path(job.cwd), job.env)


def full_command(argv: Sequence[str], *, nproc: int = 1, program: Sequence[str] = PROGRAM) -> list[str]:
    """All words of the command that a job with the words `argv` runs; several processes are torchrun's."""
    python, *target = program
    if nproc > 1:
        target = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(nproc), *target]
    return [python, *target, *argv]


def _without_resume(argv: Sequence[str]) -> list[str]:
    words: list[str] = []
    takes_value = False
    for word in argv:
        if not (takes_value and not word.startswith("--")) and word.partition("=")[0] != "--resume":
            words.append(word)
        takes_value = word == "--resume"
    return words


def _place(root: Path, device: str, nproc: int) -> list[str]:
    return ["--queue", str(root.absolute()), "--device", device, "--nproc", str(nproc)]


def _launch(
    command: Sequence[str], run_dir: Path, place: Sequence[str], cwd: Path | None, env: Mapping[str, str] | None
) -> Job:
    run_dir = run_dir.absolute()
    run_dir.mkdir(parents=True, exist_ok=True)
    kept = [word for name in env or {} for word in ("--env", name)]
    reader, writer = os.pipe()
    try:
        with open(RunPaths(run_dir).console, "ab") as console:
            starter = subprocess.Popen(
                [
                    *(sys.executable, "-m", "bottleneck_core.jobs.supervisor", "--report-fd", str(writer)),
                    *(*place, *kept, str(run_dir), "--", *command),
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
    if report not in (STARTED, QUEUED):
        raise UserError(report or f"the job did not start: {RunPaths(run_dir).console} says why")
    job = Job.read(run_dir)
    assert job is not None  # written before the report
    return job


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment; the package is importable from any folder, and output comes at once.

    A job that starts another is not its keeper: the mark of its own processes is not handed on.
    """
    home = str(Path(bottleneck_core.__path__[0]).parent)
    paths = [home, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    inherited = {name: value for name, value in os.environ.items() if name != MARK}
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, paths))),
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # a folder that happens to be the current one has no say in what is imported
        **extra,
    }


def _read(pipe: int) -> str:
    """What the supervisor reports, up to the end of the pipe; empty if it ended or hung without a word."""
    words = b""
    while select.select([pipe], [], [], _START_TIMEOUT_S)[0] and (part := os.read(pipe, 4096)):
        words += part
    return words.decode(errors="replace")
