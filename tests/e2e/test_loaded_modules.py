"""What importing a part really loads: a static check sees imports, not whether they happen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.commands import ROOT

HEAVY = ("torch", "streamlit", "duckdb", "plotly", "pandas", "matplotlib", "h5py")


def loaded(statement: str, folder: Path = ROOT) -> set[str]:
    """The top-level modules that a fresh interpreter has after `statement`."""
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import bottleneck_core", ()),
        ("import bottleneck_core.jobs.supervisor", ()),  # stays in memory as long as a run
        ("import bottleneck_core.cli.serve, bottleneck_core.cli.jobs", ()),
        ("import bottleneck_core.cli.demo", ()),
        ("import bottleneck_core as bc; bc.RunConfig.resolve(size='nano')", ()),
        ("import bottleneck_core as bc; bc.load_runs, bc.kv_memory, bc.index", ("pandas", "h5py")),
        ("import bottleneck_core.train, bottleneck_core.probe", ("torch", "pandas", "h5py")),
    ],
)
def test_heavy_packages_are_loaded_only_where_they_are_used(statement: str, allowed: tuple[str, ...]) -> None:
    assert loaded(statement) & set(HEAVY) <= set(allowed)


def test_a_trainer_has_loaded_neither_duckdb_nor_plotly_when_it_ends(tmp_path: Path) -> None:
    shape = ["--layers", "1", "--block", "32", "--batch-size", "2", "--steps", "2", "--eval-iters", "1"]
    words = ["train", "--size", "nano", "--exp", "paper_decoupled", "--device", "cpu", *shape]
    modules = loaded(f"from bottleneck_core.cli import main; assert main({words}) == 0", tmp_path)
    assert {"torch", "h5py", "matplotlib"} <= modules  # it trained, probed and drew
    assert not modules & {"duckdb", "plotly", "streamlit"}


def test_the_check_sees_what_is_loaded() -> None:
    assert "h5py" in loaded("import bottleneck_core.store.analysis")
