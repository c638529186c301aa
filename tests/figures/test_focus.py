"""One head among its layer's others, and singular values."""

# Figures get their attributes at run time.
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np

from bottleneck_core.figures.focus import Focus, focus_figure
from bottleneck_core.figures.spectra import Spectrum, spectra_figure
from bottleneck_core.figures.view import View


def focus(name="run", count=3, steps=4, color="#0072B2", at=100) -> Focus:
    values = np.arange(steps * count, dtype=np.float32).reshape(steps, count)
    names = [f"head {i}" for i in range(count)]
    return Focus(name=name, color=color, steps=np.arange(steps) * 100, values=values, chosen=1, names=names, at=at)


def test_the_chosen_head_is_strong_the_others_faint_uniform_dashed():
    figure = focus_figure([focus()], View(), title="Entropy", baseline=4.5)
    lines = {trace.name: trace for trace in figure.data}
    assert set(lines) == {"head 0", "head 1", "head 2", "uniform"}
    assert lines["head 1"].line.color == "#0072B2" and lines["head 0"].line.color.startswith("rgba(")
    np.testing.assert_allclose(lines["head 1"].y, [1, 4, 7, 10])
    assert lines["uniform"].line.dash == "dash" and set(lines["uniform"].y) == {4.5}
    # The strong line lies over the faint ones, and the step is marked.
    assert [trace.name for trace in figure.data].index("head 1") == 2
    assert [shape.x0 for shape in figure.layout.shapes] == [100]
    assert [label.text for label in figure.layout.annotations] == ["head 1 10", "uniform 4.5"]


def test_two_runs_are_told_apart_by_name():
    figure = focus_figure([focus("a"), focus("b", color="#D55E00", at=200)], View(), title="Entropy")
    names = [trace.name for trace in figure.data]
    assert names[-2:] == ["a", "b"] and "b, head 0" in names
    assert [shape.x0 for shape in figure.layout.shapes] == [100, 200]


def test_many_probes_stay_light_and_spikes_stay():
    run = focus(count=16, steps=5000)
    run.values[2500, 3] = 1e6
    figure = focus_figure([run], View(columns=200), title="Entropy")
    assert len(figure.to_json()) < 200_000
    faint = next(trace for trace in figure.data if trace.name == "head 3")
    assert max(faint.y) == 1e6 and len(faint.x) < 400


def test_nothing_measured_yet():
    run = Focus(
        name="a", color="#0072B2", steps=np.arange(2), values=np.full((2, 1), np.nan), chosen=0, names=["head 0"], at=0
    )
    assert focus_figure([run], View(), title="Entropy").layout.annotations[0].text == "no values yet"


def test_the_last_spectrum_is_strong_and_on_top():
    values = np.array([[2.0, 1, 1e-9], [4, 1, 0.5]])
    figure = spectra_figure([Spectrum(name="a", color="#0072B2", steps=[0, 100], values=values)], title="")
    assert [trace.name for trace in figure.data] == ["step 0", "step 100"]
    assert figure.data[1].line.color == "#0072B2" and figure.data[0].line.color.startswith("rgba(")
    assert figure.layout.yaxis.type == "log" and list(figure.data[1].x) == [1, 2, 3]
    assert np.isnan(figure.data[0].y[2])  # zero to half precision has no place on a log axis


def test_no_spectrum():
    assert spectra_figure([], title="").layout.annotations[0].text == "no values yet"
