"""The event file: what is written, how it is followed, and what is dropped when a run resumes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bottleneck_core.store.events import EventTail, EventWriter, drop_after, read_events

LINES = [b'{"type":"train","step":%d,"loss":%d.5}\n' % (step, step) for step in range(5)]


def lines_of(path: Path) -> list[Any]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_an_event_has_type_step_fields_and_a_zoned_wall_time(tmp_path: Path) -> None:
    with EventWriter(tmp_path / "train.jsonl") as writer:
        writer.write("train", np.int64(3), loss=np.float32(1.5), on=np.bool_(True), at=Path("a/b"), ids=np.arange(2))
    (event,) = lines_of(tmp_path / "train.jsonl")
    assert list(event) == ["type", "step", "loss", "on", "at", "ids", "wall_time"]
    assert event | {"wall_time": None} == {
        "type": "train",
        "step": 3,
        "loss": 1.5,
        "on": True,
        "at": "a/b",
        "ids": [0, 1],
        "wall_time": None,
    }
    assert datetime.fromisoformat(event["wall_time"]).tzinfo is not None


def test_what_is_not_finite_becomes_null_beside_its_name(tmp_path: Path) -> None:
    with EventWriter(tmp_path / "train.jsonl") as writer:
        writer.write(
            "train", 0, loss=float("nan"), norms={"attn": np.float64("inf"), "ffn": 1.0}, ids=[1.0, float("-inf")]
        )
        writer.write("train", 1, loss=1.0)
    first, second = lines_of(tmp_path / "train.jsonl")
    assert first["loss"] is None
    assert first["norms"] == {"attn": None, "ffn": 1.0}
    assert first["ids"] == [1.0, None]
    assert first["nonfinite"] == ["loss", "norms.attn", "ids.1"]
    assert "nonfinite" not in second


def test_values_beyond_orjson_are_written_and_others_refused(tmp_path: Path) -> None:
    with EventWriter(tmp_path / "train.jsonl") as writer:
        writer.write("meta", 0, big=2**70, odd="\ud800")
        with pytest.raises(TypeError, match=r"x\.y: a value of type set"):
            writer.write("meta", 0, x={"y": {1}})
    (line,) = (tmp_path / "train.jsonl").read_bytes().splitlines()
    assert json.loads(line)["big"] == 2**70


def test_one_write_call_a_line(tmp_path: Path) -> None:
    class Recorder(io.FileIO):
        calls: list[bytes] = []  # noqa: RUF012

        def write(self, data: Any) -> int:
            self.calls.append(bytes(data))
            return super().write(data)

    writer = EventWriter(tmp_path / "train.jsonl")
    writer._file.close()
    writer._file = Recorder(tmp_path / "train.jsonl", "ab")
    writer.write("train", 0, text="x" * 100_000)
    writer.write("train", 1)
    writer.close()
    assert len(Recorder.calls) == 2
    assert all(call.endswith(b"\n") and call.count(b"\n") == 1 for call in Recorder.calls)


def test_a_writer_that_opens_a_torn_file_cuts_the_half_line_off(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    for end, kept in ((b'{"type":"tra', 5), (b'{"type":"train","step":9}', 6), (b"", 5)):
        path.write_bytes(b"".join(LINES) + end)
        with EventWriter(path) as writer:
            writer.write("done", 5, reason="completed")
        assert len(lines_of(path)) == kept + 1
    path.write_bytes(b'{"only half')
    EventWriter(path).close()
    assert path.read_bytes() == b""


def test_the_tail_gives_each_whole_event_once(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    tail = EventTail(path)
    assert tail.poll() == []  # not there yet
    path.write_bytes(LINES[0] + LINES[1][:10])
    assert [event["step"] for event in tail.poll()] == [0]
    assert tail.half_line
    assert tail.poll() == []
    path.write_bytes(LINES[0] + LINES[1] + LINES[2])
    assert [event["step"] for event in tail.poll()] == [1, 2]
    assert not tail.half_line
    assert tail.offset == path.stat().st_size
    assert not tail.restarted
    assert tail.errors == []


def test_the_tail_starts_over_when_the_file_is_cut_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    tail = EventTail(path)

    def replace_by(content: bytes) -> None:
        (tmp_path / "new").write_bytes(content)
        os.replace(tmp_path / "new", path)

    path.write_bytes(b"garbage\n" + b"".join(LINES))
    assert len(tail.poll()) == 5
    assert len(tail.errors) == 1
    path.write_bytes(b"".join(LINES[:2]))  # cut
    assert [event["step"] for event in tail.poll()] == [0, 1]
    assert tail.restarted
    assert tail.errors == []  # those of the old file
    path.write_bytes(b"".join(reversed(LINES)))  # rewritten in place, longer than before
    assert [event["step"] for event in tail.poll()] == [4, 3, 2, 1, 0]
    assert tail.restarted
    replace_by(b"".join(LINES) + LINES[0])
    assert len(tail.poll()) == 6
    replace_by(LINES[1] + b"".join(LINES[1:]) + LINES[0] + LINES[1])  # differs far before the end only
    assert [event["step"] for event in tail.poll()] == [1, 1, 2, 3, 4, 0, 1]
    assert tail.restarted
    assert tail.poll() == []
    assert not tail.restarted
    path.unlink()
    assert tail.poll() == []
    assert tail.restarted


def test_a_whole_event_without_its_line_end_is_taken_at_once_and_once(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    tail = EventTail(path)
    path.write_bytes(LINES[0] + LINES[1].rstrip())
    assert [event["step"] for event in tail.poll()] == [0, 1]
    assert tail.poll() == []
    path.write_bytes(LINES[0] + LINES[1] + b"garbage\n" + LINES[2])
    assert [event["step"] for event in tail.poll()] == [2]
    assert tail.errors == ["train.jsonl line 3: not valid JSON, skipped"]


def test_broken_lines_are_named_and_skipped(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(
        LINES[0]
        + b'{"type":"train","step":1,"loss":NaN,"clip":{"all":-Infinity}}\n'
        + b"\n"
        + b"[1, 2]\n"
        + b'\xff\xfe\x00{"type"\n'
        + b'{"step":7}\n'
        + b"[" * 100_000
        + b"\n"
        + LINES[2]
        + b'{"type":"train","step":3,"loss":null,"nonfinite":["loss"]}\n'
        + b'{"type":"train","step":4,"loss":1e999,"n":1'
        + b"0" * 400
        + b"}\n"
    )
    tail = EventTail(path)
    events = tail.poll()
    assert [event["step"] for event in events] == [0, 1, 2, 3, 4]
    assert events[1]["loss"] is None
    assert events[1]["clip"] == {"all": None}
    assert events[4]["loss"] is None
    assert events[4]["n"] is None
    assert tail.errors == [
        "train.jsonl line 2: clip.all is -Infinity, read as missing",
        "train.jsonl line 2: loss is NaN, read as missing",
        "train.jsonl lines 4 to 6 (2 times): no event (an object with a type), skipped",
        "train.jsonl lines 5 to 7 (2 times): not valid JSON, skipped",
        "train.jsonl line 9: loss was not finite, recorded as null",
        "train.jsonl line 10: loss is Infinity, read as missing",
        "train.jsonl line 10: n is Infinity, read as missing",
    ]


def test_a_file_that_is_broken_in_many_ways_gives_a_short_list(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(f'{{"type":"train","step":{step},"k{step}":NaN}}\n' for step in range(50)))
    assert len(read_events(path).errors) == 13
    assert read_events(path).errors[-1] == "train.jsonl: 38 more kinds of faults"


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Bytes of an event file with some broken lines, and perhaps a half line at its end."""
    value = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=8)
    keys = st.sampled_from(["loss", "tok_s", "näh", "a.b", 'q"'])
    event = st.fixed_dictionaries(
        {"type": st.sampled_from(["train", "eval", "done"]), "step": st.integers(-2, 9) | st.none() | st.just(1.5)},
        optional={"nested": st.lists(value, max_size=2), "nonfinite": st.lists(keys, max_size=2)},
    )
    extra = st.dictionaries(keys, value, max_size=3)
    whole = st.builds(lambda event, extra: json.dumps(event | extra).encode(), event, extra)
    broken = st.sampled_from([b"", b" ", b"nul", b"\xff\x00", b"[1]", b'{"type":"train","st', b'"text"', b"{}"])
    lines = draw(st.lists(st.one_of(whole, whole, whole, broken), max_size=12))
    return b"".join(line + b"\n" for line in lines) + draw(whole)[: draw(st.integers(0, 30))]


@given(streams(), st.lists(st.floats(0, 1), max_size=6))
@settings(max_examples=80, deadline=None)
def test_following_in_portions_is_reading_at_once(stream: bytes, cuts: list[float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, growing = Path(folder, "whole"), Path(folder, "growing")
        whole.write_bytes(stream)
        growing.touch()
        tail, events = EventTail(growing), []
        bounds = [0, *sorted(int(cut * len(stream)) for cut in cuts), len(stream)]
        for start, end in pairwise(bounds):
            with open(growing, "ab") as file:
                file.write(stream[start:end])
            events += tail.poll()
            assert not tail.restarted
        at_once = EventTail(whole)
        assert events == at_once.poll()
        assert [error.removeprefix("growing") for error in tail.errors] == [
            error.removeprefix("whole") for error in at_once.errors
        ]


@given(streams(), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_a_truncated_file_gives_a_prefix(stream: bytes, cut: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, torn = Path(folder, "whole"), Path(folder, "torn")
        whole.write_bytes(stream)
        torn.write_bytes(stream[: int(cut * len(stream))])
        events = EventTail(torn).poll()
        assert events == EventTail(whole).poll()[: len(events)]
        read_events(torn)  # does not raise


_WRITER = """
import sys
from bottleneck_core.store.events import EventWriter
writer = EventWriter(sys.argv[1])
for step in range(10**9):
    writer.write("train", step, loss=1.0 / (step + 1), text="x" * (step % 5000))
    if step == 300:
        print("running", flush=True)
"""


@pytest.mark.parametrize("attempt", range(3))
def test_a_killed_writer_leaves_a_readable_prefix(tmp_path: Path, attempt: int) -> None:
    path = tmp_path / "train.jsonl"
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        live = read_events(path)  # while it writes
        process.send_signal(signal.SIGKILL)
    log = read_events(path)
    steps = log.frames["train"]["step"].tolist()
    assert steps == list(range(len(steps)))
    assert len(steps) >= len(live.frames["train"]) >= 300
    assert log.errors in ([], ["train.jsonl: last line is half-written, ignored"])


def test_drop_after_follows_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    events = [
        ("meta", 0),
        ("eval", 0),
        ("train", 0),
        ("train", 9),
        ("eval", 10),
        ("analysis", 10),
        ("done", 10),
        ("train", 10),
        ("eval", 20),
        ("resume", 10),
    ]
    path.write_text(
        "".join(json.dumps({"type": kind, "step": step}) + "\n" for kind, step in events)
        + 'garbage\n{"type":"note"}\n{"type":"train","st'
    )
    drop_after(path, 10, keep_step_types={"eval", "analysis"})
    content = path.read_text()
    assert content.endswith('garbage\n{"type": "note"}\n') or content.endswith('garbage\n{"type":"note"}\n')
    kept = [json.loads(line) for line in content.splitlines() if line != "garbage"]
    assert [(event["type"], event.get("step")) for event in kept] == [
        ("meta", 0),
        ("eval", 0),
        ("train", 0),
        ("train", 9),
        ("eval", 10),
        ("analysis", 10),
        ("note", None),
    ]
    assert os.listdir(tmp_path) == ["train.jsonl"]


def test_drop_after_keeps_a_whole_last_line_without_its_end(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(LINES[0] + LINES[1].rstrip())
    drop_after(path, 5)
    assert path.read_bytes() == LINES[0] + LINES[1]
    drop_after(tmp_path / "absent.jsonl", 5)
    assert not (tmp_path / "absent.jsonl").exists()
