"""Stopping jobs from the page: each stop goes on in a thread of the server, whatever the page does meanwhile."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import streamlit as st

import bottleneck_core as bc
from bottleneck_core.jobs import LADDER, stop_job


@dataclass(frozen=True, kw_only=True)
class Stop:
    """One stop. `stage` is the signal that was sent last; over when `ended`, in vain when `error` says why."""

    stage: str | None = None
    since: float = field(default_factory=time.monotonic)
    ended: bool = False
    error: str | None = None

    @property
    def words(self) -> str:
        """The stage for readers."""
        if self.error is not None:
            return self.error
        if self.ended:
            return f"all processes are gone after {self.stage}" if self.stage else "it had ended before"
        if self.stage is None:
            return "stopping"
        names = [signum.name for signum, _ in LADDER]
        place = names.index(self.stage)
        waited = time.monotonic() - self.since
        then = f", then {names[place + 1]}" if place + 1 < len(names) else ""
        return f"{self.stage} sent, waiting {waited:.0f} s of {LADDER[place][1]:.0f} s{then}"


class Stops:
    """The stops of this server, by the job's folder."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stops: dict[Path, Stop] = {}

    def begin(self, run_dir: Path) -> None:
        """Start to stop the job; where that goes on already, nothing happens."""
        key = run_dir.absolute()
        with self._lock:
            before = self._stops.get(key)
            if before is not None and not before.ended:
                return
            self._stops[key] = Stop()
        threading.Thread(target=self._run, args=(key,), daemon=True, name=f"stop {key.name}").start()

    def of(self, run_dir: Path) -> Stop | None:
        """The last stop of the job, None where none was asked for."""
        return self._stops.get(run_dir.absolute())

    def forget(self, run_dir: Path) -> None:
        """The job begins anew: what was said of its last end is over."""
        with self._lock:
            self._stops.pop(run_dir.absolute(), None)

    def _run(self, key: Path) -> None:
        try:
            stopped = stop_job(key, on_stage=lambda stage: self._note(key, Stop(stage=stage)))
            self._note(key, Stop(stage=stopped.stage, ended=True))
        except bc.UserError as error:
            self._note(key, Stop(ended=True, error=str(error)))
        except BaseException as error:  # the page must not say for ever that it is stopping
            self._note(key, Stop(ended=True, error=f"{type(error).__name__}: {error}"))
            raise

    def _note(self, key: Path, stop: Stop) -> None:
        with self._lock:
            self._stops[key] = stop


@st.cache_resource(show_spinner=False)
def stops() -> Stops:
    """Shared by all sessions."""
    return Stops()
