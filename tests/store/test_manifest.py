"""manifest.json: what a run ran on, and how it ended."""

from __future__ import annotations

import os
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from bottleneck_core.store.manifest import git_state, write_end, write_manifest


def start(path: Path) -> dict[str, Any]:
    return write_manifest(
        path,
        argv=["python", "-m", "bottleneck_core", "train"],
        runtime={"device": "cpu", "threads": 1},
        seeds={"init": 1, "data": 2},
        data_sha256="ab" * 32,
        n_params=7,
        gpus=["a GPU"],
    )


def test_it_holds_everything_needed_to_repeat_a_run(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    manifest = start(path)
    assert orjson.loads(path.read_bytes()) == manifest
    assert manifest["argv"] == ["python", "-m", "bottleneck_core", "train"]
    assert manifest["runtime"] == {"device": "cpu", "threads": 1}
    assert manifest["seeds"] == {"init": 1, "data": 2}
    assert (manifest["data_sha256"], manifest["n_params"]) == ("ab" * 32, 7)
    assert manifest["pid"] == os.getpid()
    assert manifest["packages"]["numpy"] == metadata.version("numpy")
    assert manifest["hardware"]["gpus"] == ["a GPU"]
    assert manifest["hardware"]["cores"] == os.cpu_count()
    assert manifest["hardware"]["memory_bytes"] > 1 << 28
    assert manifest["hardware"]["cpu"]
    assert manifest["host"]
    assert "boot_id" in manifest
    assert "git" in manifest


def test_an_end_is_added_and_a_resumption_drops_it_but_keeps_the_first_start(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    first = start(path)
    write_end(path, reason="sigterm", step=12, exit_code=143)
    ended = orjson.loads(path.read_bytes())
    assert {key: ended["ended"][key] for key in ("reason", "step", "exit_code")} == {
        "reason": "sigterm",
        "step": 12,
        "exit_code": 143,
    }
    assert ended["ended"]["wall_time"] >= first["created"]
    assert ended | {"ended": None} == first | {"ended": None}
    again = start(path)
    assert "ended" not in again
    assert again["created"] == first["created"]
    assert again["started"] >= ended["ended"]["wall_time"]


def test_git_state_of_a_checkout_and_of_none(tmp_path: Path) -> None:
    def git(*command: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True, capture_output=True)

    assert git_state(tmp_path) is None
    git("init")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "a")
    clean = git_state(tmp_path)
    assert clean is not None
    assert (len(clean["commit"]), clean["dirty"]) == (40, False)
    (tmp_path / "untracked").touch()
    assert git_state(tmp_path) == clean
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path) == clean | {"dirty": True}
    (tmp_path / "inside").mkdir()
    assert git_state(tmp_path / "inside") is None  # an installed package in somebody's repository
