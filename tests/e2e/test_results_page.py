"""docs/RESULTS.md: its tables, sentences and figures are those of the runs, and what its prose says holds for them."""

from __future__ import annotations

import importlib.util
import json
import re
from types import ModuleType

import numpy as np
import pytest

import bottleneck_core as bc
from bottleneck_core.report.document import Document
from bottleneck_core.report.files import stems
from bottleneck_core.report.markdown import markdown
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "RESULTS.md").read_text(encoding="utf-8")
FIGURES = ROOT / "docs" / "results"
STALE = "docs/RESULTS.md is stale: run make results"
LARGEST = 1_500_000
NAMES = ("baseline", "bottleneck", "decoupled")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """docs/results.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_results", ROOT / "docs" / "results.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def documents(script: ModuleType) -> dict[str, Document]:
    """The report on each set of runs, not drawn."""
    return {name: script.document(name) for name in script.SETS}


def test_tables_and_sentences_are_those_of_the_runs(script: ModuleType, documents: dict[str, Document]) -> None:
    reports = {}
    for name, document in documents.items():
        sheets = [picture.sheet.name for picture in document.pictures]
        reports[name] = markdown(document, dict(zip(sheets, stems(sheets), strict=True)), ["svg"])
    assert script.page(PAGE, reports) == PAGE, STALE
    assert script.page(re.sub(r"\d", "0", PAGE), reports) != re.sub(r"\d", "0", PAGE)


def test_a_number_in_the_prose_comes_from_a_file(script: ModuleType) -> None:
    mark = "<!-- value runs/nano_gqa_ref/manifest.json: hardware.cores .1f -->"
    assert script.page(f"on {mark}9<!-- end --> cores", {}) == f"on {mark}2.0<!-- end --> cores"


def test_figures_show_the_runs(script: ModuleType, documents: dict[str, Document]) -> None:
    stored = json.loads((FIGURES / "figures.json").read_text(encoding="utf-8"))
    shown = script.shown_values(documents, script.pictures(PAGE))
    assert list(stored) == list(shown), STALE
    for name, traces in shown.items():
        assert len(traces) == len(stored[name]) > 0, STALE
        for now, before in zip(traces, stored[name], strict=True):
            assert now["name"] == before["name"] and now.keys() == before.keys(), STALE
            for axis in now.keys() - {"name"}:
                assert np.allclose(now[axis], before[axis], rtol=1e-4, atol=1e-6), f"{name}, {now['name']}: {STALE}"


def test_figures_are_there_and_small(script: ModuleType) -> None:
    kept = {path.relative_to(FIGURES).as_posix(): path.stat().st_size for path in FIGURES.rglob("*") if path.is_file()}
    assert set(kept) == {*script.pictures(PAGE), "figures.json"}
    assert sum(kept.values()) < LARGEST


def test_every_number_is_in_a_line_of_its_run(documents: dict[str, Document], script: ModuleType) -> None:
    for name, document in documents.items():
        ids = {path.name for path in script.run_folders(name)}
        for table in document.tables:
            if table.name == "settings":
                assert ids <= set(table.header)
            else:
                assert {row[0] for row in table.rows} <= ids


def test_no_number_of_a_run_is_typed_in(documents: dict[str, Document]) -> None:
    prose = re.sub(r"<!-- (report|value) .*?<!-- end -->", "", PAGE, flags=re.DOTALL)
    cells = {cell for d in documents.values() for table in d.tables for row in table.rows for cell in row}
    measured = {cell for cell in cells if re.search(r"\d.*\.|\.\d|\d[kMG]", cell)}
    assert len(measured) > 40
    words = set(re.findall(r"[\w.,]+\d[\w.]*|\d[\w.,]*", prose))
    assert not measured & words
    assert not re.search(r"\d\.\d", prose)


def test_what_the_prose_says_of_the_tiny_runs_holds() -> None:
    base, narrow, split = (bc.load_run(ROOT / "runs" / f"tiny_{name}_ref") for name in NAMES)
    losses = [run.eval.set_index("step")["val_loss"].to_numpy() for run in (base, narrow, split)]
    assert (losses[0][5:] < losses[1][5:]).all() and (losses[1][5:] < losses[2][5:]).all()
    sizes = [bc.kv_memory(run, 128_000).bytes for run in (base, narrow, split)]
    assert sizes[0] > sizes[1] == sizes[2]
    weights = [run.n_params or 0 for run in (base, narrow, split)]
    assert weights[0] > weights[1] > weights[2] > 0
    assert split.best_val_step != split.last_step
    configs = [run.config for run in (base, narrow, split)]
    assert {(c["lr_schedule"], c["warmup_steps"], c["optimizer"], c["seed"]) for c in configs} == {
        ("constant", 0, "adamw", 1337)
    }


def test_what_the_prose_says_of_grouped_queries_holds() -> None:
    base, shared = (bc.load_run(ROOT / "runs" / f"tiny_{name}_ref") for name in ("baseline", "gqa"))
    assert 4 * bc.kv_memory(shared, 128_000).bytes == bc.kv_memory(base, 128_000).bytes
    rerun = json.loads((ROOT / "benchmarks" / "results" / "rerun.json").read_text(encoding="utf-8"))
    assert rerun["measured"]["runs"][0]["id"] == "tiny_bottleneck_ref"
    noise = rerun["measured"]["validation_loss"]["largest_size"]
    assert abs(shared.eval["val_loss"].iloc[-1] - base.eval["val_loss"].iloc[-1]) < noise
