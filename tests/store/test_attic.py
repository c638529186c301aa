"""Runs that are put away and come back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bottleneck_core.errors import UserError
from bottleneck_core.store import attic
from bottleneck_core.store.attic import put_away, put_away_runs, restore
from bottleneck_core.store.index import index
from bottleneck_core.store.lock import RunLock


def make_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text(json.dumps({"type": "train", "step": 0, "loss": 1.0}) + "\n")
    return folder


def test_away_and_back(tmp_path: Path) -> None:
    run = make_run(tmp_path / "sub" / "a")
    other = make_run(tmp_path / "b")
    away = put_away(run, tmp_path, "archive")
    assert (away.id, away.shelf) == ("sub/a", "archive")
    assert re.fullmatch(r"\.archive/\d{8}T\d{6}\.\d{6}/sub/a", away.path.relative_to(tmp_path).as_posix())
    assert [row["id"] for row in index(tmp_path)] == ["b"]
    gone = put_away(other, tmp_path, "trash")
    assert [(found.id, found.shelf, found.path) for found in put_away_runs(tmp_path)] == [
        ("b", "trash", gone.path),
        ("sub/a", "archive", away.path),
    ]
    for found in put_away_runs(tmp_path):
        restore(found)
    assert [row["id"] for row in index(tmp_path)] == ["b", "sub/a"]
    assert put_away_runs(tmp_path) == []
    assert not list((tmp_path / ".archive").iterdir())


def test_a_name_that_was_taken_meanwhile(tmp_path: Path) -> None:
    away = put_away(make_run(tmp_path / "a"), tmp_path, "trash")
    make_run(tmp_path / "a")
    assert restore(away) == tmp_path / "a_2"
    with pytest.raises(UserError, match="not in the trash any more"):
        restore(away)


def test_what_is_trained_or_waits_stays(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    with RunLock(run), pytest.raises(UserError, match="a is running: stop it first"):
        put_away(run, tmp_path, "trash")
    (run / "job.json").write_text('{"status": "queued"}')
    with pytest.raises(UserError, match="a is queued: stop it first"):
        put_away(run, tmp_path, "trash")
    assert run.is_dir() and not (tmp_path / ".trash").exists()


def test_a_trainer_that_came_in_between_keeps_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "a")
    monkeypatch.setattr(attic, "run_status", lambda folder: "done")  # as of a moment ago
    with RunLock(run), pytest.raises(UserError, match="a is running"):
        put_away(run, tmp_path, "trash")
    assert run.is_dir() and put_away_runs(tmp_path) == []


def test_only_runs_below_the_root(tmp_path: Path) -> None:
    root, outside = make_run(tmp_path / "root"), make_run(tmp_path / "outside")
    (root / "link").symlink_to(tmp_path, target_is_directory=True)
    for folder in (outside, root, root / ".." / "outside", root / "link" / "outside", root / "sub" / ".."):
        with pytest.raises(UserError, match="is no run below"):
            put_away(folder, root, "trash")
    with pytest.raises(UserError, match="no run folder any more"):
        put_away(root / "absent", root, "trash")
    assert outside.is_dir() and root.is_dir()


def test_a_run_that_holds_others_stays(tmp_path: Path) -> None:
    outer = make_run(tmp_path / "outer")
    make_run(outer / "inner")
    with pytest.raises(UserError, match="holds other runs"):
        put_away(outer, tmp_path, "archive")
    assert (outer / "inner").is_dir()


def test_folders_of_others_on_the_shelf_are_left_alone(tmp_path: Path) -> None:
    make_run(tmp_path / ".trash" / "something else" / "a")
    assert put_away_runs(tmp_path) == []
