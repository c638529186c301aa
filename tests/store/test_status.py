"""The state of a run, from its folder alone."""

from __future__ import annotations

import json
from pathlib import Path

import filelock
import pytest
from foreign_folders import ARGS, one_based, summary_text, write_lines, zero_based

from bottleneck_core.store.events import EventWriter
from bottleneck_core.store.layout import RunPaths, run_status
from bottleneck_core.store.lock import RunLock
from bottleneck_core.store.manifest import write_end


def our_run(folder: Path) -> RunPaths:
    paths = RunPaths(folder)
    paths.manifest.write_text('{"pid": 1}')
    with EventWriter(paths.events) as writer:
        writer.write("train", 0, loss=1.0)
    return paths


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("completed", "done"),
        ("sigint", "stopped"),
        ("sigterm", "stopped"),
        ("max_minutes", "stopped"),
        ("stopped", "stopped"),
        ("nonfinite", "failed"),
        ("error", "failed"),
    ],
)
def test_the_end_that_was_written(tmp_path: Path, reason: str, status: str) -> None:
    paths = our_run(tmp_path)
    assert run_status(tmp_path) == "lost"
    write_end(paths.manifest, reason=reason, step=1, exit_code=0)
    assert run_status(tmp_path) == status  # as for a run that writes no events
    paths.manifest.write_text('{"pid": 1}')
    with EventWriter(paths.events) as writer:
        writer.write("done", 1, reason=reason)
    assert run_status(tmp_path) == status
    with open(paths.events, "ab") as file:
        file.write(b'{"type":"half')
    assert run_status(tmp_path) == status


def test_a_resumption_that_was_killed_is_lost(tmp_path: Path) -> None:
    paths = our_run(tmp_path)
    with EventWriter(paths.events) as writer:
        writer.write("done", 1, reason="sigterm")
        writer.write("resume", 1)
    assert run_status(tmp_path) == "lost"


def test_a_run_of_ours_that_was_killed_at_its_last_step_is_lost(tmp_path: Path) -> None:
    paths = our_run(tmp_path)
    with EventWriter(paths.events) as writer:
        writer.write("meta", 0, args={"steps": 1})
        writer.write("eval", 1, val_loss=1.0)
    assert run_status(tmp_path) == "lost"
    paths.manifest.unlink()
    assert run_status(tmp_path) == "done"  # as a foreign folder


def test_the_lock_wins_over_everything(tmp_path: Path) -> None:
    paths = our_run(tmp_path)
    write_end(paths.manifest, reason="completed", step=1, exit_code=0)
    paths.job.write_text('{"status": "queued"}')
    with RunLock(tmp_path):
        assert run_status(tmp_path) == "running"
    assert run_status(tmp_path) == "queued"
    paths.job.write_text('{"status": "done"}')
    assert run_status(tmp_path) == "done"
    paths.job.write_text('["queued"')
    assert run_status(tmp_path) == "done"


def test_the_last_event_is_found_behind_long_ones(tmp_path: Path) -> None:
    paths = our_run(tmp_path)
    with EventWriter(paths.events) as writer:
        writer.write("done", 1, reason="completed", traceback="x" * 1_000_000)
    assert run_status(tmp_path) == "done"


def test_foreign_folders_are_done_at_their_last_step(tmp_path: Path) -> None:
    assert run_status(zero_based(tmp_path / "done")) == "done"
    assert run_status(one_based(tmp_path / "broken off")) == "lost"
    only_summary = tmp_path / "summary"
    only_summary.mkdir()
    (only_summary / "summary.md").write_text(summary_text((40, 2.5)))
    assert run_status(only_summary) == "done"
    (only_summary / "summary.md").write_text(summary_text((39, 2.5)))
    assert run_status(only_summary) == "lost"
    (only_summary / "summary.md").write_text(summary_text(None))
    assert run_status(only_summary) == "lost"


def test_foreign_events_without_arguments_take_the_summarys(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", [{"type": "eval", "step": ARGS["steps"], "val_loss": 1.0}])
    assert run_status(tmp_path) == "lost"
    (tmp_path / "summary.md").write_text(summary_text(None))
    assert run_status(tmp_path) == "done"


def test_an_empty_or_absent_folder_is_lost(tmp_path: Path) -> None:
    assert run_status(tmp_path) == "lost"
    assert run_status(tmp_path / "absent") == "lost"
    (tmp_path / "train.jsonl").write_text(json.dumps({"type": "meta", "args": {"steps": "many"}}) + "\n")
    assert run_status(tmp_path) == "lost"


def test_a_job_whose_trainer_has_not_begun_is_running_and_one_that_failed_early_is_failed(tmp_path: Path) -> None:
    job = tmp_path / "job.json"
    job.write_text('{"status": "running"}')
    with filelock.FileLock(tmp_path / "job.lock"):
        assert run_status(tmp_path) == "running"
    assert run_status(tmp_path) == "lost"
    job.write_text('{"status": "failed"}')
    assert run_status(tmp_path) == "failed"
