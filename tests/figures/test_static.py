"""The static picture: as many panels as there is data for, none of them empty, and nothing global touched."""

from __future__ import annotations

import itertools
import json
import math
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bottleneck_core.figures import static
from bottleneck_core.figures.static import picture, write_picture
from bottleneck_core.figures.static_panels import panels_of

EMPTY = pd.DataFrame()
MASSES = ("local_mass", "topk_mass", "null_mass", "sink_mass")


def train_rows(count: int = 300, **columns: Any) -> pd.DataFrame:
    steps = np.arange(count) * 10
    frame = {"step": steps, "loss": 3 + 5 * np.exp(-steps / 500), "tok_s": 1e5 + steps}
    frame |= {"ppl": np.exp(frame["loss"]), "grad_norm_attn": 1.0 + steps, "grad_norm_ffn": 2.0 + steps}
    return pd.DataFrame(frame | columns)


def eval_rows(count: int = 7) -> pd.DataFrame:
    losses = np.array([5.0, 4.5, 4.1, 3.9, 4.0, 3.95, 3.97])[:count]
    return pd.DataFrame({"step": np.arange(count) * 500, "val_loss": losses, "val_ppl": np.exp(losses)})


def arrays(*metrics: str, steps: int = 20) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return {metric: (np.arange(steps) * 100, rng.random((steps, 3, 4))) for metric in metrics}


def draw(**given: Any) -> Figure | None:
    inputs: dict[str, Any] = {
        "title": "a run",
        "train": EMPTY,
        "eval": EMPTY,
        "analysis": EMPTY,
        "attention": {},
    }
    return picture(**(inputs | given))


def titles(figure: Figure | None) -> list[str]:
    assert figure is not None
    return [axes.get_title(loc="left").partition(" (")[0] for axes in figure.axes]


def assert_every_axes_shows_data(figure: Figure) -> None:
    """Each axes has a finite point inside its limits."""
    for axes in figure.axes:
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        points = [np.asarray(line.get_xydata(), dtype=float) for line in axes.lines]
        visible = [
            ((xy[:, 0] >= left) & (xy[:, 0] <= right) & (xy[:, 1] >= low) & (xy[:, 1] <= high)).any() for xy in points
        ]
        assert any(visible), axes.get_title(loc="left")
        assert all(map(math.isfinite, (left, right, low, high))) and low < high


ANALYSIS = pd.DataFrame({"step": [0, 100], "attn_entropy_mean": [4.0, 3.0], "proj_stable_rank_mean": [20.0, 10.0]})
CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({"train": train_rows()[["step", "loss"]]}, ["Loss"]),
    ({"eval": eval_rows()}, ["Loss", "Perplexity"]),
    ({"train": train_rows()}, ["Loss", "Perplexity", "Gradient norm by group", "Throughput"]),
    ({"analysis": ANALYSIS}, ["Attention entropy", "Effective rank of maps, stable rank of Q and K"]),
    ({"attention": arrays("entropy")}, ["Attention entropy"]),
    ({"attention": arrays("sink_mass")}, ["Attention mass"]),
    ({"attention": arrays("distance", "prev_mass")}, []),  # no panel of theirs
    (
        {"train": train_rows(), "eval": eval_rows(), "attention": arrays("entropy", *MASSES, "erank")},
        [
            "Loss",
            "Perplexity",
            "Attention entropy",
            "Attention mass",
            "Effective rank of maps, stable rank of Q and K",
            "Gradient norm by group",
            "Throughput",
        ],
    ),
    (
        {"train": train_rows(3), "attention": arrays("entropy", *MASSES, "erank", "sem_energy_ratio")},
        [
            "Loss",
            "Perplexity",
            "Attention entropy",
            "Attention mass",
            "Effective rank of maps, stable rank of Q and K",
            "Energy of the logits",
            "Gradient norm by group",
            "Throughput",
        ],
    ),
]


@pytest.mark.parametrize(("given", "expected"), CASES)
def test_a_panel_for_each_kind_of_data(given: dict[str, Any], expected: list[str]) -> None:
    figure = draw(**given)
    if not expected:
        assert figure is None
        return
    assert figure is not None
    assert titles(figure) == expected
    assert_every_axes_shows_data(figure)
    cells: list[tuple[int, int]] = []  # the panels cover the whole grid, once
    for axes in figure.axes:
        spec = axes.get_subplotspec()
        assert spec is not None
        cells += [(row, column) for row in spec.rowspan for column in spec.colspan]
    rows, columns = figure.axes[0].get_gridspec().get_geometry()  # type: ignore[union-attr]
    assert sorted(cells) == [(row, column) for row in range(rows) for column in range(columns)]


def test_the_file(tmp_path: Path) -> None:
    path = tmp_path / "analysis.png"
    inputs: dict[str, Any] = {
        "title": "100 $ for \\alpha $",
        "analysis": ANALYSIS,
        "attention": arrays("entropy"),
    }
    assert write_picture(path, train=train_rows(), eval=eval_rows(), **inputs)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", content[16:24])
    assert width == 1600 and 400 < height < 1600
    assert [entry.name for entry in tmp_path.iterdir()] == ["analysis.png"]


def test_nothing_to_draw_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "analysis.png"
    empty = arrays("entropy", steps=0)
    nothing = pd.DataFrame({"step": [0, 1], "loss": [math.nan, math.inf], "grad_norm_attn_sem": [0.0, 0.0]})
    assert not write_picture(path, title="", train=nothing, eval=EMPTY, analysis=EMPTY, attention=empty)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "analysis.png"
    path.write_bytes(b"the old one")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_picture(path, title="", train=train_rows(3), eval=EMPTY, analysis=EMPTY, attention={})
    assert path.read_bytes() == b"the old one" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("rows", [1, 2])
def test_the_first_rows_of_a_run(rows: int, tmp_path: Path) -> None:
    attention = arrays("entropy", *MASSES, "erank", "geo_energy_ratio", steps=rows)
    frames = {"train": train_rows(rows), "eval": eval_rows(rows), "analysis": ANALYSIS[:rows]}
    figure = draw(**frames, attention=attention)
    assert figure is not None and len(figure.axes) == 8
    assert_every_axes_shows_data(figure)
    for axes in figure.axes:  # a point without a marker would be invisible
        assert rows > 1 or any(line.get_marker() == "o" for line in axes.lines)
    assert write_picture(tmp_path / "p.png", title="", **frames, attention=attention)


def loss_axes(**given: Any) -> Axes:
    figure = draw(**given)
    assert figure is not None
    return figure.axes[0]


def test_what_is_not_finite_is_a_gap_and_a_mark(tmp_path: Path) -> None:
    frame = train_rows()
    frame.loc[[100, 101, 200], "loss"] = [math.nan, math.inf, -math.inf]
    frame.loc[[5, 6], "grad_norm_attn"] = [0.0, math.inf]  # a log axis has no place for 0
    axes = loss_axes(train=frame)
    marks = [line for line in axes.lines if line.get_marker() == "x"]
    assert np.asarray(marks[0].get_xdata()).tolist() == [1000, 1010, 2000]
    for line in axes.lines:
        if line not in marks:
            xy = np.asarray(line.get_xydata(), dtype=float)
            assert np.isnan(xy[np.isin(xy[:, 0], [1000, 1010, 2000]), 1]).all()
            assert np.isfinite(xy[:, 1]).sum() == 297
    assert "3 steps without a finite loss" in axes.figure.texts[1].get_text()
    assert write_picture(tmp_path / "p.png", title="", train=frame, eval=EMPTY, analysis=EMPTY, attention={})


def test_the_best_validation_loss_is_marked() -> None:
    frame = eval_rows()
    frame.loc[4, "val_loss"] = math.nan
    axes = loss_axes(train=train_rows(), eval=frame)
    star = next(line for line in axes.lines if line.get_marker() == "*")
    assert np.asarray(star.get_xydata()).tolist() == [[1500, 3.9]]
    assert "best validation loss 3.9000 at step 1,500" in axes.figure.texts[1].get_text()


def test_curves_are_smoothed_over_their_raw_values() -> None:
    rng = np.random.default_rng(0)
    noisy = 3 + rng.normal(size=3000)
    axes = loss_axes(train=pd.DataFrame({"step": np.arange(3000), "loss": noisy}))
    raw, smooth = axes.lines
    assert (raw.get_alpha(), smooth.get_alpha()) == (0.25, 1.0)
    assert np.asarray(raw.get_ydata()).max() == noisy.max()  # extremes are drawn, however many rows
    assert np.std(np.asarray(smooth.get_ydata())[500:]) < 0.3 * np.std(noisy)


def test_means_and_layers_come_from_the_arrays() -> None:
    values = np.full((2, 3, 4), np.nan)
    values[0, :, 0], values[1, 2, 3] = [1.0, 2.0, 6.0], 5.0
    panel = panels_of(EMPTY, EMPTY, ANALYSIS, {"entropy": ([0, 100], values)})[0]
    assert [line.label for line in panel.lines] == ["layer 0", "", "layer 2", "mean"]
    np.testing.assert_array_equal(panel.lines[3].y, [3.0, 5.0])
    np.testing.assert_array_equal(panel.lines[2].y, [6.0, 5.0])
    np.testing.assert_array_equal(panel.lines[0].y, [1.0, math.nan])


def test_no_null_line_without_a_null_key() -> None:
    attention = arrays(*MASSES)
    assert "null" in [line.label for line in panels_of(EMPTY, EMPTY, EMPTY, attention)[0].lines]
    attention["null_mass"] = (attention["null_mass"][0], np.zeros((20, 3, 4)))
    assert "null" not in [line.label for line in panels_of(EMPTY, EMPTY, EMPTY, attention)[0].lines]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_labels_keep_their_distance_and_order(shares: list[float]) -> None:
    places = static._spread(sorted(shares))
    assert places == sorted(places)
    assert all(b - a >= static._LABEL_GAP - 1e-9 for a, b in itertools.pairwise(places))
    assert max(places) <= max(1.0, static._LABEL_GAP * len(shares)) + 1e-9
    for share, place in zip(sorted(shares), places, strict=True):
        assert abs(place - share) <= static._LABEL_GAP * len(shares)


# what a log may hold: null, NaN and infinities, and numbers within what a run can reach
logged = st.one_of(st.none(), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1e30]), st.floats(1e-6, 1e6))
step_numbers = st.integers(0, 10**6)


@settings(max_examples=25, deadline=None, phases=[Phase.reuse, Phase.generate])
@given(
    st.lists(st.tuples(step_numbers, logged, logged, logged), max_size=60),
    st.lists(st.tuples(step_numbers, logged), max_size=5),
)
def test_any_numbers_make_a_picture(train: list[tuple], evals: list[tuple]) -> None:
    """As many axes as panels with data, whatever the values; steps may come in any order, and twice."""
    frame = pd.DataFrame(train, columns=["step", "loss", "grad_norm_attn", "tok_s"])
    losses = pd.DataFrame(evals, columns=["step", "val_loss"])
    figure = draw(train=frame, eval=losses)
    shown = {name for name in frame.columns[1:] if is_known(frame[name].tolist(), log=name == "grad_norm_attn")}
    expected = len(shown) + (is_known(losses["val_loss"].tolist()) and "loss" not in shown)
    assert (0 if figure is None else len(figure.axes)) == expected
    if figure is not None:
        assert_every_axes_shows_data(figure)


def is_known(column: list[float | None], log: bool = False) -> bool:
    values = [value for value in column if value is not None and math.isfinite(value)]
    return any(value > 0 or not log for value in values)


def test_no_state_is_left_behind(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    assert write_picture(
        tmp_path / "p.png", title="", train=train_rows(), eval=eval_rows(), analysis=EMPTY, attention={}
    )
    assert dict(matplotlib.rcParams) == before


def test_the_training_path_imports_neither_pyplot_nor_plotly() -> None:
    """In a fresh interpreter: a picture is drawn, and none of these is loaded."""
    program = """
import json, sys, tempfile
import pandas as pd
from bottleneck_core.figures.static import write_picture
frame, empty = pd.DataFrame({"step": [0, 1], "loss": [2.0, 1.0]}), pd.DataFrame()
drawn = write_picture(tempfile.mktemp(), title="", train=frame, eval=empty, analysis=empty, attention={})
names = ("torch", "plotly", "streamlit", "duckdb", "matplotlib.pyplot")
print(json.dumps([drawn, [name for name in names if name in sys.modules]]))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == [True, []]
