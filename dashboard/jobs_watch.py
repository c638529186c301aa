"""The jobs below the roots and how busy the machine is, watched once for all sessions.

A look at all folders takes a tenth of a second for a thousand runs and is taken rarely, in the background: when a root
or its queue has changed, and twice a minute. In between only the records of jobs that are not over are looked at.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import streamlit as st

import bottleneck_core as bc
from bottleneck_core.jobs import Job, find_jobs, queued_jobs
from bottleneck_core.jobs.job import read_job
from bottleneck_core.store.layout import RunPaths
from dashboard.confined import real_roots, run_inside
from dashboard.state import run_roots
from dashboard.train.devices import Use, card_use
from dashboard.train.prepare import FOLDER

LIVE = ("running", "queued")
_ALL_SECONDS = 30.0
_LOOK_SECONDS = 1.0
_CARDS_SECONDS = 5.0
_FIRST_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A job with its state at the last look and the root that it was found in."""

    job: Job
    state: str
    root: Path


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Jobs newest first, those that wait in their order, sentences on damaged records, and how busy the machine is."""

    jobs: tuple[Watched, ...] = ()
    waiting: tuple[Watched, ...] = ()
    errors: tuple[str, ...] = ()
    processor: float = 0.0
    cards: tuple[Use, ...] = ()

    @property
    def running(self) -> tuple[Watched, ...]:
        """Those that run."""
        return tuple(watched for watched in self.jobs if watched.state == "running")


class JobsWatch:
    """What one server knows of the jobs below `roots`. Its methods may be called from many threads."""

    def __init__(self, roots: tuple[Path, ...]) -> None:
        self.roots = roots
        self._real = real_roots(roots)
        self._lock = threading.Lock()
        self._busy = threading.Lock()  # held by the thread that looks at everything
        self._snapshot = Snapshot()
        self._stamps: dict[Path, int] = {}
        self._marks: dict[Path, int] = {}
        self._all_at = self._look_at = self._cards_at = float("-inf")

    def snapshot(self) -> Snapshot:
        """What is known, at most some seconds old."""
        now = time.monotonic()
        if self._outdated(now) and self._busy.acquire(blocking=False):
            look = threading.Thread(target=self._in_background, daemon=True)
            look.start()
            if self._all_at == float("-inf"):  # the first of this server: worth a moment, but not a late page
                look.join(_FIRST_SECONDS)
        with self._lock:
            if now - self._look_at >= _LOOK_SECONDS:
                self._look_at = now
                self._look_at_live()
            return self._snapshot

    def look_again(self) -> None:
        """Something was started or stopped: look at everything now."""
        self._look_at_all()

    def _outdated(self, now: float) -> bool:
        cards = len(self._snapshot.cards) > 0 and now - self._cards_at > _CARDS_SECONDS
        return cards or now - self._all_at > _ALL_SECONDS or self._marks_now() != self._marks

    def _in_background(self) -> None:
        try:
            self._look_at_all()
        finally:
            self._busy.release()

    def _look_at_all(self) -> None:
        marks, jobs, errors = self._marks_now(), [], []
        for root in self.roots:
            for folder in (root, root / FOLDER):
                found, broken = find_jobs(folder) if folder.is_dir() else ([], [])
                found = [job for job in found if run_inside(job.run_dir, self._real)]
                jobs += [Watched(job=job, state=job.state, root=root) for job in found]
                errors += broken
        cards, waiting = tuple(card_use()), self._waiting(errors)
        with self._lock:
            self._stamps = {w.job.run_dir: _stamp(w.job.run_dir) for w in jobs if w.state in LIVE}
            self._marks, self._all_at, self._cards_at = marks, time.monotonic(), time.monotonic()
            self._snapshot = Snapshot(
                jobs=tuple(sorted(jobs, key=lambda w: w.job.created, reverse=True)),
                waiting=waiting,
                errors=tuple(dict.fromkeys(errors)),
                processor=psutil.cpu_percent() / 100,
                cards=cards,
            )

    def _look_at_live(self) -> None:
        """Jobs that ran or waited: their records where they have changed, their processes in any case."""
        before = self._snapshot
        changed, jobs = False, []
        for watched in before.jobs:
            if watched.state in LIVE:
                stamp = _stamp(watched.job.run_dir)
                job = watched.job if stamp == self._stamps.get(watched.job.run_dir) else _read(watched.job)
                self._stamps[watched.job.run_dir] = stamp
                state = job.state
                if state == "lost":  # perhaps it ended since its record was read
                    job = _read(job)
                    state = job.state
                changed = changed or (state, job) != (watched.state, watched.job)
                watched = Watched(job=job, state=state, root=watched.root)
            jobs.append(watched)
        errors = list(before.errors)
        self._snapshot = Snapshot(
            jobs=tuple(jobs) if changed else before.jobs,
            waiting=self._waiting(errors) if before.waiting or changed else (),
            errors=tuple(dict.fromkeys(errors)),
            processor=psutil.cpu_percent() / 100,
            cards=before.cards,
        )

    def _waiting(self, errors: list[str]) -> tuple[Watched, ...]:
        found = []
        for root in self.roots:
            try:
                jobs = [job for job in queued_jobs(root) if run_inside(job.run_dir, self._real)]
                found += [Watched(job=job, state="queued", root=root) for job in jobs]
            except bc.UserError as error:
                errors.append(str(error))
        return tuple(found)

    def _marks_now(self) -> dict[Path, int]:
        """Changes when a folder comes or goes at the top of a root, or its queue changes."""
        places = (place for root in self.roots for place in (root, root / FOLDER, root / ".queue"))
        return {place: _changed_at(place) for place in places}


def jobs_watch() -> JobsWatch:
    """The watch over this dashboard's roots."""
    return _watch(tuple(map(str, run_roots())))


@st.cache_resource(max_entries=4, show_spinner=False)
def _watch(roots: tuple[str, ...]) -> JobsWatch:
    return JobsWatch(tuple(map(Path, roots)))


def _read(job: Job) -> Job:
    try:
        return read_job(job.run_dir) or job
    except bc.UserError:  # being damaged now: the next look at everything says so
        return job


def _stamp(run_dir: Path) -> int:
    return _changed_at(RunPaths(run_dir).job)


def _changed_at(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
