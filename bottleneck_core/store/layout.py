"""Names inside a run folder, and where run folders are.

The names are fixed: people, notebooks and other programs rely on them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bottleneck_core.store.lock import LOCK_NAME

MAX_DEPTH = 3
# What makes a folder a run. config.json is not among them: every folder of model weights has one.
MARKS = ("train.jsonl", "manifest.json", "summary.md", "job.json", "analysis.h5")
SKIPPED = frozenset({"trash", "__pycache__", "node_modules"})


@dataclass(frozen=True)
class RunPaths:
    """The paths of one run folder. Nothing is created and nothing needs to exist."""

    dir: Path

    def __init__(self, dir: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "dir", Path(dir))

    @property
    def config(self) -> Path:
        """The resolved configuration, flat, in our names."""
        return self.dir / "config.json"

    @property
    def manifest(self) -> Path:
        """What the run ran on: command, code, packages, hardware, data, process; and how it ended."""
        return self.dir / "manifest.json"

    @property
    def lock(self) -> Path:
        """Held while a trainer is on the folder."""
        return self.dir / LOCK_NAME

    @property
    def events(self) -> Path:
        """One JSON object a line."""
        return self.dir / "train.jsonl"

    @property
    def analysis(self) -> Path:
        """Attention and weight metrics per layer and head, and chosen attention maps (HDF5)."""
        return self.dir / "analysis.h5"

    @property
    def picture(self) -> Path:
        """The run's curves as one picture."""
        return self.dir / "analysis.png"

    @property
    def summary(self) -> Path:
        """The run in words and numbers."""
        return self.dir / "summary.md"

    @property
    def last(self) -> Path:
        """The checkpoint that training resumes from."""
        return self.dir / "last.pt"

    @property
    def last_dcp(self) -> Path:
        """The same, a folder, where training is sharded (`--shard`); a run has one of the two."""
        return self.dir / "last.dcp"

    @property
    def best(self) -> Path:
        """Weights and configuration at the least validation loss."""
        return self.dir / "best.pt"

    @property
    def samples(self) -> Path:
        """Texts that were sampled from the run."""
        return self.dir / "samples.jsonl"

    @property
    def evaluation(self) -> Path:
        """What cache policies cost in quality, as `evaluate` measured it."""
        return self.dir / "evaluation.json"

    @property
    def job(self) -> Path:
        """Present where a job started the run."""
        return self.dir / "job.json"

    @property
    def console(self) -> Path:
        """What the job printed."""
        return self.dir / "console.log"

    @property
    def notes(self) -> Path:
        """Tags and a note that people gave the run."""
        return self.dir / "notes.json"

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file that a run folder may have; last.dcp is a folder."""
        return (
            self.config,
            self.manifest,
            self.lock,
            self.events,
            self.analysis,
            self.picture,
            self.summary,
            self.last,
            self.last_dcp,
            self.best,
            self.samples,
            self.evaluation,
            self.job,
            self.console,
        )


def is_run(folder: str | os.PathLike[str]) -> bool:
    """Whether the folder holds a run, ours or a foreign one, complete or not."""
    folder = Path(folder)
    return any((folder / mark).is_file() for mark in MARKS)


def find_runs(root: str | os.PathLike[str]) -> list[Path]:
    """Run folders at `root` and up to three levels below it, sorted, without hidden ones and the trash."""
    found: list[Path] = []
    level = [Path(root)]
    for depth in range(MAX_DEPTH + 1):
        found += [folder for folder in level if is_run(folder)]
        if depth < MAX_DEPTH:
            level = [child for folder in level for child in _children(folder)]
    return sorted(found)


def next_free_id(root: str | os.PathLike[str], run_id: str) -> str:
    """`run_id` if `root` has nothing of that name, else the first free of `run_id_2`, `run_id_3`, ..."""
    root = Path(root)
    candidate, number = run_id, 1
    while os.path.lexists(root / candidate):
        number += 1
        candidate = f"{run_id}_{number}"
    return candidate


def run_status(folder: str | os.PathLike[str]) -> str:
    """queued, running, stopped, done, failed or lost: see `bottleneck_core.store.status`."""
    from bottleneck_core.store.status import status_of

    return status_of(RunPaths(folder))


def _children(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [
                Path(entry.path)
                for entry in entries
                if not entry.name.startswith(".") and entry.name.lower() not in SKIPPED and entry.is_dir()
            ]
    except OSError:  # no permission, or gone in the meantime
        return []
