"""The notebooks: each is run from top to bottom on tiny runs, its figures have to hold data, its controls to work."""

from __future__ import annotations

import base64
import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from bottleneck_core.data.prepare import prepare
from tests.conftest import ROOT

FOLDER = ROOT / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Case:
    """How a notebook is shortened, the number of its figures and panels of controls, and what is asked at its end."""

    parameters: str
    figures: int
    panels: int = 0
    after: str = ""


CASES = {
    "01_train_a_nano_model": Case(
        parameters="""
            STEPS = 6
            SETTINGS = {"batch_size": 2, "block_size": 64, "eval_iters": 1, "analysis_heads": "0"}
            NEW_TOKENS = 8
            CORPUS, FOLDER = "corpus.bin", "mine"
        """,
        figures=7,
        after="""
            assert run.last_step == STEPS and run.path.parent.name == "mine"
            assert run.best_val_loss < 6 and not run.errors
            assert len(drawn) == NEW_TOKENS
        """,
    ),
    "02_browse_and_compare_runs": Case(
        parameters="",
        figures=3,
        panels=1,
        after="""
            assert len(found) == 2 and len(chart.data) >= 2
            before = chart.layout.title.text
            metric.value = ("train", "loss")
            axis.value = "tokens"
            averaged.value = 3
            assert chart.layout.title.text != before
            assert chart.layout.xaxis.title.text == "tokens" and len(chart.data[-1].x) == 30
            assert bc.METRICS["loss"].definition in meaning.value
            assert "attn_mode" in {setting.name for setting in settings}
        """,
    ),
    "03_attention_over_training": Case(
        parameters="",
        figures=15,
        panels=2,
        after="""
            assert name == "substitute_bottleneck" and rival == "substitute_baseline"
            first_map = heads.data[0].z.copy()
            probe.value = len(probes.steps) - 1
            assert (heads.data[0].z != first_map).any()
            metric.value = "local_mass"
            assert bc.METRICS["local_mass"].definition in definition.value
            at.value = stored[0]
            assert "step 0" in picture.layout.title.text
            first.value = 20
            assert picture.data[0].x[0].startswith("20 ")
            log.value = False
            assert picture.data[0].zmax < 1
        """,
    ),
    "04_kv_what_if": Case(
        parameters="CHECKED_CONTEXT = 200",
        figures=2,
        panels=1,
        after="""
            assert checked["agree"].all() and len(checked) == 16
            sizes = list(chart.data[-2].y)
            batch.value = 3
            assert list(chart.data[-2].y) == [3 * size for size in sizes]
            keys.value = values.value = "q4_0"
            assert max(chart.data[-2].y) < max(sizes)
            models.value = ("substitute_bottleneck", "gpt2")
            assert "substitute_bottleneck" in table.value and "gpt2" in table.value
            context.value = contexts[0]
            assert f"{contexts[0]:,}" in str(chart.layout.annotations)
        """,
    ),
    "05_cache_quality": Case(
        parameters="""
            CONTEXTS, WINDOWS, SCORED, NEW_TOKENS = [32, 64], 3, 16, 8
            HELD_OUT = "corpus.bin"
            POLICIES = ["q8_0,residual=0", "q4_0,residual=0", "q4_0"]
        """,
        figures=2,
        after="""
            assert [row.context for row in rows] == [32] * 4 + [64] * 4
            coarse = {row.policy: row for row in shown}
            assert coarse["q4_0,residual=0"].kl_mean > coarse["q8_0,residual=0"].kl_mean > 0
            assert coarse["q4_0"].packed_share == 0 and coarse["q4_0"].kl_mean == 0
            assert set(texts) == {"fp16", *POLICIES}
        """,
    ),
    "06_reproduce_results": Case(
        parameters="""
            SIZE, OUT = "nano", "results"
        """,
        figures=19,
        after="""
            assert (folder / "report.md").is_file() and (folder / "report.html").is_file()
            assert [run["id"] for run in about["runs"]] == ["substitute_baseline", "substitute_bottleneck"]
            assert folder.parent.name == "results"
            assert len(checked) > 30 and set(checked["size"]) == {"tiny", "nano"}
        """,
    ),
}


@pytest.fixture(scope="module")
def start() -> Iterator[ModuleType]:
    """The module that the notebooks begin with."""
    spec = importlib.util.spec_from_file_location("start", FOLDER / "start.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module


@pytest.fixture(scope="module")
def desk(start: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the notebooks beside a small corpus and two tiny runs."""
    folder = tmp_path_factory.mktemp("desk")
    for path in (*FOLDER.glob("*.ipynb"), FOLDER / "start.py"):
        shutil.copy(path, folder)
    code = str(ROOT / "bottleneck_core" / "memory" / "*.py")
    prepare("files", tokenizer="byte", globs=[code], out=folder / "corpus.bin")
    start.train_substitutes(folder / "runs", folder / "corpus.bin")
    return folder


def test_each_notebook_has_a_case() -> None:
    assert list(CASES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_stored_notebooks_hold_no_results(name: str) -> None:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert [notebook.cells.index(cell) for cell in tagged] == [1]
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None, cell.source
        assert not set(cell.metadata) - {"tags"}
        assert not any(place in cell.source for place in ("/tmp", "/home", "/root", "/work")), cell.source


@pytest.mark.e2e
@pytest.mark.parametrize("name", CASES)
def test_notebook_runs(name: str, desk: Path) -> None:
    case = CASES[name]
    notebook = nbformat.read(desk / f"{name}.ipynb", 4)
    notebook.cells.insert(2, nbformat.v4.new_code_cell(_lines(case.parameters)))
    notebook.cells.append(nbformat.v4.new_code_cell(_lines(case.after)))
    settings = {"BOTTLENECK_RUNS": str(desk / "runs"), "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(desk / "ipython")}
    client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(desk)}})
    client.execute(env={**os.environ, **settings})  # raises for a cell that does

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    shown = [output.data for output in outputs if output.output_type in ("display_data", "execute_result")]
    figures = [data[PLOTLY] for data in shown if PLOTLY in data]
    assert len(figures) == case.figures
    for figure in figures:
        assert _points(figure) > 0, figure["layout"]["title"]
    assert sum(WIDGET in data for data in shown) == case.panels


def test_without_runs_two_are_trained(
    start: ModuleType, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("BOTTLENECK_RUNS", os.pathsep.join([str(tmp_path / "empty"), str(tmp_path / "absent")]))
    monkeypatch.setattr(start, "corpus_file", lambda: desk / "corpus.bin")
    monkeypatch.setattr(start, "_SMALL", {**start._SMALL, "steps": 2})
    monkeypatch.setattr(start.tempfile, "mkdtemp", lambda prefix: str(tmp_path / prefix))
    found = start.find_runs()
    assert [run.id for run in found] == ["substitute_baseline", "substitute_bottleneck"]
    assert all(run.best_val_loss is not None and len(run.attention_steps) for run in found)
    assert "python -m bottleneck_core train" in capsys.readouterr().out


def test_runs_are_taken_where_they_are(start: ModuleType, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOTTLENECK_RUNS", str(desk / "runs"))
    assert [run.id for run in start.find_runs()] == ["substitute_baseline", "substitute_bottleneck"]
    assert [run.id for run in start.find_runs(lambda run: run.attn_mode == "standard")] == ["substitute_baseline"]


def _lines(code: str) -> str:
    """`code` without its indentation."""
    return "\n".join(line.strip() for line in code.strip().splitlines())


def _points(figure: dict[str, Any]) -> int:
    """Finite values of all traces of a figure."""
    return sum(
        max(_finite(trace.get("z")), min(_finite(trace.get("x")), _finite(trace.get("y")))) for trace in figure["data"]
    )


def _finite(values: Any) -> int:
    """How many of a trace's values have a place: finite numbers and names."""
    if isinstance(values, dict):
        numbers = np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"])
        return int(np.isfinite(numbers).sum())
    return sum(value is not None and value == value for value in _flat(values or []))


def _flat(values: Any) -> list[Any]:
    return [item for value in values for item in (_flat(value) if isinstance(value, list) else [value])]
