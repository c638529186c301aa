"""The table of all runs as the server knows it: read as it is asked for, and behind its readers where that takes long.

A few hundred folders are looked at anew with each call. Thousands take a tenth of a second or more: then callers get
what is known and a thread looks again, so that a filter answers at once. Folders that were never read come in portions.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import streamlit as st

from bottleneck_core import sizing
from bottleneck_core.errors import UserError
from dashboard.confined import real_roots, run_inside

Row = dict[str, Any]

_QUICK = 0.06  # a look that takes no longer is repeated with each call
_REST = 10  # times what a look takes, until the next
# Seconds of reading new folders: the reader waits for the first portion, the others come behind.
_FIRST_PORTION, _PORTION = 0.8, 3.0
_versions = itertools.count()


class RunIndex:
    """Rows of the runs below some roots, without those that links lead out of them for.

    `unread` runs are still to be read. `version` changes with what the runs are: which there are and how they were
    set up, not how far they have come.
    """

    def __init__(self, roots: tuple[Path, ...]) -> None:
        self._roots = roots
        self._lock = threading.RLock()
        self._rows: list[Row] = []
        self._began = self._looked = self._took = 0.0
        self._fresh = False
        self._looking = False
        self.unread = 0
        self.version = -1

    def rows(self, named: Collection[str] = ()) -> list[Row]:
        """All rows, sorted by id; while many are unread, those of the ids in `named` for certain.

        Shared with others: not to be changed.
        """
        with self._lock:
            if not self._fresh or (self._took < _QUICK and not self.unread):
                self._look(first=named)
            if self.unread and not set(named) <= {row["id"] for row in self._rows}:
                self._look(first=named)
            rested = time.monotonic() - self._looked > _REST * self._took
            if not self._looking and (self.unread or rested):
                self._looking = True
                threading.Thread(target=self._look_behind, daemon=True, name="run index").start()
            return self._rows

    def look_again(self) -> None:
        """The next call looks before it answers: something was changed here."""
        self._fresh = False

    def _look(self, seconds: float | None = None, first: Collection[str] = ()) -> None:
        self._fresh = True  # before the look: a change during it asks for another
        start = time.monotonic()
        # A root may vanish between the question and the look.
        roots = [root for root in self._roots if root.is_dir()]
        try:
            rows, unread = sizing.look(roots, _FIRST_PORTION if seconds is None else seconds, first)
        except UserError:
            rows, unread = [], 0
        real = real_roots(roots)
        rows = [row for row in rows if run_inside(row["path"], real)]
        end = time.monotonic()
        with self._lock:
            if start < self._began:  # a later look was quicker
                return
            self._began = start
            if self.version < 0 or not _same_runs(rows, self._rows):
                self.version = next(_versions)
            self._rows = rows
            self.unread, self._looked, self._took = unread, end, end - start

    def _look_behind(self) -> None:
        try:
            self._look()
            while self.unread:
                self._look(_PORTION)
        finally:
            self._looking = False


def _same_runs(rows: list[Row], before: list[Row]) -> bool:
    return len(rows) == len(before) and all(
        a is b or (a["path"] == b["path"] and a["config"] == b["config"]) for a, b in zip(rows, before, strict=True)
    )


@st.cache_resource(show_spinner=False, max_entries=8)
def run_index(roots: tuple[Path, ...]) -> RunIndex:
    """The one that all sessions share."""
    return RunIndex(roots)
