"""The logic behind the pages: addresses, progress, table, settings, log."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import bottleneck_core as bc
from dashboard.progress import progress_of
from dashboard.run.files import file_frame
from dashboard.run.header import description
from dashboard.run.record import setting_frame
from dashboard.runs import table as runs_table
from dashboard.state import address_of, find_row, run_roots


def row(run_id: str, path: str, **values):
    known = {"last_step": None, "steps": None, "config": {}, "tags": [], "note": ""}
    return known | {
        "id": run_id,
        "path": path,
        "status": "done",
        "errors": [],
        "curve": [],
        "config": {},
        "tags": [],
        "note": "",
        **values,
    }


def test_roots_are_separated_like_path(monkeypatch):
    monkeypatch.setenv("BOTTLENECK_RUNS", f"/a{os.pathsep}/b b{os.pathsep}")
    assert run_roots() == [Path("/a"), Path("/b b")]
    monkeypatch.setenv("BOTTLENECK_RUNS", "")
    assert run_roots() == [Path("runs")]


def test_an_address_names_its_root_only_where_it_must():
    rows = [row("a", "/x/a"), row("sub/b", "/x/sub/b"), row("sub/b", "/y/sub/b")]
    assert [address_of(r, rows) for r in rows] == [
        {"id": "a"},
        {"id": "sub/b", "root": "/x"},
        {"id": "sub/b", "root": "/y"},
    ]
    for r in rows:
        address = address_of(r, rows)
        assert find_row(rows, address["id"], address.get("root")) is r
    assert find_row(rows, "a", "/y") is None and find_row(rows, "c", None) is None


def test_progress_and_eta(make_run):
    run = make_run("run")
    assert progress_of(bc.load_run(run.path)).share == 0
    with open(run.path / "train.jsonl", "a") as file:
        for step, second in ((0, 0), (9, 18), (19, 38)):
            stamp = f"2026-01-01T00:00:{second:02d}+00:00"
            print(json.dumps({"type": "train", "step": step, "loss": 3.0, "wall_time": stamp}), file=file)
    progress = progress_of(bc.load_run(run.path))
    assert (progress.done, progress.steps, progress.share) == (20, 100, 0.2)
    assert progress.eta_s == pytest.approx(160)  # 80 steps at 2 s


def test_progress_counts_the_final_evaluation_as_all_steps(tmp_path, make_run):
    run = make_run("run")
    run.train(100)
    run.finish()
    progress = progress_of(bc.load_run(run.path))
    assert (progress.done, progress.share, progress.eta_s) == (100, 1.0, 0.0)


def test_description_names_what_the_model_is(tmp_path, make_run):
    run = make_run("run", exp="paper_decoupled")
    assert description(bc.load_run(run.path))[:3] == ["decoupled 8/16/24", "null", "tied Q and K"]


def test_columns_without_any_value_are_not_shown():
    frame = runs_table.table_frame([row("a", "/x/a", best_val_loss=2.0), row("b", "/x/b")], [None, None], "128k")
    order = runs_table.column_order(frame)
    assert "best loss" in order and "params" not in order and "errors" not in order


def test_the_table_says_numbers_as_people_read_them():
    frame = runs_table.table_frame([row("a", "/x/a", tok_s=17_040.0, best_ppl=76.3)], [294_912_000], "128k")
    html = runs_table.styled(frame).to_html()
    assert "281 MiB" in html and "17.0k" in html and "76.30" in html
    assert frame["KV @128k"].iloc[0] == 294_912_000  # what it sorts by


def test_nested_settings_and_search():
    frame = setting_frame({"a": {"b": 1, "c": True}, "d": [1, 2], "e": None, "f": {}})
    assert frame.to_numpy().tolist() == [["a.b", "1"], ["a.c", "yes"], ["d", "1 2"], ["e", "–"], ["f", "{}"]]
    assert setting_frame({"learning_rate": 0.1, "rate": 2}, "LEARN 0.1")["setting"].tolist() == ["learning_rate"]


def test_files_below_the_folder(tmp_path):
    (tmp_path / "last.dcp").mkdir()
    (tmp_path / "last.dcp" / "shard").write_bytes(b"x" * 2048)
    (tmp_path / "a.txt").write_text("")
    frame = file_frame(tmp_path)
    assert frame["file"].tolist() == ["a.txt", "last.dcp/shard"] and frame["size"].tolist() == ["0 B", "2.00 KiB"]
