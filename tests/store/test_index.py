"""The table of runs and its caches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from foreign_folders import clock, one_based, zero_based

from bottleneck_core.errors import UserError
from bottleneck_core.store import index as index_module
from bottleneck_core.store.event_log import EventLog
from bottleneck_core.store.index import index, run_row
from bottleneck_core.store.lock import RunLock
from bottleneck_core.store.run import load_run

KEYS = {
    "id",
    "path",
    "status",
    "attn_mode",
    "size",
    "exp",
    "last_step",
    "best_val_loss",
    "best_val_step",
    "n_params",
    "kv_bytes_128k",
    "errors",
}
MORE = {"tokens", "tok_s", "last_loss", "best_ppl", "created", "model", "steps", "config", "curve"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Own caches, in memory and on disk."""
    monkeypatch.setattr(index_module, "_entries", {})
    monkeypatch.setattr(index_module, "_kept", index_module._KeptRows())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bottleneck_core" / "index.json"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the folders whose events are read."""
    names: list[str] = []
    refresh = EventLog.refresh

    def recorded(log: EventLog) -> bool:
        names.append(log.path.parent.name)
        return refresh(log)

    monkeypatch.setattr(EventLog, "refresh", recorded)
    return names


def test_a_row_has_the_keys_of_the_command_and_is_json(tmp_path: Path) -> None:
    run = load_run(zero_based(tmp_path / "old"))
    row = run_row(run)
    assert row.keys() == KEYS | {
        "tokens",
        "tok_s",
        "last_loss",
        "best_ppl",
        "created",
        "model",
        "steps",
        "config",
        "curve",
    }
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert (row["id"], row["path"], row["status"]) == ("old", str(tmp_path / "old"), "done")
    assert (row["best_val_loss"], row["last_loss"], row["tok_s"]) == (2.5, 2.5, 115.0)
    assert row["tokens"] == 256 * 31
    assert row["best_ppl"] == pytest.approx(12.1825, abs=1e-4)
    assert row["errors"] == run.errors


def test_unchanged_runs_are_not_read_again(tmp_path: Path, reads: list[str]) -> None:
    zero_based(tmp_path / "runs" / "a")
    one_based(tmp_path / "runs" / "b")
    first = index(tmp_path / "runs")
    assert [row["id"] for row in first] == ["a", "b"]
    reads.clear()
    assert index([tmp_path / "runs"]) == first
    assert reads == []
    with open(tmp_path / "runs" / "b" / "train.jsonl", "a") as file:
        file.write(json.dumps({"type": "eval", "step": 30, "val_loss": 1.0, "wall_time": clock(31)}) + "\n")
    assert index(tmp_path / "runs")[1]["best_val_loss"] == 1.0
    assert set(reads) == {"b"}


def test_analysis_files_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zero_based(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "a" / "analysis.h5").write_bytes(b"no HDF5")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    assert "analysis.h5" not in str(index(tmp_path / "runs"))


def test_a_lock_that_comes_and_goes_shows_without_any_change_of_files(tmp_path: Path) -> None:
    zero_based(tmp_path / "runs" / "a")
    with RunLock(tmp_path / "runs" / "a"):
        assert index(tmp_path / "runs")[0]["status"] == "running"
    assert index(tmp_path / "runs")[0]["status"] == "done"
    with RunLock(tmp_path / "runs" / "a"):
        assert index(tmp_path / "runs")[0]["status"] == "running"


def test_a_run_in_training_keeps_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = zero_based(tmp_path / "runs" / "a")
    loaded: list[Any] = []
    events = EventLog.__init__
    with RunLock(folder):
        index(tmp_path / "runs")
        kept = index_module._entries[str(folder)].run
        assert kept is not None
        monkeypatch.setattr(EventLog, "__init__", lambda log, path: (loaded.append(path), events(log, path))[1])
        with open(folder / "train.jsonl", "a") as file:
            file.write(json.dumps({"type": "eval", "step": 50, "val_loss": 1.0}) + "\n")
        assert index(tmp_path / "runs")[0]["last_step"] == 50
        assert index_module._entries[str(folder)].run is kept
    index(tmp_path / "runs")
    assert index_module._entries[str(folder)].run is None


def test_a_run_that_cannot_be_read_has_a_row_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zero_based(tmp_path / "runs" / "a")
    one_based(tmp_path / "runs" / "b")
    refresh = EventLog.refresh

    def failing(log: EventLog) -> bool:
        if log.path.parent.name == "a":
            raise MemoryError("too big")
        return refresh(log)

    monkeypatch.setattr(EventLog, "refresh", failing)
    broken, sound = index(tmp_path / "runs")
    assert broken["errors"] == ["cannot be read: MemoryError: too big"]
    assert broken.keys() == sound.keys()


def test_rows_of_big_files_are_kept_between_processes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    zero_based(tmp_path / "runs" / "a")
    first = index(tmp_path / "runs")
    assert not cache.exists()  # a small file is read as fast
    monkeypatch.setattr(index_module, "_BIG_BYTES", 100)
    monkeypatch.setattr(index_module, "_entries", {})
    assert index(tmp_path / "runs") == first
    monkeypatch.setattr(index_module, "_entries", {})  # another process
    reads.clear()
    assert index(tmp_path / "runs") == first
    assert reads == []
    cache.write_text('{"version": 0}')
    monkeypatch.setattr(index_module, "_entries", {})
    assert index(tmp_path / "runs") == first
    assert set(reads) == {"a"}


def test_roots_may_overlap_and_must_exist(tmp_path: Path) -> None:
    zero_based(tmp_path / "runs" / "a")
    rows = index([tmp_path / "runs", tmp_path / "runs" / "a"])
    assert len(rows) == 1
    with pytest.raises(UserError, match="absent is no folder"):
        index([tmp_path / "runs", tmp_path / "absent"])


def test_runs_asked_for_are_read_however_late_it_is(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        one_based(tmp_path / name)
    rows, unread = index_module.look(tmp_path, seconds=-1.0, first=["c", "absent"])
    assert [row["id"] for row in rows] == ["c"] and unread == 3
    rows, unread = index_module.look(tmp_path, seconds=-1.0)
    assert [row["id"] for row in rows] == ["c"] and unread == 3
    rows, unread = index_module.look(tmp_path)
    assert [row["id"] for row in rows] == ["a", "b", "c", "d"] and unread == 0
