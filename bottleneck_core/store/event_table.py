"""Events of one type as columns that grow at the end, so that following a long run copies nothing.

A column is float64 with NaN for what is missing, as long as it holds numbers; one that holds anything else is
an object column with None for what is missing and floats for its numbers. So the result depends on the events
alone, not on the portions in which they came. The last events of a short file become a column when it is asked
for: a row of the table of runs asks for three of the seventeen that training writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

_MOST_EVENTS = 500  # that wait to become columns: as objects they take ten times the memory
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

    def __len__(self) -> int:
        return self._size

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
    """All events of one type. `extend` and `load` add rows; `frame` shows them without copying.

    Train, eval and analysis rows are shown sorted by step; of several with one step the last in the file stays, and
    those without a whole step are left out. Other events are shown as they are in the file.
    """

    def __init__(self, type: str, expected: int = 0) -> None:
        """`expected` rows find room without copying, also when more come later."""
        self.type = type
        self.rows = 0
        self._expected = expected
        self._columns: dict[str, Column] = {}  # of keys with a value; `_column` brings one up to the last row
        self._events: list[dict[str, Any]] = []  # the last rows, which not all columns have yet
        self._regular = 0  # that many rows from the first on have whole, rising steps
        self._order: tuple[int, np.ndarray | None] = (0, None)  # for that many rows
        self._clock = Column(expected)  # wall_time in seconds since 1970

    def extend(self, events: Sequence[dict[str, Any]]) -> None:
        """Add events in file order. A key without any value makes no column."""
        self._events += events
        self.rows += len(events)
        if len(self._events) > _MOST_EVENTS:
            self._fill()

    def load(self, columns: dict[str, np.ndarray], rows: int, clock: np.ndarray | None = None) -> None:
        """Add `rows` rows given as columns: float64 with NaN, or object with None; `clock` where it is known."""
        self._fill()
        if clock is not None and len(self.clock) == self.rows:
            self._clock.append(clock)
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

    def shared(self) -> EventTable:
        """The same rows in the same memory; what either of the two adds later the other does not see."""
        other = copy(self)
        other._columns = {name: column.shared() for name, column in self._columns.items()}
        other._events = [*self._events]
        other._clock = self._clock.shared()
        return other

    def has(self, name: str) -> bool:
        """Whether any event has a value of that key."""
        return self._column(name) is not None

    @property
    def clock(self) -> np.ndarray:
        """Seconds since 1970 by row in file order; NaN where wall_time is absent or unreadable."""
        wall_times = self._column("wall_time")
        parsed = len(self._clock.values)
        if wall_times is None:
            self._clock.pad(self.rows)
        elif parsed < self.rows:  # each one is read once, when it is asked for
            self._clock.append(_seconds(wall_times.values[parsed:].tolist()))
        return self._clock.values

    @property
    def steps(self) -> np.ndarray:
        """The step of each row that is shown; int64 where all of them are whole."""
        steps = self.shown(self._steps())
        if self.type in _CURVES or (self.rows and np.isfinite(steps).all() and (steps == np.floor(steps)).all()):
            return steps.astype(np.int64)
        return steps

    def numbers(self, name: str) -> np.ndarray:
        """A column of the rows shown as float64, NaN where it is absent or holds something else than a number."""
        return self.shown(self._numbers(name))

    def shown(self, values: np.ndarray) -> np.ndarray:
        """Of values by row in file order those of the rows shown, in their order."""
        if self.type not in _CURVES:
            return values
        if self._order[0] != self.rows:
            self._order = self.rows, _order(steps) if not self._is_regular(steps := self._steps()) else None
        order = self._order[1]
        return values if order is None else values[order]

    def frame(self, time_s: np.ndarray | None = None) -> pd.DataFrame:
        """The rows shown, with `step` as int64 and, where given by row in file order, `time_s`."""
        import pandas as pd

        self._fill()
        cells = {name: self._columns[name].values for name in sorted(self._columns) if name != "step"}
        if time_s is not None:
            cells["time_s"] = time_s
        cells = {"step": self.steps} | {name: self.shown(values) for name, values in cells.items()}
        return pd.DataFrame(
            {name: pd.Series(values, dtype=values.dtype, copy=False) for name, values in cells.items()},
            copy=False,
        )

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
        if self._events:
            cells = {name: _object_cell(value) for name, value in self._events[-1].items() if name != "type"}
        else:
            cells = {name: column.values[-1:].tolist()[0] for name, column in self._columns.items()}
        return {
            name: int(value) if isinstance(value, float) and value.is_integer() else value
            for name, value in cells.items()
            if value is not None and value == value
        }

    def faults(self) -> list[str]:
        """Sentences about error events, steps that occur twice and events without a step."""
        if self.type not in _CURVES:
            return []
        found = []
        errors = self._column("error")
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

    def _column(self, name: str) -> Column | None:
        """The column of a key up to the last row; None where no event has a value of it."""
        column, loaded = self._columns.get(name), self.rows - len(self._events)
        behind = self._events if column is None else self._events[len(column) - loaded :]
        values = [event.get(name) for event in behind]
        if column is None:
            if values.count(None) == len(values):
                return None
            column = self._columns[name] = Column(self._expected)
            column.pad(loaded)
        if values:
            column.append(values)
        return column

    def _fill(self) -> None:
        """Bring all columns up to the last row."""
        if self._events:
            for name in set(self._columns).union(*self._events) - {"type"}:
                self._column(name)
            self._events = []

    def _numbers(self, name: str) -> np.ndarray:
        """By row in file order."""
        column = self._column(name)
        if column is None:
            return np.full(self.rows, np.nan)
        if not column.is_object:
            return column.values
        return np.array([cell if isinstance(cell, float) else np.nan for cell in column.values.tolist()], float)

    def _steps(self) -> np.ndarray:
        return self._numbers("step")

    def _is_regular(self, steps: np.ndarray) -> bool:
        """Whether all steps are whole and rise. Rows that were found regular are not looked at again."""
        if self._regular < len(steps):
            new = steps[max(0, self._regular - 1) :]
            if _is_whole(new).all() and _is_rising(new):
                self._regular = len(steps)
        return self._regular == len(steps)


def _order(steps: np.ndarray) -> np.ndarray:
    """Rows to show, in order."""
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
