"""What state a run is in, judged from its folder alone: the lock, the last event, the manifest.

queued: a job waits to start it. running: a trainer, or the supervisor of its job, holds a lock. done, stopped, failed:
how training says it ended. lost: nobody trains and no end was written (a kill, a power loss). Foreign folders know
neither lock nor end: they are done when their last evaluation is at the last step, else lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import orjson

from bottleneck_core.store.events import Event, parse_line
from bottleneck_core.store.faults import Faults
from bottleneck_core.store.lock import is_busy

if TYPE_CHECKING:
    from pathlib import Path

    from bottleneck_core.store.layout import RunPaths

STATUSES = ("queued", "running", "stopped", "done", "failed", "lost")
_STATUS_OF_REASON = {
    "completed": "done",
    "sigint": "stopped",
    "sigterm": "stopped",
    "max_minutes": "stopped",
    "stopped": "stopped",
    "nonfinite": "failed",
    "error": "failed",
}
_BLOCK_BYTES = 1 << 18
_TAIL_LIMIT = 32 << 20
_HEAD_BYTES = 1 << 20


def status_of(paths: RunPaths) -> str:
    """One of `STATUSES`. Reads the ends of files only."""
    if is_busy(paths.dir):
        return "running"
    job = read_json(paths.job)
    if "queued" in (job.get("status"), job.get("state")):
        return "queued"
    last = next(_last_events(paths.events), {})
    if last.get("type") == "done":
        return _STATUS_OF_REASON.get(str(last.get("reason")), "stopped")
    manifest = read_json(paths.manifest)
    ended = manifest.get("ended")
    if isinstance(ended, dict):  # the only record of a run that writes no events
        return _STATUS_OF_REASON.get(str(ended.get("reason")), "stopped")
    if job.get("status") == "failed" and not manifest:  # before the trainer wrote anything
        return "failed"
    if manifest:
        return "lost"
    return "done" if _foreign_is_complete(paths) else "lost"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a small JSON file; empty when the file is absent, broken or holds something else."""
    try:
        value = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _foreign_is_complete(paths: RunPaths) -> bool:
    steps = _steps_asked(paths)
    if steps is None:
        return False
    at = next((event.get("step") for event in _last_events(paths.events) if event["type"] == "eval"), None)
    if at is None:
        at = _summary(paths)[0]
    return isinstance(at, (int, float)) and at >= steps


def _steps_asked(paths: RunPaths) -> float | None:
    args: Any = None
    try:
        with open(paths.events, "rb") as file:
            head = file.read(_HEAD_BYTES)
        for number, line in enumerate(head.split(b"\n")[:10], 1):
            event = parse_line(line, number, Faults(""))
            if event is not None and event["type"] == "meta":
                args = event.get("args")
                break
    except OSError:
        pass
    if not isinstance(args, dict):
        args = _summary(paths)[1]
    steps = args.get("steps")
    return steps if isinstance(steps, (int, float)) else None


def _summary(paths: RunPaths) -> tuple[int | None, dict[str, Any]]:
    from bottleneck_core.store.summary import read_results, read_summary, read_training_args

    text = read_summary(paths.summary)
    return read_results(text).last_step, read_training_args(text)


def _last_events(path: Path) -> Iterator[Event]:
    """Events from the file's end backwards, of as much of it as a status is worth."""
    try:
        with open(path, "rb") as file:
            start = end = file.seek(0, os.SEEK_END)
            head = b""  # the beginning of what was read, which may be the end of a line
            while start and end - start < _TAIL_LIMIT:
                size = min(_BLOCK_BYTES, start)
                start -= size
                file.seek(start)
                head, *lines = (file.read(size) + head).split(b"\n")
                yield from _events(reversed(lines))
            if not start:
                yield from _events([head])
    except OSError:
        return


def _events(lines: Iterable[bytes]) -> Iterator[Event]:
    for line in lines:
        event = parse_line(line, 0, Faults(""))
        if event is not None:
            yield event
