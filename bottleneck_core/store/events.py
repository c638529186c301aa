"""The event file of a run: one JSON object a line, written so that a kill costs at most half a line.

An event has a `type`, a `step` and a `wall_time` (ISO 8601 with zone). What is written is strict JSON: a
number that is not finite becomes null, and its key is listed in `nonfinite`. What is read may be anything:
bare NaN and Infinity, garbage lines, a torn end, a file that is cut or replaced while it is followed.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import orjson

from bottleneck_core.store.atomic import atomic_path
from bottleneck_core.store.faults import Faults

if TYPE_CHECKING:
    from bottleneck_core.store.event_log import EventLog

Event = dict[str, Any]
COLD_BYTES = 32 << 20  # above this size a first read goes through duckdb
_READ_BYTES = 16 << 20
_MARK_BYTES = 64


class EventWriter:
    """Appends events to `path`, each by one write() call. Opening cuts off a half line at the end."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115  (closed by close())
        _mend_end(self.path)

    def write(self, type: str, step: int | np.integer, /, **fields: Any) -> None:
        """Write one event. Accepts NumPy scalars and arrays, paths, nested dicts; see the module on NaN."""
        nonfinite: list[str] = []
        event: Event = {"type": type, "step": int(step)}
        event |= {name: _strict(value, name, nonfinite) for name, value in fields.items()}
        if nonfinite:
            event["nonfinite"] = nonfinite
        event["wall_time"] = datetime.now().astimezone().isoformat(timespec="milliseconds")
        line = memoryview(_dumps(event) + b"\n")
        while line:  # a raw write may take less than it was given (a full disk, a signal)
            line = line[self._file.write(line) or 0 :]

    def flush(self) -> None:
        """Make what was written survive a power loss (fsync)."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close; a second call is without effect."""
        if not self._file.closed:
            self.flush()
            self._file.close()

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class EventTail:
    """Follows an event file by byte offset.

    `errors` are sentences about what could not be read. `restarted` is true after a poll that found the file
    cut or replaced: its events are then the file's from the beginning, and earlier ones are void.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.restarted = False
        self._begin()

    @property
    def errors(self) -> list[str]:
        """Sentences, equal faults counted together. A half last line is none: the file may still grow."""
        return self._faults.sentences()

    @property
    def offset(self) -> int:
        """Bytes consumed so far: the start of the first line not yet returned."""
        return self._offset

    @property
    def half_line(self) -> bool:
        """Whether the last poll left an incomplete line at the end of the file."""
        return self._half_line

    def poll(self) -> list[Event]:
        """New whole events since the last call, in file order; an absent file has none."""
        self.restarted = False
        try:
            with open(self.path, "rb") as file:
                if self._was_replaced(file):
                    self._begin()
                    self.restarted = True
                return list(self._read(file))
        except OSError:
            if self._offset:
                self._begin()
                self.restarted = True
            return []

    def skip_to(self, file: BinaryIO, offset: int, lines: int) -> None:
        """Go on from `offset`, which is after `lines` lines, where another reader has read up to there."""
        self._offset, self._line = offset, lines
        self._remember(file)

    def _begin(self) -> None:
        self._offset = 0
        self._line = 0
        self._identity: tuple[int, int] | None = None
        self._mark = b""
        self._half_line = False
        self._faults = Faults(self.path.name)

    def _was_replaced(self, file: BinaryIO) -> bool:
        if not self._offset:
            return False
        status = os.fstat(file.fileno())
        if (status.st_dev, status.st_ino) != self._identity:
            return True
        # Cut, rewritten in place, or replaced by a file that got the old one's inode: the bytes before the offset
        # differ.
        file.seek(self._offset - len(self._mark))
        return file.read(len(self._mark)) != self._mark

    def _remember(self, file: BinaryIO) -> None:
        status = os.fstat(file.fileno())
        self._identity = (status.st_dev, status.st_ino)
        start = max(0, self._offset - _MARK_BYTES)
        file.seek(start)
        self._mark = file.read(self._offset - start)

    def _read(self, file: BinaryIO) -> Iterator[Event]:
        file.seek(self._offset)
        rest, consumed = b"", self._offset
        while block := file.read(_READ_BYTES):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                self._line += 1
                consumed += len(line) + 1
                event = parse_line(line, self._line, self._faults)
                if event is not None:
                    yield event
        self._half_line = False
        if rest.strip():
            # A JSON object without its line end is whole all the same: no prefix of an object is an object.
            event = parse_line(rest, self._line + 1, Faults(self.path.name))
            self._half_line = event is None
            if event is not None:
                parse_line(rest, self._line + 1, self._faults)  # again, to note what is wrong inside it
                consumed += len(rest)
                yield event
        if consumed != self._offset:
            self._offset = consumed
            self._remember(file)


def read_events(path: str | os.PathLike[str], cold_bytes: int = COLD_BYTES) -> EventLog:
    """All events of a file as frames by type, and what is broken as sentences. Content never raises."""
    from bottleneck_core.store.event_log import EventLog

    log = EventLog(path, cold_bytes=cold_bytes)
    log.refresh()
    return log


def drop_after(path: str | os.PathLike[str], step: int, keep_step_types: Collection[str] = ()) -> None:
    """Rewrite the file without what came after the checkpoint of `step`; an absent file is left absent.

    Train steps count from 0, so a checkpoint of `step` has seen train events below it: those at or above it
    go. Of other events those above it go, and those at it unless their type is in `keep_step_types`. So does
    a half last line.
    """
    path = Path(path)
    if not path.exists():
        return
    ignored = Faults(path.name)
    with open(path, "rb") as source, atomic_path(path) as temporary, open(temporary, "wb") as target:
        for number, line in enumerate(source, 1):
            event = parse_line(line, number, ignored)
            whole = line.endswith(b"\n") or event is not None
            if whole and not (event is not None and _is_after(event, step, keep_step_types)):
                target.write(line.rstrip(b"\n") + b"\n")


def parse_line(line: bytes, number: int, faults: Faults) -> Event | None:
    """The event of one line, None for a blank one and for one that is no event, which `faults` then names.

    Numbers that are not finite are read as None.
    """
    if not line or line.isspace():
        return None
    try:
        event = orjson.loads(line)
    except ValueError:
        try:
            event = json.loads(line)  # accepts bare NaN and Infinity, and numbers that overflow
        except (ValueError, RecursionError):
            faults.add("not valid JSON, skipped", number)
            return None
        if isinstance(event, dict):
            nonfinite: list[str] = []
            values = {name: _finite(value, name, nonfinite) for name, value in event.items()}
            for entry in nonfinite:
                faults.add(entry, number)
            event = values
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        faults.add("no event (an object with a type), skipped", number)
        return None
    for name in _names(event.get("nonfinite")):
        faults.add(f"{name} was not finite, recorded as null", number)
    return event


def _names(value: object) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _is_after(event: Event, step: int, keep_step_types: Collection[str]) -> bool:
    at = event.get("step")
    if not isinstance(at, (int, float)):
        return False
    if event["type"] == "train":
        return at >= step
    return at > step or (at == step and event["type"] not in keep_step_types)


def _strict(value: Any, name: str, nonfinite: list[str]) -> Any:
    """`value` as plain JSON types, non-finite numbers as None and their dotted names in `nonfinite`."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        nonfinite.append(name)
        return None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _strict(item, f"{name}.{key}", nonfinite) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item, f"{name}.{index}", nonfinite) for index, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{name}: a value of type {type(value).__name__} has no JSON form")


def _finite(value: Any, name: str, nonfinite: list[str]) -> Any:
    """As read by the json module, with None for numbers that are not finite and a sentence's end for each."""
    if isinstance(value, (int, float)) and not abs(value) <= sys.float_info.max:
        spelled = "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
        nonfinite.append(f"{name} is {spelled}, read as missing")
        return None
    if isinstance(value, dict):
        return {key: _finite(item, f"{name}.{key}", nonfinite) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item, f"{name}.{index}", nonfinite) for index, item in enumerate(value)]
    return value


def _dumps(event: Event) -> bytes:
    try:
        return orjson.dumps(event)
    except (TypeError, ValueError):  # an integer beyond 64 bits, a lone surrogate in a string
        return json.dumps(event, allow_nan=False, separators=(",", ":")).encode("ascii")


def _mend_end(path: Path) -> None:
    """Give a whole last line its line end, cut off a half one."""
    with open(path, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        start, tail = size, b""
        while start and b"\n" not in tail:
            start = max(0, start - _READ_BYTES)
            file.seek(start)
            tail = file.read(size - start)
        half = tail[tail.rfind(b"\n") + 1 :]
        if not half:
            return
        if parse_line(half, 1, Faults(path.name)) is None:
            file.truncate(size - len(half))
        else:
            file.seek(0, os.SEEK_END)
            file.write(b"\n")
