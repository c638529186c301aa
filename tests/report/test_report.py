"""Reports on sets of runs: what the sections say, what they lack, and that the same runs give the same bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottleneck_core.errors import UserError
from bottleneck_core.figures import numbers
from bottleneck_core.report import Request, write_report
from bottleneck_core.report.curves import overlay, scale_of
from bottleneck_core.report.groups import grouped
from bottleneck_core.report.reported import reported_runs
from bottleneck_core.store.run import load_run

from .folders import CHOSEN, add_analysis, run_folder


def report(out: Path, *runs: Path, **options) -> tuple[str, dict]:
    """The Markdown and the summary of a report without drawings."""
    about = write_report(Request(runs=runs, formats=["md"], **options), out)
    return (out / "report.md").read_text(), about


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def row(text: str, name: str) -> list[str]:
    """The cells of a table's line."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_numbers_are_those_of_the_folders_under_their_ids(tmp_path: Path) -> None:
    run_folder(tmp_path, "small", loss=2.5)
    run_folder(tmp_path, "wide", loss=2.0, exp="paper_baseline")
    text, about = report(tmp_path / "out", tmp_path / "small", tmp_path / "wide")
    best = {name: load_run(tmp_path / name).best_val_loss for name in ("small", "wide")}
    assert {run["id"]: run["best_val_loss"] for run in about["runs"]} == best
    results = section(text, "Results")
    assert row(results, "small")[:3] == ["small", f"{best['small']:.4f}", "–"]
    assert row(results, "wide")[2] == "−0.5000"
    # nano: 4 layers x 2 tensors x 2 B; bottleneck of 24, standard of 128
    assert row(results, "small")[4:6] == ["384 B", "46.9 MiB"] and row(results, "wide")[4] == "2.00 KiB"
    assert row(section(text, "Runs"), "small")[6:8] == [f"{best['small']:.4f}", "100"]
    quality = section(text, "Loss against KV bytes")
    assert f"small ({best['small']:.4f} at 384 B per token); wide ({best['wide']:.4f} at 2.00 KiB per token)" in quality
    assert [group["on_frontier"] for group in about["groups"]] == [True, True]
    assert row(section(text, "Settings that differ"), "attn\\_mode") == ["attn\\_mode", "bottleneck", "standard"]


def test_the_context_changes_the_sizes_and_their_heading(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "a", kv_cache="q8_0")
    text, about = report(tmp_path / "out", folder, context=32 << 10)
    from bottleneck_core.sizing import kv_memory

    size = kv_memory(folder, 32 << 10).bytes
    assert about["runs"][0]["kv_bytes"] == size != kv_memory(folder, 128_000).bytes
    assert row(section(text, "Results"), "a")[3] == numbers.size(size / (32 << 10))
    assert "KV @32Ki" in text and "128k" not in text and "32,768 tokens" in text


def test_seeds_are_one_line_with_mean_and_interval(tmp_path: Path) -> None:
    for seed, loss in ((1, 2.0), (2, 2.1), (3, 2.2)):
        run_folder(tmp_path, f"a_seed{seed}", loss=loss, seed=seed)
    run_folder(tmp_path, "b", loss=1.0, exp="paper_gqa")
    text, about = report(tmp_path / "out", *sorted(tmp_path.glob("a_*")), tmp_path / "b")
    assert about["groups"][0]["runs"] == ["a_seed1", "a_seed2", "a_seed3"]
    best = [run["best_val_loss"] for run in about["runs"][:3]]
    cells = row(section(text, "Results"), "a (3 seeds)")
    assert cells[1:4] == ["3", f"{np.mean(best):.4f}", f"{4.302653 * 0.1 / 3**0.5:.4f}"]  # t of 2 degrees of freedom
    assert "one seed on one side: no statement" in text
    assert "a (3 seeds): a\\_seed1, a\\_seed2 and a\\_seed3." in section(text, "Runs")
    assert "95 % interval" in section(text, "Curves")


def test_a_run_that_logs_less_often_is_smoothed_over_as_many_steps(tmp_path: Path) -> None:
    often, seldom = run_folder(tmp_path, "often"), run_folder(tmp_path, "seldom", exp="paper_gqa")
    lines = (seldom / "train.jsonl").read_text().splitlines()
    kept = [line for line in lines if '"train"' not in line or json.loads(line)["step"] % 25 == 0]
    (seldom / "train.jsonl").write_text("\n".join(kept) + "\n")
    groups = grouped(reported_runs([often, seldom], 128_000))
    figure: Any = overlay(groups, "train", "loss", scale_of([g.runs[0] for g in groups]), title="t", rows=20)
    by_name = {trace.name: trace.y for trace in figure.data}
    assert by_name["seldom"][-1] == pytest.approx(load_run(seldom).train["loss"].iloc[-1], rel=1e-5)
    assert by_name["often"][-1] > load_run(often).train["loss"].iloc[-1] + 0.05
    assert "often, raw" in by_name and "seldom, raw" not in by_name


def test_settings_that_only_some_runs_know_are_told_apart(tmp_path: Path) -> None:
    for name, known in (
        ("new", {"lr": 1, "speed": "auto", "beta1": 0.9}),
        ("other", {"lr": 2, "speed": "off"}),
        ("old", {"lr": 2}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").touch()
        (tmp_path / name / "config.json").write_text(json.dumps({"attn_mode": "standard", **known}))
    text, about = report(tmp_path / "out", tmp_path)
    assert about["tables"] == ["runs", "results", "settings", "settings-partial"]
    settings = section(text, "Settings that differ")
    assert row(settings, "lr") == ["lr", "1", "2", "2"] and row(settings, "speed") == ["speed", "auto", "·", "off"]
    assert "the same in all of them: beta1." in settings


def test_a_single_run_and_one_without_analysis_say_so(tmp_path: Path) -> None:
    text, about = report(tmp_path / "out", run_folder(tmp_path, "alone"))
    assert "With alone alone there is no frontier." in text
    assert "There is nothing to compare the settings of alone with." in text
    assert "- alone: no analysis.h5: nothing by layer and head; no means either." in text
    assert "- alone: analysis.h5 is missing." in section(text, "Missing or broken")
    assert "Attention of alone" not in text and "difference" not in text
    assert about["figures"] == ["validation-loss", "training-loss", "loss-against-kv"]


def test_attention_is_that_of_the_last_probe(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "probed")
    add_analysis(folder)
    text, about = report(tmp_path / "out", folder)
    run = load_run(folder)
    cells = row(section(text, "Attention"), "probed")
    assert cells[:3] == ["probed", "100", f"{run.attention('entropy')[-1].mean():.4g}"]
    assert cells[-1] == f"{run.attention('erank')[-1][CHOSEN]:.4g}"
    assert {"attention", "layers-probed", "heads-probed", "map-probed"} <= set(about["figures"])
    assert "layer 3, head 1, step 100" in section(text, "Attention of probed")
    assert "Grey bars" in text  # rows of the stored maps sum to 0.9


def test_a_model_without_null_key_has_no_null_mass(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "plain", exp="paper_baseline")
    add_analysis(folder, null=False)
    text, _ = report(tmp_path / "out", folder)
    assert "Null mass" not in text and "Effective rank" in text


def test_runs_on_other_text_or_of_other_length_are_told(tmp_path: Path) -> None:
    run_folder(tmp_path, "a", data="one.bin")
    run_folder(tmp_path, "b", data="two.bin", batch_size=4)
    text, _ = report(tmp_path / "out", tmp_path)
    assert "The runs differ in data: their losses need not be about the same text." in text
    assert "The runs saw between 102k (b) and 410k (a) tokens" in text
    assert "the horizontal axis is tokens" in section(text, "Curves")


def test_foreign_and_half_runs_are_reported_with_what_is_missing(shared: Path, tmp_path: Path) -> None:
    text, about = report(tmp_path / "out", shared / "foreign_runs")
    runs = {run["id"]: run for run in about["runs"]}
    assert runs["tiny_bottleneck"]["best_val_loss"] == 4.334908
    assert runs["tiny_bottleneck"]["kv_bytes"] == 294_912_000
    assert "61 of 61 analysis events are errors" in section(text, "Missing or broken")
    assert "- tiny\\_bottleneck: no analysis.h5" in section(text, "Attention")
    assert "means over layers and heads are from its events" in section(text, "Attention")
    assert "## Attention of v27\\_gqa\\_100steps" in text


def test_folders_with_next_to_nothing_have_their_lines(tmp_path: Path) -> None:
    whole = run_folder(tmp_path, "whole")
    for name in ("torn", "empty", "bare"):
        (tmp_path / name).mkdir()
    (tmp_path / "torn" / "train.jsonl").write_bytes((whole / "train.jsonl").read_bytes()[:-30])
    (tmp_path / "torn" / "analysis.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "empty" / "train.jsonl").touch()
    (tmp_path / "bare" / "manifest.json").write_text("{}")
    text, about = report(tmp_path / "out", tmp_path)
    assert [run["id"] for run in about["runs"]] == ["bare", "empty", "torn", "whole"]
    assert row(section(text, "Results"), "empty")[1] == "–"
    assert "Without a training loss curve: bare and empty." in text
    assert "last line is half-written" in section(text, "Missing or broken")
    assert "Without any settings: bare and empty." in section(text, "Settings that differ")


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path / root, "same") for root in ("x", "y")]
    _, about = report(tmp_path / "out", *folders, folders[0])
    assert [run["id"] for run in about["runs"]] == ["x/same", "y/same"]


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "a")
    add_analysis(folder)
    for out in ("one", "two"):
        write_report(Request(runs=[folder]), tmp_path / out)
    names = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(names) == 4 + 3 + 2 * 7  # four documents, three tables, seven figures as PNG and SVG
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    mark = json.loads((tmp_path / "one" / "report.json").read_text())
    assert mark["files"] == [str(name) for name in names]
    linked = re.findall(r"\]\((figures/[^)]+)\)", (tmp_path / "one" / "report.md").read_text())
    assert len(linked) == 14 and all((tmp_path / "one" / name).is_file() for name in linked)


def test_an_earlier_report_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "a")
    write_report(Request(runs=[folder], formats=["md", "tex"]), tmp_path / "out")
    write_report(Request(runs=[folder], formats=["md"]), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.json", "report.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "out"]


@pytest.mark.parametrize("kind", ["file", "other", "added", "run", "above"])
def test_nothing_else_is_overwritten(tmp_path: Path, kind: str) -> None:
    folder = run_folder(tmp_path / "runs", "a")
    out = {"run": folder, "above": tmp_path / "runs"}.get(kind, tmp_path / "out")
    if kind == "file":
        out.write_text("mine")
    elif kind == "other":
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    elif kind == "added":
        write_report(Request(runs=[folder], formats=["md"]), out)
        (out / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="--out"):
        write_report(Request(runs=[folder], formats=["md"]), out)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_without_runs_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    for folder, words in ((tmp_path / "nothing", "holds no run"), (tmp_path / "gone", "is no run folder")):
        with pytest.raises(UserError, match=words):
            write_report(Request(runs=[folder]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
