"""A folder for a job, and nothing left running after the test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bottleneck_core.jobs import Job


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The run folder of the test's job; whatever the job's record names is killed at the end."""
    folder = tmp_path / "nano_test"
    folder.mkdir()
    yield folder
    with contextlib.suppress(Exception):
        job = Job.read(folder)
        for identity in (job.process, job.supervisor) if job else ():
            process = identity.find() if identity else None
            family = [process, *process.children(recursive=True)] if process else []
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
