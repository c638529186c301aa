"""`jobs move`, `start`, `resume`, `limit`, `log`, `stop` and the table, on a queue of real jobs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bottleneck_core.cli import main
from bottleneck_core.jobs import job_state, queued_jobs
from tests.jobs.programs import begun, let_go, queue_turn, until

Capture = pytest.CaptureFixture[str]


def jobs(capsys: Capture, root: Path, *words: str) -> tuple[int, str, str]:
    code = main(["jobs", *words, *(["--runs", str(root)] if words else [str(root)])])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def rows(capsys: Capture, root: Path) -> dict[str, dict[str, Any]]:
    assert main(["jobs", str(root), "--json"]) == 0
    return {row["id"]: row for row in json.loads(capsys.readouterr().out)}


def test_the_table_shows_device_and_position(root: Path, capsys: Capture) -> None:
    for name in "abc":
        queue_turn(root, name)
    found = rows(capsys, root)
    assert {name: row["position"] for name, row in found.items()} == {"a": None, "b": 0, "c": 1}
    assert {row["device"] for row in found.values()} == {"cpu"} and found["b"]["nproc"] == 1
    assert found["a"]["started"] is not None and found["b"]["started"] is None and found["b"]["pid"] is None
    _, table, _ = jobs(capsys, root)
    head, *lines = [line.split() for line in table.splitlines()]
    assert head == ["job", "state", "pid", "device", "position", "exit", "created", "command"]
    assert [line[:4] for line in lines][:2] == [["c", "queued", "cpu", "1"], ["b", "queued", "cpu", "0"]]
    assert lines[2][:2] == ["a", "running"] and lines[2][3] == "cpu"


def test_a_run_outside_the_root_is_listed_with_its_queue(root: Path, capsys: Capture) -> None:
    inside, outside = root / "runs", root / "elsewhere"
    inside.mkdir()
    queue_turn(inside, "a")
    outside.mkdir()
    queue_turn(inside, str(outside))
    assert rows(capsys, inside)["elsewhere"]["position"] == 0
    code, out, _ = jobs(capsys, inside, "stop", "elsewhere")
    assert (code, out.splitlines()[-1]) == (0, "elsewhere was taken from the queue: stopped")


def test_order_start_stop_resume(root: Path, capsys: Capture) -> None:
    for name in "abcd":
        queue_turn(root, name)
    assert jobs(capsys, root, "move", "d", "0") == (0, "0  d\n1  b\n2  c\n", "")
    assert jobs(capsys, root, "start", "c") == (0, "c starts now\n", "")
    begun(root, "c")
    assert jobs(capsys, root, "stop", "b")[1].splitlines()[-1] == "b was taken from the queue: stopped"
    assert jobs(capsys, root, "resume", "b") == (0, f"b waits for cpu at position 1: {root / 'b'}\n", "")
    let_go(root, "a", "c", "d")
    begun(root, "b")
    assert jobs(capsys, root, "resume", "b")[2].startswith("error: the job in") and job_state(root / "b") == "running"


def test_the_queue_is_found_from_the_job(root: Path, capsys: Capture, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in "abc":
        queue_turn(root, name)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert jobs(capsys, elsewhere, "move", str(root / "c"), "0")[0] == 0
    assert [job.id for job in queued_jobs(root)] == ["c", "b"] and not list(elsewhere.iterdir())


def test_limits(root: Path, capsys: Capture) -> None:
    assert json.loads(jobs(capsys, root, "limit", "--json")[1]) == {"cpu": 1}
    lines = jobs(capsys, root, "limit", "cuda:0", "2")[1].splitlines()
    assert [line.split() for line in lines[1:]] == [["cpu", "1"], ["cuda:0", "2"]]
    assert json.loads(jobs(capsys, root, "limit", "--json")[1]) == {"cpu": 1, "cuda:0": 2}


def test_the_log(root: Path, capsys: Capture) -> None:
    queue_turn(root, "a")
    let_go(root, "a")
    (root / "a" / "console.log").write_text("one\n\x1b[31mtwo\x1b[0m\nthree\n")
    assert jobs(capsys, root, "log", "a", "-n", "2") == (0, "two\nthree\n", "")
    assert jobs(capsys, root, "log", "a")[1] == "one\ntwo\nthree\n"
    (root / "a" / "console.log").unlink()
    assert jobs(capsys, root, "log", "a") == (0, "", "")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["move"], "jobs move needs the job's name"),
        (["move", "a"], "jobs move a needs the new position"),
        (["move", "a", "first"], "first"),
        (["move", "a", "-1"], "position -1 does not exist"),
        (["move", "a", "0"], "is done, it does not wait"),
        (["start", "a"], "is done, it does not wait"),
        (["resume", "a"], "is done: only what was lost"),
        (["log", "nobody"], "there is no job nobody in"),
        (["limit", "cpu"], "jobs limit cpu needs the number of jobs"),
        (["limit", "cpu", "-2"], "a limit of -2 jobs is below 0"),
        (["limit", "gpu7", "1"], "'gpu7' is no device"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], sentence: str, done: Path, capsys: Capture) -> None:
    code, out, err = jobs(capsys, done, *words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and sentence in err and err.count("\n") == 1, err


@pytest.fixture
def done(tmp_path: Path, ended_once: Path) -> Path:
    """A root with a job "a" that is done."""
    shutil.copytree(ended_once, tmp_path / "a")
    return tmp_path


@pytest.fixture(scope="module")
def ended_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ended")
    (root / "a").mkdir()
    (root / "a" / "go").touch()
    queue_turn(root, "a")
    until(lambda: job_state(root / "a") == "done", "the end")
    return root / "a"
