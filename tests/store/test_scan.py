"""One look into each folder, and rows that follow what it finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from foreign_folders import zero_based
from test_layout import make_run

from bottleneck_core.store import index as index_module
from bottleneck_core.store.index import index, look
from bottleneck_core.store.layout import find_runs
from bottleneck_core.store.notes import write_notes
from bottleneck_core.store.row import thinned
from bottleneck_core.store.scan import scan_runs


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_entries", {})
    monkeypatch.setattr(index_module, "_kept", index_module._KeptRows())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_finds_what_find_runs_finds(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    make_run(root / "b")
    make_run(root / "b" / "nested", "job.json")
    make_run(root / "a" / "x", "summary.md")
    for skipped in (".hidden/run", "trash/run", "a/x/y/z"):
        make_run(root / skipped)
    (root / "weights").mkdir()
    (root / "weights" / "config.json").write_text("{}")
    (root / "link").symlink_to(root / "a", target_is_directory=True)
    found = scan_runs(root)
    assert sorted(Path(run.path) for run in found) == find_runs(root)
    assert {run.id for run in found} == {"b", "b/nested", "a/x", "link/x"}
    assert {run.real for run in found if run.id in ("a/x", "link/x")} == {str((root / "a" / "x").resolve())}
    assert [run.id for run in scan_runs(root / "b")] == ["b", "nested"]


def test_notes_are_in_the_row_and_cost_no_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = zero_based(tmp_path / "runs" / "a")
    assert index(tmp_path / "runs")[0]["tags"] == []
    monkeypatch.setattr(index_module, "run_row", lambda run: pytest.fail("the run was read again"))
    write_notes(folder, tags=["good"], note="a note")
    row = index(tmp_path / "runs")[0]
    assert (row["tags"], row["note"]) == (["good"], "a note")
    assert index(tmp_path / "runs")[0] is row  # the same object as long as nothing changes
    write_notes(folder, tags=[], note="")
    assert index(tmp_path / "runs")[0]["note"] == ""


def test_a_look_without_time_leaves_the_rest_for_later(tmp_path: Path) -> None:
    for name in "abc":
        zero_based(tmp_path / "runs" / name)
    rows, unread = look(tmp_path / "runs", seconds=-1)
    assert (rows, unread) == ([], 3)
    rows, unread = look(tmp_path / "runs")
    assert (len(rows), unread) == (3, 0)
    assert look(tmp_path / "runs", seconds=-1) == (rows, 0)  # what is known needs no time


def test_rows_of_many_runs_are_kept_between_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_MANY", 2)
    for name in "abc":
        zero_based(tmp_path / "runs" / name)
    first = index(tmp_path / "runs")
    monkeypatch.setattr(index_module, "_entries", {})  # another process
    monkeypatch.setattr(index_module, "run_row", lambda run: pytest.fail("the run was read again"))
    kept = {row["id"]: row for row in index(tmp_path / "runs") if row["id"] == "c"}
    assert kept["c"] == first[2]


def test_a_thinned_curve_keeps_ends_and_extremes() -> None:
    values = np.full(5000, 3.0)
    values[[0, 1234, 3210, -1]] = 9.0, 1.0, 7.0, 2.0
    line = thinned(values)
    assert len(line) <= 62 and line[0] == 9.0 and line[-1] == 2.0 and {1.0, 7.0} <= set(line)
    assert thinned(np.array([5.0, np.nan, 4.0])) == [5.0, 4.0]
