"""All events of one file as pandas frames by type, kept up to date at the cost of what is new."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from copy import copy, deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bottleneck_core.store import cold_scan
from bottleneck_core.store.cold_scan import ColdScan
from bottleneck_core.store.event_table import EventTable
from bottleneck_core.store.events import COLD_BYTES, EventTail

if TYPE_CHECKING:
    import pandas as pd


class _FirstReading:
    """What a cold scan read, and where to read on."""

    def __init__(self, result: ColdScan) -> None:
        self.tables, self.faults = result.tables, result.faults.sentences()
        self.tail = EventTail(result.path)
        with open(result.path, "rb") as file:
            self.tail.skip_to(file, result.offset, result.lines)
            self._stamp = os.fstat(file.fileno())

    def is_of(self, status: os.stat_result) -> bool:
        """Whether a file may still begin with what was read; the tail sees whether it really does."""
        before = self._stamp
        return status.st_size > before.st_size or (status.st_size, status.st_mtime_ns) == (
            before.st_size,
            before.st_mtime_ns,
        )

    def shared(self) -> _FirstReading:
        """The same for another reader: memory is shared until either of them reads on."""
        other = copy(self)
        other.tables = {kind: table.shared() for kind, table in self.tables.items()}
        other.tail = deepcopy(self.tail)
        return other


# The last one, for the next reader of the same file: the table of runs reads a run just before its page does.
_first_readings: dict[str, _FirstReading] = {}


class EventLog:
    """Events of `path`. `refresh` reads what is new; `frames` and `errors` describe what was read.

    Train, eval and analysis frames have `step` (int64, rising), the events' keys (numbers as float64, other
    values as object) and `time_s`: seconds since the first event, the time between a stop and the resumption
    taken out.
    """

    def __init__(self, path: str | os.PathLike[str], cold_bytes: int = COLD_BYTES) -> None:
        self.path = Path(path)
        self._cold_bytes = cold_bytes
        self._tail = EventTail(self.path)
        self._tables: dict[str, EventTable] = {}
        self._frames: dict[str, pd.DataFrame] = {}
        self._cold_faults: list[str] = []

    def refresh(self) -> bool:
        """Read what was written since the last call, all of a replaced file; whether anything changed."""
        changed = not self._tail.offset and self._size() > self._cold_bytes and self._scan()
        events = self._tail.poll()
        if self._tail.restarted:
            self._tables = {}
            self._cold_faults = []
        by_type = defaultdict(list)
        for event in events:
            by_type[event["type"]].append(event)
        for kind, portion in by_type.items():
            self._table(kind).extend(portion)
        changed |= bool(events) or self._tail.restarted
        if changed:
            self._frames = {}
        return changed

    @property
    def types(self) -> list[str]:
        """Types of events that occur."""
        return list(self._tables)

    def last_step(self, kinds: Iterable[str]) -> int | None:
        """The highest step among events of these types."""
        tables = [self._tables[kind] for kind in kinds if kind in self._tables]
        return max((table.last_step for table in tables if table.last_step is not None), default=None)

    @property
    def frames(self) -> dict[str, pd.DataFrame]:
        """One frame for each type that occurs."""
        return {kind: self.frame(kind) for kind in self._tables}

    def frame(self, kind: str) -> pd.DataFrame:
        """The frame of one type, empty where it does not occur. Changing it leaves the log as it is."""
        if kind not in self._frames:
            table = self._tables.get(kind)
            if table is None:
                return EventTable(kind).frame()
            self._frames[kind] = table.frame(self._time_s(table.clock))
        # Shares memory until it is written to: pandas then copies what is written.
        return self._frames[kind].copy(deep=False)

    def has(self, kind: str, name: str) -> bool:
        """Whether the frame of one type has a column."""
        table = self._tables.get(kind)
        return table is not None and (name in ("step", "time_s") or table.has(name))

    def steps(self, kind: str) -> np.ndarray:
        """The frame's column `step`, without making the frame."""
        return self._tables.get(kind, EventTable(kind)).steps

    def numbers(self, kind: str, name: str) -> np.ndarray:
        """A column of the frame as float64, NaN for what is no number, without making the frame."""
        table = self._tables.get(kind, EventTable(kind))
        if name == "time_s" and table.rows:
            return table.shown(self._time_s(table.clock))
        return table.numbers(name)

    def last(self, kind: str) -> dict[str, Any]:
        """The last event of a type without missing values, whole numbers as int; empty without any."""
        table = self._tables.get(kind)
        return table.last_row() if table is not None else {}

    @property
    def errors(self) -> list[str]:
        """Sentences about what is broken, equal faults counted together."""
        if not self.path.is_file():
            return [f"{self.path.name} is missing"]
        found = self._cold_faults + self._tail.errors
        found += [f"{self.path.name}: {fault}" for table in self._tables.values() for fault in table.faults()]
        if self._tail.half_line:
            found.append(f"{self.path.name}: last line is half-written, ignored")
        if not found and not self._tables:
            found.append(f"{self.path.name} is empty")
        return found

    def _table(self, kind: str) -> EventTable:
        return self._tables.setdefault(kind, EventTable(kind))

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def _scan(self) -> bool:
        path = os.path.realpath(self.path)
        first = _first_readings.pop(path, None)
        if first is None or not first.is_of(os.stat(path)):
            result = cold_scan.scan(self.path)
            if result is None:
                return False
            first = _FirstReading(result)
            _first_readings.clear()
            _first_readings[path] = first.shared()
        # Whether the file was replaced since is seen by the tail when it is read on.
        self._tail, self._tables, self._cold_faults = first.tail, first.tables, first.faults
        return bool(first.tables)

    def _time_s(self, clock: np.ndarray) -> np.ndarray:
        """Seconds of training at each moment of `clock` (seconds since 1970)."""
        clocks = [table.clock for table in self._tables.values()]
        firsts = [float(times[first]) for times in clocks if (first := _first_known(times)) is not None]
        if not firsts:
            return np.full(len(clock), np.nan)
        seconds = clock - min(firsts)
        if "resume" in self._tables:
            for resumed in self._tables["resume"].clock:
                before = [earlier.max() for times in clocks if len(earlier := times[times < resumed])]
                if before:
                    seconds = seconds - np.where(clock >= resumed, resumed - max(before), 0.0)
        return seconds


def _first_known(times: np.ndarray) -> int | None:
    """The row of the first time, which as a rule is the first row."""
    if len(times) and np.isfinite(times[0]):
        return 0
    known = np.flatnonzero(np.isfinite(times))
    return int(known[0]) if len(known) else None
