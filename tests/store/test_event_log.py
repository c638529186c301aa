"""Events as frames: the same result however the events arrive, and by whichever way they are read."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from foreign_folders import clock
from hypothesis import given, settings
from hypothesis import strategies as st

from bottleneck_core.store import cold_scan
from bottleneck_core.store.event_log import EventLog
from bottleneck_core.store.events import EventWriter, drop_after, read_events

LINE_BY_LINE = 1 << 60


def write(path: Path, *events: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")


def train(step: int, **fields: Any) -> dict[str, Any]:
    return {"type": "train", "step": step, **fields}


def assert_equal(one: EventLog, other: EventLog) -> None:
    assert sorted(one.types) == sorted(other.types)
    for kind in one.types:
        pd.testing.assert_frame_equal(one.frame(kind), other.frame(kind), check_exact=True)
    assert sorted(one.errors) == sorted(other.errors)


def test_frames_by_type_with_whole_steps_and_float_columns(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    write(
        path,
        {"type": "meta", "step": 0, "args": {"steps": 2, "deep": [1, None]}},
        train(0, loss=3, mfu=None, note="a"),
        train(1, loss=2.5, late=7),
    )
    log = read_events(path)
    frame = log.frames["train"]
    assert dict(frame.dtypes.astype(str)) == {
        "step": "int64",
        "late": "float64",  # a key that comes up late is not lost
        "loss": "float64",
        "note": "object",
        "time_s": "float64",
    }  # and one that never has a value (mfu) is no column
    assert frame["late"].tolist()[1] == 7.0
    assert np.isnan(frame["late"][0])
    assert frame["note"].tolist() == ["a", None]
    assert log.last("meta") == {"step": 0, "args": {"steps": 2, "deep": [1, None]}}
    assert log.last("absent") == {}
    assert list(log.frame("absent").columns) == ["step"]
    assert log.errors == []


def test_writing_to_a_frame_leaves_the_log_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    write(path, train(0, loss=1.0), train(1, loss=2.0))
    log = read_events(path)
    frame = log.frame("train")
    frame.loc[0, "loss"] = 99.0
    frame["extra"] = 1
    assert log.frame("train")["loss"].tolist() == [1.0, 2.0]
    with open(path, "a") as file:
        file.write(json.dumps(train(2, loss=3.0)) + "\n")
    assert log.refresh()
    assert not log.refresh()
    assert log.frame("train")["loss"].tolist() == [1.0, 2.0, 3.0]
    assert frame["loss"].tolist() == [99.0, 2.0]


def test_rows_are_sorted_and_the_later_of_two_equal_steps_wins(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    write(path, *[train(step, loss=float(order)) for order, step in enumerate([0, 1, 2, 3, 2, 3, 4])], train(2))
    write_again = read_events(path)
    frame = write_again.frames["train"]
    assert frame["step"].tolist() == [0, 1, 2, 3, 4]
    assert frame["loss"].fillna(-1).tolist() == [0.0, 1.0, -1.0, 5.0, 6.0]
    assert write_again.errors == ["train.jsonl: train events repeat 2 steps from 2 on, the later ones are used"]


def test_events_without_a_whole_step_are_left_out_and_named(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    write(path, train(0, loss=1.0), {"type": "train", "loss": 2.0}, train(1) | {"step": 1.5}, train(1) | {"step": "x"})
    log = read_events(path)
    assert log.frames["train"]["step"].tolist() == [0]
    assert log.errors == ["train.jsonl: 3 train events have no whole step, left out"]


def test_error_events_are_counted_and_the_first_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    write(path, *[{"type": "analysis", "step": step, "error": f"bad {step}"} for step in (5, 6)], train(0))
    write_partly = {"type": "analysis", "step": 7, "attn_entropy_mean": 1.0}
    assert read_events(path).errors == ["train.jsonl: 2 of 2 analysis events are errors; the first: bad 5"]
    with open(path, "a") as file:
        file.write(json.dumps(write_partly) + "\n")
    assert read_events(path).errors == ["train.jsonl: 2 of 3 analysis events are errors; the first: bad 5"]


def test_a_torn_last_line_makes_no_row_and_an_unterminated_one_does(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    for cold_bytes in (LINE_BY_LINE, 0):
        write(path, train(0, loss=1.0), train(1, loss=2.0))
        path.write_bytes(path.read_bytes()[:-6])
        log = read_events(path, cold_bytes)
        assert log.frames["train"]["step"].tolist() == [0]
        assert log.errors == ["train.jsonl: last line is half-written, ignored"]
        write(path, train(0, loss=1.0), train(1, loss=2.0))
        path.write_bytes(path.read_bytes()[:-1])
        log = read_events(path, cold_bytes)
        assert log.frames["train"]["step"].tolist() == [0, 1]
        assert log.errors == []


def test_absent_empty_and_binary_files(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    assert read_events(path).errors == ["train.jsonl is missing"]
    path.touch()
    assert read_events(path).errors == ["train.jsonl is empty"]
    path.write_bytes(np.random.default_rng(0).bytes(50_000))
    for cold_bytes in (LINE_BY_LINE, 0):
        log = read_events(path, cold_bytes)
        assert log.frames == {}
        assert len(log.errors) == 2  # the lines, and the half one at the end
        assert "not valid JSON, skipped" in log.errors[0]


def test_time_runs_from_the_first_event_without_the_gaps_of_resumptions(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    write(
        path,
        {"type": "meta", "step": 0, "wall_time": clock(0)},
        train(0, wall_time=clock(2)),
        {"type": "eval", "step": 1, "wall_time": clock(3)},
        {"type": "resume", "step": 1, "wall_time": clock(103)},
        train(1, wall_time=clock(105)),
        {"type": "resume", "step": 2, "wall_time": clock(205.5)},
        train(2, wall_time=clock(206)),
        train(3, wall_time="yesterday"),
    )
    for cold_bytes in (LINE_BY_LINE, 0):
        log = read_events(path, cold_bytes)
        assert log.frames["train"]["time_s"].tolist()[:3] == pytest.approx([2, 5, 5.5])
        assert np.isnan(log.frames["train"]["time_s"][3])
        assert log.frames["eval"]["time_s"].tolist() == pytest.approx([3])


def test_a_resumption_shows_no_dropped_event(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    with EventWriter(path) as writer:
        for step in range(8):
            writer.write("train", step, loss=float(step))
    log = read_events(path)
    drop_after(path, 5)
    with EventWriter(path) as writer:
        writer.write("resume", 5)
        writer.write("train", 5, loss=50.0)
    assert log.refresh()
    assert log.frame("train")["loss"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 50.0]
    assert log.errors == []


VALUE = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats()
    | st.sampled_from(["1.5", "null", "NaN", 'a":1', "näh", "[1]", ""])
    | st.lists(st.integers(0, 3) | st.none(), max_size=2)
    | st.dictionaries(st.sampled_from(["x", "y"]), st.booleans() | st.integers() | st.none(), max_size=2)
)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Event files: half of them regular but for broken lines and NaN, as logs are; half of them with anything."""
    odd = draw(st.booleans())
    numbers = st.dictionaries(st.sampled_from(["loss", "tok_s", "näh"]), st.floats() | st.none() | st.integers())
    oddities = st.dictionaries(
        st.sampled_from(["loss", "Loss", "note", "error", "nonfinite", "wall_time"]), VALUE, max_size=3 * odd
    )
    kind = st.sampled_from(["train", "train", "eval", "meta"])
    step = st.integers(0, 6) | st.none() | st.floats(0, 9)
    separators = st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")][: 2 + odd])
    line = st.builds(
        lambda kind, step, some, more, separators: json.dumps(
            {"type": kind, "step": step} | some | more, separators=separators
        ),
        *(kind, step, numbers, oddities, separators),
    )
    broken = st.sampled_from(
        ["nul", "[1]", '{"type":"train","lo', '{"a":1}', "\x00\x00", "", "  ", '{"type":5}'][: 5 + 3 * odd]
    )
    repeated = st.just('{"type":"train","step":1,"loss":1,"loss":2}')
    lines = draw(st.lists(st.one_of(line, line, line, broken, repeated if odd else line), min_size=1, max_size=10))
    return "".join(text + "\n" for text in lines).encode() + draw(line).encode()[: draw(st.integers(0, 40))]


@given(files())
@settings(max_examples=60, deadline=None)
def test_the_cold_scan_equals_reading_line_by_line(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.jsonl")
        path.write_bytes(content)
        assert_equal(read_events(path, cold_bytes=0), read_events(path, LINE_BY_LINE))


@given(files(), st.integers(0, 400))
@settings(max_examples=50, deadline=None)
def test_frames_do_not_depend_on_the_portions(content: bytes, cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, whole = Path(folder, "train.jsonl"), Path(folder, "whole", "train.jsonl")
        path.write_bytes(content[:cut])
        log = read_events(path)
        with open(path, "ab") as file:
            file.write(content[cut:])
        log.refresh()
        whole.parent.mkdir()
        whole.write_bytes(content)
        assert_equal(log, read_events(whole))


def regular_log(path: Path, rows: int, hidden: dict[str, Any] | None = None) -> None:
    """A log as training writes it, with broken lines, NaN, a key that comes late, and one odd event in the middle."""
    random = np.random.default_rng(1)
    with open(path, "wb") as file:
        file.write(orjson.dumps({"type": "meta", "step": 0, "args": {"a": None, "b": True}}) + b"\n")
        for step in range(rows):
            event = train(step, loss=random.normal(), tokens=16384 * step, mfu=None, wall_time=clock(step % 900))
            if step > rows // 2:
                event["late"] = random.normal()
            if step == rows // 3 and hidden:
                event |= hidden
            line = orjson.dumps(event)
            if step % 997 == 5:
                line = line.replace(b'"mfu":null', b'"mfu":NaN')
            if step % 991 == 3:
                line = line.replace(b'"mfu":null', b'"mfu":-Infinity')
                line = b'{"type":"train","st' + b"\n" + line
            file.write(line + b"\n")
            if step % 100 == 0:
                file.write(orjson.dumps({"type": "eval", "step": step, "val_loss": random.normal()}) + b"\n")


def test_the_cold_scan_takes_regular_logs_with_broken_lines(tmp_path: Path) -> None:
    path = tmp_path / "it's a log.jsonl"
    regular_log(path, 6000)
    assert cold_scan.scan(path) is not None
    cold, exact = read_events(path, cold_bytes=0), read_events(path, LINE_BY_LINE)
    assert_equal(cold, exact)
    assert np.isfinite(cold.frame("train")["late"].to_numpy()).sum() == 2999
    assert any("7 times): mfu is NaN" in error for error in cold.errors)
    assert any("7 times): not valid JSON" in error for error in cold.errors)


@pytest.mark.parametrize(
    "hidden",
    [{"unknown": 1.0}, {"Loss": 1.0}, {"loss": "2.5"}, {"loss": True}, {"tokens": [1]}, {"unknown": 'a":b'}],
    ids=["key", "case", "string", "boolean", "list", "text"],
)
def test_the_cold_scan_withdraws_for_what_its_samples_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: dict[str, Any]
) -> None:
    monkeypatch.setattr(cold_scan, "_SAMPLE_BYTES", 1000)
    monkeypatch.setattr(cold_scan, "_SAMPLES", 2)
    path = tmp_path / "train.jsonl"
    regular_log(path, 300)
    assert cold_scan.scan(path) is not None
    regular_log(path, 300, hidden)
    assert cold_scan.scan(path) is None
    assert_equal(read_events(path, cold_bytes=0), read_events(path, LINE_BY_LINE))


def test_following_goes_on_after_a_cold_scan(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "train.jsonl"
    regular_log(path, 50)
    half = path.read_bytes() + b'{"type":"train","step":50,'
    path.write_bytes(half)
    log = read_events(path, cold_bytes=0)
    assert len(log.frame("train")) == 50
    path.write_bytes(half + b'"loss":7.0}\nnonsense\n')
    assert log.refresh()
    assert log.frame("train")["loss"].iloc[-1] == 7.0
    assert any(error.endswith(f"line {path.read_bytes().count(10)}: not valid JSON, skipped") for error in log.errors)
    assert capfd.readouterr() == ("", "")


def test_a_second_reader_takes_over_what_the_first_one_scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.jsonl"
    regular_log(path, 300)
    scans: list[Path] = []
    scan = cold_scan.scan
    monkeypatch.setattr(cold_scan, "scan", lambda path: scans.append(path) or scan(path))
    first, second, third = (EventLog(path, cold_bytes=0) for _ in range(3))
    assert first.refresh()
    with open(path, "ab") as file:
        file.write(orjson.dumps(train(300, loss=7.0)) + b"\n")
    assert first.refresh() and second.refresh()
    assert len(scans) == 1
    assert_equal(first, second)
    with open(path, "ab") as file:
        file.write(b"nonsense\n" + orjson.dumps(train(301, loss=8.0, late="words")) + b"\n")
    assert first.refresh()
    # Each reads on by itself, though they share the memory of what they read first.
    assert len(second.frame("train")) == 301 and len(first.frame("train")) == 302
    assert len(second.errors) < len(first.errors)
    assert second.refresh()
    assert_equal(first, second)
    assert third.refresh()  # what is kept is kept for one reader
    assert len(scans) == 2
    pd.testing.assert_frame_equal(first.frame("train"), third.frame("train"), check_exact=True)


@pytest.mark.parametrize("rows", [299, 300, 301])
def test_a_second_reader_sees_that_the_file_is_another_one(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "train.jsonl"
    regular_log(path, 300)
    assert EventLog(path, cold_bytes=0).refresh()
    regular_log(path, rows, {"loss": 3.25})
    os.utime(path, ns=(1, 1))
    assert_equal(read_events(path, cold_bytes=0), read_events(path, LINE_BY_LINE))


@pytest.mark.parametrize(
    "wall_time",
    ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456-11:30", "2026-01-02T03:04:05", "2026-02-30T00:00:00Z", "x", 5],
)
def test_times_mean_the_same_cold_and_line_by_line(tmp_path: Path, wall_time: object) -> None:
    path = tmp_path / "train.jsonl"
    events = [train(step, loss=1.0, wall_time=clock(step)) for step in range(20)]
    for odd in ({7}, set(range(20))):  # one among ours, and all of them
        write(path, *(event | {"wall_time": wall_time} if i in odd else event for i, event in enumerate(events)))
        cold, exact = EventLog(path, cold_bytes=0), read_events(path, LINE_BY_LINE)
        cold.refresh()
        assert_equal(cold, exact)
