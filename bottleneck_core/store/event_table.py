"""Events of one type as columns that grow at the end, so that following a long run copies nothing.

A column is float64 with NaN for what is missing, as long as it holds numbers; one that holds anything else is
an object column with None for what is missing and floats for its numbers. So the result depends on the events
alone, not on the portions in which they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

_NUMBERS = frozenset({int, float, type(None)})  # what JSON readers give; bool is none of them
_CURVES = frozenset({"train", "eval", "analysis"})  # sorted by step, one row a step


class Column:
    """Values of one key, in a buffer with room for `expected` ones that doubles when it is full."""

    def __init__(self, expected: int = 0) -> None:
        self._buffer = np.empty(max(expected, 16))
        self._size = 0

    @property
    def values(self) -> np.ndarray:
        """A view of what is there; later growth does not change it."""
        return self._buffer[: self._size]

    @property
    def is_object(self) -> bool:
        return self._buffer.dtype == object

    def append(self, values: Sequence[Any] | np.ndarray) -> None:
        """Add cells: None or NaN for missing ones in a float column, None in an object column."""
        if not self.is_object and not _all_numbers(values):
            self._become_object()
        if self.is_object and _are_texts(values):
            start = self._grow(len(values))
            self._buffer[start : self._size] = values
            return
        cells: Any = [_object_cell(value) for value in values] if self.is_object else values
        start = self._grow(len(values))
        if self.is_object:
            for index, cell in enumerate(cells, start):  # one by one: NumPy would unpack lists
                self._buffer[index] = cell
        elif len(values):
            self._buffer[start : self._size] = np.asarray(cells, dtype=float)

    def pad(self, size: int) -> None:
        """Fill up with missing cells to `size`."""
        if size > self._size:
            start = self._grow(size - self._size)
            self._buffer[start:size] = None if self.is_object else np.nan

    def shared(self) -> Column:
        """The same values in the same memory, which either of the two leaves when it grows."""
        other = copy(self)
        other._buffer = self.values
        return other

    def _grow(self, count: int) -> int:
        start, self._size = self._size, self._size + count
        if self._size > len(self._buffer):
            larger = np.empty(max(self._size, 2 * len(self._buffer)), self._buffer.dtype)
            larger[:start] = self._buffer[:start]
            self._buffer = larger
        return start

    def _become_object(self) -> None:
        numbers = self._buffer
        self._buffer = np.empty(len(numbers), object)
        for index, number in enumerate(numbers[: self._size].tolist()):
            self._buffer[index] = None if number != number else number


class EventTable:
    """All events of one type. `extend` and `load` add rows; `frame` shows them without copying."""

    def __init__(self, type: str, expected: int = 0) -> None:
        """`expected` rows find room without copying, also when more come later."""
        self.type = type
        self.rows = 0
        self._expected = expected
        self._columns: dict[str, Column] = {}
        self._regular = 0  # that many rows from the first on have whole, rising steps
        self._clock = Column(expected)  # wall_time in seconds since 1970

    def extend(self, events: Sequence[dict[str, Any]]) -> None:
        """Add events in file order. A key without any value makes no column."""
        keys = set[str]().union(*events) - {"type"}
        self._add({key: [event.get(key) for event in events] for key in keys}, len(events))

    def load(self, columns: dict[str, np.ndarray], rows: int, clock: np.ndarray | None = None) -> None:
        """Add `rows` rows given as columns: float64 with NaN, or object with None; `clock` where it is known."""
        if clock is not None and len(self.clock) == self.rows:
            self._clock.append(clock)
        self._add(columns, rows)

    def shared(self) -> EventTable:
        """The same rows in the same memory; what either of the two adds later the other does not see."""
        other = copy(self)
        other._columns = {name: column.shared() for name, column in self._columns.items()}
        other._clock = self._clock.shared()
        return other

    @property
    def clock(self) -> np.ndarray:
        """Seconds since 1970 by row in file order; NaN where wall_time is absent or unreadable."""
        wall_times = self._columns.get("wall_time")
        parsed = len(self._clock.values)
        if wall_times is None:
            self._clock.pad(self.rows)
        elif parsed < self.rows:  # each one is read once, when it is asked for
            self._clock.append(_seconds(wall_times.values[parsed:].tolist()))
        return self._clock.values

    def frame(self, time_s: np.ndarray | None = None) -> pd.DataFrame:
        """Rows as a frame with `step` as int64 and, where given for the rows in file order, `time_s`.

        Train, eval and analysis are sorted by step; of several rows with one step the last in the file stays,
        and rows without a whole step are left out.
        """
        cells = {"step": self._steps()}
        cells |= {name: self._columns[name].values for name in sorted(self._columns) if name != "step"}
        if time_s is not None:
            cells["time_s"] = time_s
        frame = pd.DataFrame(
            {name: pd.Series(values, dtype=values.dtype, copy=False) for name, values in cells.items()},
            copy=False,
        )
        steps = cells["step"]
        if self.type in _CURVES:
            order = self._order(steps)
            if order is not None:
                frame = frame.iloc[order].reset_index(drop=True)
            frame["step"] = frame["step"].astype(np.int64)
        elif self.rows and np.isfinite(steps).all() and (steps == np.floor(steps)).all():
            frame["step"] = frame["step"].astype(np.int64)
        return frame

    @property
    def last_step(self) -> int | None:
        """The highest whole step."""
        steps = self._steps()
        if self._is_regular(steps):
            return int(steps[-1]) if len(steps) else None
        whole = steps[_is_whole(steps)]
        return int(whole.max()) if len(whole) else None

    def last_row(self) -> dict[str, Any]:
        """The last event without missing values, whole numbers as int; empty where there is none."""
        cells = {name: column.values[-1:].tolist() for name, column in self._columns.items()}
        present = {name: cell[0] for name, cell in cells.items() if cell and cell[0] is not None}
        return {
            name: int(value) if isinstance(value, float) and value.is_integer() else value
            for name, value in present.items()
            if value == value
        }

    def faults(self) -> list[str]:
        """Sentences about error events, steps that occur twice and events without a step."""
        if self.type not in _CURVES:
            return []
        found = []
        errors = self._columns.get("error")
        if errors is not None:
            texts = [text for text in errors.values.tolist() if text is not None and text == text]
            found.append(f"{len(texts)} of {self.rows} {self.type} events are errors; the first: {texts[0]}")
        steps = self._steps()
        if self._is_regular(steps):
            return found
        whole = steps[_is_whole(steps)]
        if len(whole) < len(steps):
            count = len(steps) - len(whole)
            found.append(f"{count} {self.type} event{'s have' if count > 1 else ' has'} no whole step, left out")
        if not _is_rising(whole):
            values, counts = np.unique(whole, return_counts=True)
            twice = values[counts > 1]
            if len(twice):
                which = f"step {twice[0]:.0f}" if len(twice) == 1 else f"{len(twice)} steps from {twice[0]:.0f} on"
                found.append(f"{self.type} events repeat {which}, the later ones are used")
        return found

    def _add(self, columns: dict[str, Any], rows: int) -> None:
        for name, values in columns.items():
            if name not in self._columns:
                if _all_missing(values):
                    continue
                self._columns[name] = Column(self._expected)
                self._columns[name].pad(self.rows)
            self._columns[name].append(values)
        self.rows += rows
        for column in self._columns.values():
            column.pad(self.rows)

    def _steps(self) -> np.ndarray:
        column = self._columns.get("step")
        if column is None:
            return np.full(self.rows, np.nan)
        if not column.is_object:
            return column.values
        return np.array([cell if isinstance(cell, float) else np.nan for cell in column.values.tolist()])

    def _is_regular(self, steps: np.ndarray) -> bool:
        """Whether all steps are whole and rise. Rows that were found regular are not looked at again."""
        new = steps[max(0, self._regular - 1) :]
        if _is_whole(new).all() and _is_rising(new):
            self._regular = len(steps)
        return self._regular == len(steps)

    def _order(self, steps: np.ndarray) -> np.ndarray | None:
        """Rows to show, in order; None when that is all of them as they are."""
        if self._is_regular(steps):
            return None
        rows = np.flatnonzero(_is_whole(steps))
        rows = rows[np.argsort(steps[rows], kind="stable")]
        sorted_steps = steps[rows]
        last = np.ones(len(rows), bool)
        last[:-1] = sorted_steps[:-1] != sorted_steps[1:]
        return rows[last]


def _is_whole(steps: np.ndarray) -> np.ndarray:
    return (steps == np.floor(steps)) & (np.abs(steps) < 2**53)


def _is_rising(steps: np.ndarray) -> bool:
    return bool((np.diff(steps) > 0).all())


def _all_numbers(values: Sequence[Any] | np.ndarray) -> bool:
    if isinstance(values, np.ndarray) and values.dtype != object:
        return True
    return _NUMBERS.issuperset(map(type, values))


def _are_texts(values: Sequence[Any] | np.ndarray) -> bool:
    """Whether these are cells of an object column as they are, in an array that NumPy copies as it is."""
    return isinstance(values, np.ndarray) and values.dtype == object and {str, type(None)}.issuperset(map(type, values))


def _object_cell(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return None if value != value else float(value)
    return value


def _all_missing(values: Sequence[Any] | np.ndarray) -> bool:
    if isinstance(values, np.ndarray):
        return bool(np.isnan(values).all()) if values.dtype != object else all(value is None for value in values)
    return all(value is None for value in values)


def _seconds(wall_times: list[Any]) -> list[float]:
    try:
        return [datetime.fromisoformat(text).timestamp() for text in wall_times]
    except (TypeError, ValueError, OverflowError, OSError):
        return [_second(wall_time) for wall_time in wall_times]


def _second(wall_time: Any) -> float:
    if isinstance(wall_time, float):
        return wall_time
    try:
        return datetime.fromisoformat(wall_time).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return np.nan
