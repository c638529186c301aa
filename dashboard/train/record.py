"""Whether a job's record may be started again from a page.

A run's folder may come from elsewhere, and its job.json says which command is to run, where, and in which
environment. What is started by a click is our own program with paths below the folders of this dashboard, nothing else.
"""

from __future__ import annotations

import os
from pathlib import Path

import bottleneck_core
from bottleneck_core.errors import UserError
from bottleneck_core.jobs import Job
from bottleneck_core.jobs.start import full_command
from dashboard.confined import inside, real_roots
from dashboard.state import run_roots
from dashboard.train.corpora import data_folders

_COMMANDS = ("train", "prepare")
_ENVIRONMENT = frozenset({"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"})


def check_record(job: Job) -> None:
    """Raises UserError where this dashboard would not have started the job itself."""
    program = tuple(full_command((), nproc=job.nproc))
    words = job.argv[len(program) :]
    if job.argv[: len(program)] != program or not words or words[0] not in _COMMANDS:
        raise UserError(f"the record of {job.id} starts another program than this one: start it in the terminal")
    homes = {os.path.realpath(folder) for folder in (Path.cwd(), Path(bottleneck_core.__path__[0]).parent)}
    if os.path.realpath(job.cwd) not in homes:
        raise UserError(f"{job.id} was started in {job.cwd}: resume it in the terminal there")
    if foreign := sorted(set(job.env) - _ENVIRONMENT):
        raise UserError(f"the record of {job.id} sets {', '.join(foreign)}: start it in the terminal")
    real = real_roots([*run_roots(), *data_folders()])
    for word in words[1:]:
        value = word.partition("=")[2] if word.startswith("--") else word
        path = Path(job.cwd, value)
        if os.sep in value and not inside(path, real):
            raise UserError(f"the record of {job.id} names {value}, outside of the folders of this dashboard")
