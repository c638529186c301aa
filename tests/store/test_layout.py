"""Names in a run folder, and finding run folders."""

from __future__ import annotations

from pathlib import Path

from bottleneck_core.store.layout import RunPaths, find_runs, is_run, next_free_id


def make_run(folder: Path, mark: str = "train.jsonl") -> Path:
    folder.mkdir(parents=True)
    (folder / mark).touch()
    return folder


def test_names_are_the_fixed_ones(tmp_path: Path) -> None:
    names = [path.name for path in RunPaths(tmp_path).all]
    assert names == [
        "config.json",
        "manifest.json",
        "run.lock",
        "train.jsonl",
        "analysis.h5",
        "analysis.png",
        "summary.md",
        "last.pt",
        "last.dcp",
        "best.pt",
        "samples.jsonl",
        "evaluation.json",
        "job.json",
        "console.log",
    ]
    assert all(path.parent == tmp_path for path in RunPaths(str(tmp_path)).all)


def test_finds_runs_to_depth_three_sorted_without_hidden_ones_and_trash(tmp_path: Path) -> None:
    expected = [
        make_run(tmp_path / "b"),
        make_run(tmp_path / "a" / "x", "summary.md"),
        make_run(tmp_path / "a" / "y" / "z", "manifest.json"),
        make_run(tmp_path / "b" / "nested", "job.json"),
    ]
    for skipped in (".hidden/run", "trash/run", "Trash/run", "a/y/z/deeper"):
        make_run(tmp_path / skipped)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text("{}")  # any folder of model weights
    assert find_runs(tmp_path) == sorted(expected)


def test_the_root_itself_may_be_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert is_run(run)
    assert find_runs(run) == [run]
    assert not is_run(tmp_path)
    assert find_runs(tmp_path / "absent") == []


def test_next_free_id(tmp_path: Path) -> None:
    assert next_free_id(tmp_path, "tiny_gqa") == "tiny_gqa"
    (tmp_path / "tiny_gqa").mkdir()
    assert next_free_id(tmp_path, "tiny_gqa") == "tiny_gqa_2"
    (tmp_path / "tiny_gqa_2").symlink_to(tmp_path / "gone")  # a dangling link is not free either
    assert next_free_id(tmp_path, "tiny_gqa") == "tiny_gqa_3"
