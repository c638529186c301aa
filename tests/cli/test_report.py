"""The command `report`: a process as a person starts it, its document, and mistakes as one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bottleneck_core.cli import main
from tests.report.folders import add_analysis, run_folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.e2e
def test_a_report_from_a_process(tmp_path: Path) -> None:
    add_analysis(run_folder(tmp_path / "runs", "a"))
    run_folder(tmp_path / "runs", "b", loss=2.5)
    command = [sys.executable, "-W", "error", "-m", "bottleneck_core", "report", "runs", "--out", "deep/out", "--json"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    about = json.loads(done.stdout)
    assert [run["id"] for run in about["runs"]] == ["a", "b"] and about["out"] == "deep/out"
    out = tmp_path / "deep" / "out"
    assert {path.name for path in out.iterdir()} == {
        *(f"report.{kind}" for kind in ("md", "tex", "html", "json")),
        "figures",
        "tables",
    }
    for stem in about["figures"]:
        assert (out / "figures" / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (out / "figures" / f"{stem}.svg").read_text()


def test_it_says_what_it_wrote_and_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_folder(tmp_path, "a")
    assert main(["report", str(folder), "--out", str(tmp_path / "out"), "--formats", "md"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{tmp_path / 'out'}: 1 run, 2 tables, 3 figures", "  a: analysis.h5 is missing."]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "no run is given"),
        (["{run}"], "--out is missing"),
        (["nowhere", "--out", "{out}"], "nowhere is no run folder"),
        (["{run}", "--out", "{run}"], "--out {run} holds something else than a report"),
        (["{run}", "--out", "{out}", "--formats", "md,pdf"], "--formats needs some of md,tex,png,svg,html, got md,pdf"),
        (["{run}", "--out", "{out}", "--context", "many"], "--context needs a number of tokens"),
        (["{run}", "--out", "{out}", "--smooth", "0"], "--smooth must be a whole number >= 1, got 0"),
        (["{run}", "--out", "{out}", "--nonsense"], "nrecognized options: --nonsense"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"run": run_folder(tmp_path, "a"), "out": tmp_path / "out"}
    assert main(["report", *(word.format(**places) for word in words)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and not captured.out
    assert sentence.format(**places) in captured.err
    assert not (tmp_path / "out").exists()
