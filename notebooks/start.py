"""What all notebooks begin with: the package, also from a checkout without installation, and the runs to look at.

from start import ROOT, find_runs
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if importlib.util.find_spec("bottleneck_core") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bottleneck_core as bc

if TYPE_CHECKING:
    from collections.abc import Callable

    from plotly.graph_objects import Figure, FigureWidget

    from bottleneck_core import Run

ROOT = Path(bc.__file__).resolve().parents[1]

# A model of two small layers: it learns little, and is trained in seconds on any computer.
_SMALL = {"n_layer": 2, "d_model": 32, "n_head": 4, "d_ff": 64, "block_size": 64, "batch_size": 8, "steps": 30}
_OFTEN = {"log_every": 1, "eval_every": 10, "eval_iters": 2, "analysis_every": 10, "analysis_heads": "0,1"}
# Pixels of charts that widgets change: they do not follow the page's width.
_WIDTH = 900
_SUBSTITUTES = {
    "paper_baseline": {},
    "paper_bottleneck": {"attn_dim": 16},
}


def run_roots() -> list[Path]:
    """The folders of runs: those of BOTTLENECK_RUNS (separated like PATH), else the checkout's `runs/`."""
    named = os.environ.get("BOTTLENECK_RUNS")
    return [Path(part).expanduser() for part in named.split(os.pathsep) if part] if named else [ROOT / "runs"]


def find_runs(usable: Callable[[Run], object] | None = None) -> list[Run]:
    """The runs below `run_roots()`, by default all, else those for which `usable` holds.

    Where none is usable (by default: has a validation loss), two tiny ones are trained in a temporary folder.
    """
    known = usable or (lambda run: run.best_val_loss is not None)
    found = [run for root in run_roots() if root.is_dir() for run in bc.load_runs(root)]
    if not any(known(run) for run in found):
        folders = ", ".join(map(str, run_roots()))
        print(
            f"No run in {folders} has what this notebook reads: two tiny substitutes are trained now, in seconds. For "
            "runs worth reading: python -m bottleneck_core train --size nano --exp paper_all"
        )
        found += bc.load_runs(train_substitutes(tempfile.mkdtemp(prefix="substitutes-")))
    return [run for run in found if usable is None or usable(run)]


def train_substitutes(folder: str | os.PathLike[str], corpus: Path | None = None, **settings: object) -> Path:
    """Trains a standard and a bottleneck model, far too small and too short to mean anything, below `folder`.

    `corpus` is a token file of bytes, by default `corpus_file()`; `settings` are flags of `train`.
    """
    data = str(corpus or corpus_file())
    for experiment, dims in _SUBSTITUTES.items():
        out = Path(folder) / f"substitute_{experiment.removeprefix('paper_')}"
        given = {**_SMALL, **_OFTEN, **dims, "data": data, "out_dir": str(out), **settings}
        bc.train(bc.RunConfig.resolve(size="nano", exp=experiment, **given))
    return Path(folder)


def corpus_file() -> Path:
    """The Python standard library's source as bytes, prepared in the checkout's `data/` where it is not there yet."""
    from bottleneck_core.data.prepare import default_corpus

    return default_corpus("byte", ROOT / "data")


def redraw(chart: FigureWidget, figure: Figure) -> None:
    """Shows another figure in a chart that is on the page already: a new chart would send all of plotly again."""
    chart.data = []
    chart.layout = figure.layout
    chart.update_layout(width=_WIDTH)
    chart.add_traces(figure.data)
