"""`jobs` and `jobs stop` on real jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bottleneck_core.cli import main
from bottleneck_core.jobs import job_state
from tests.jobs.programs import run_program, run_python, until


def test_listing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder.parent
    job = run_program(folder)
    assert job.process is not None
    (root / "half").mkdir()
    (root / "half" / "job.json").write_text("{")

    assert main(["jobs", str(root), "--json"]) == 0
    out, err = capsys.readouterr()
    (row,) = json.loads(out)
    assert (row["id"], row["state"], row["pid"]) == ("nano_test", "running", job.process.pid)
    assert row["argv"] == list(job.argv) and row["exit_code"] is None
    assert err.startswith("warning: ") and "half" in err

    assert main(["jobs", str(root)]) == 0
    head, line, *rest = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["job", "state", "pid"] and not rest
    assert line.split()[:3] == ["nano_test", "running", str(job.process.pid)]


def test_stopping_by_name_and_by_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_program(folder)
    assert main(["jobs", "stop", "nano_test", "--runs", str(folder.parent)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "SIGTERM sent, waiting",
        "nano_test ended by SIGTERM: stopped (exit code 143)",
    ]
    assert main(["jobs", "stop", str(folder)]) == 0
    assert capsys.readouterr().out == "nano_test had ended before: stopped\n"


def test_a_name_in_a_group(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for group in ("a", "b"):
        inner = tmp_path / group / "same"
        inner.mkdir(parents=True)
        run_python("", inner)
        until(lambda inner=inner: job_state(inner) == "done", "the job's end")
    (tmp_path / "b" / "same").rename(tmp_path / "b" / "other")
    assert main(["jobs", "stop", "same", "--runs", str(tmp_path)]) == 0
    (tmp_path / "b" / "other").rename(tmp_path / "b" / "same")
    capsys.readouterr()
    assert main(["jobs", "stop", "same", "--runs", str(tmp_path)]) == 2
    assert "error: same is the name of several jobs: give the path" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["stop"], "jobs stop needs the job's name"),
        (["stop", "nobody", "--runs", "."], "there is no job nobody in . (jobs there: none)"),
        (["nowhere"], "nowhere is no folder"),
        (["--jsn"], "--jsn"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["jobs", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and sentence in err and err.count("\n") == 1


def test_nothing_was_ever_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["jobs"]) == 0
    assert capsys.readouterr().out == "no jobs: `jobs add -- train --size nano` queues one, `demo` starts one\n"
    assert main(["jobs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
