"""A token file small enough to train on in seconds, and an end to every job that a test started."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import psutil

from bottleneck_core.data.sidecar import write_sidecar
from bottleneck_core.jobs import find_jobs
from bottleneck_core.jobs.family import family

TOKENS = 20_000


def write_corpus(root: Path, name: str = "tiny.byte.bin") -> Path:
    """A prepared corpus of bytes in the data folder of `root`."""
    path = root / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = (np.arange(TOKENS) * 7 % 61 + 32).astype(np.uint16)
    ids.tofile(path)
    sidecar = {"tokens": TOKENS, "documents": 1, "tokenizer": "byte", "vocab_size": 256, "end_token": None}
    write_sidecar(path, {**sidecar, "format": "bin", "dtype": "uint16", "bytes": path.stat().st_size})
    return path


def end_jobs(root: Path) -> None:
    """Kill whatever the jobs below `root` still are."""
    for job in find_jobs(root)[0]:
        for process in [*([job.live_supervisor] if job.live_supervisor else []), *family(job)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
