"""A folder for a job, and nothing left running after the test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bottleneck_core.jobs import Job
from bottleneck_core.jobs.family import family


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The run folder of the test's job; whatever the job's record names is killed at the end."""
    folder = tmp_path / "nano_test"
    folder.mkdir()
    yield folder
    kill(folder)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A parent of run folders with a queue; no process of a job in it lives on."""
    yield tmp_path
    for folder in (path.parent for path in tmp_path.rglob("job.json")):
        kill(folder)


def kill(folder: Path) -> None:
    """The supervisor first, so that it starts nothing more; then all of the command's."""
    with contextlib.suppress(Exception):
        job = Job.read(folder)
        assert job is not None
        for process in filter(None, (job.live_supervisor, *family(job))):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for process in family(Job.read(folder) or job):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
