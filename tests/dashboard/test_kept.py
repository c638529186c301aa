"""What reruns draw anew and what they have kept: charts, rows, and plotly.js."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bottleneck_core.store.lock import RunLock
from dashboard.kept import Kept, Same
from dashboard.runs import query as runs_query

from .conftest import array, charts, trace


class Counted:
    """A function that counts its calls."""

    def __init__(self, function: Any) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *words: Any, **options: Any) -> Any:
        self.calls += 1
        return self.function(*words, **options)


@pytest.fixture
def counted(monkeypatch):
    """`counted("dashboard.run.curves.loss_figure")` counts the calls of what has that name from now on."""

    def count(name: str) -> Counted:
        module, _, attribute = name.rpartition(".")
        found = Counted(getattr(__import__(module, fromlist=[attribute]), attribute))
        monkeypatch.setattr(name, found)
        return found

    return count


def test_the_values_that_were_asked_for_last_are_kept():
    kept, made = Kept(2), []

    def ask(key: str) -> str:
        return kept.get(key, lambda: made.append(key) or key.upper())

    assert [ask(key) for key in "abab"] == list("ABAB") and made == ["a", "b"]
    ask("a")
    ask("c")  # b was asked for longest ago
    ask("a")
    assert made == ["a", "b", "c"]
    ask("b")
    assert made == ["a", "b", "c", "b"]
    kept.clear()
    ask("b")
    assert made[-1] == "b" and len(made) == 5


def test_rows_are_the_same_where_each_of_them_is():
    rows = [{"id": name} for name in "abc"]
    other = [*rows[:1], dict(rows[1]), *rows[2:]]  # equal, and another: it was read anew
    assert Same(rows) == Same(list(rows)) and hash(Same(rows)) == hash(Same(list(rows)))
    assert Same(rows) != Same(other) and Same(rows) != Same(rows[:2]) and Same([]) == Same([])


def test_a_rerun_of_the_run_page_draws_what_has_changed_and_nothing_else(app, make_run, tmp_path, counted):
    run = make_run("live", steps=20_000)
    run.train(6000)
    loss, gradients = counted("dashboard.run.curves.loss_figure"), counted("dashboard.run.curves.gradient_figure")
    with RunLock(run.path):
        test = app(tmp_path).run("live")
        before = charts(test)
        test.run()
        assert charts(test) == before and (loss.calls, gradients.calls) == (1, 1)
        test.slider(key="smoothing").set_value(0.5).run()
        assert (loss.calls, gradients.calls) == (2, 2)
        test.slider(key="smoothing").set_value(0.9).run()
        assert charts(test) == before and loss.calls == 2

        run.train(700)
        test.run()
        assert not test.exception
        after = charts(test)
        assert (loss.calls, gradients.calls) == (3, 3)
        # Seen at once, and the points that were there stay where they were.
        old, new = (trace(drawn["loss"], "train, raw") for drawn in (before, after))
        assert array(old["x"])[-1] == 5999 and array(new["x"])[-1] == 6699
        assert set(array(old["x"]).tolist()[:-50]) <= set(array(new["x"]).tolist())


def test_probes_that_come_are_drawn_and_the_others_are_not_drawn_again(app, make_run, tmp_path, counted):
    run = make_run("live")
    run.train(20)
    lines = counted("dashboard.run.attention.layer_lines")
    with RunLock(run.path):
        test = app(tmp_path).run("live", tab="Attention")
        assert not charts(test)
        run.analyse(probes=3)  # comes between two looks at a run that has nothing else that is new
        test.run()
        drawn = charts(test)
        assert lines.calls == 4
        test.run()
        assert charts(test) == drawn and lines.calls == 4
        (run.path / "analysis.h5").unlink()
        run.analyse(probes=4)
        test.run()
        assert not test.exception and lines.calls == 8
        assert array(charts(test)["entropy-lines"]["data"][0]["x"]).tolist() == [0, 10, 20, 30]


def test_the_picture_of_all_runs_is_drawn_anew_when_one_of_them_is(app, make_run, tmp_path, counted):
    runs = [make_run(name, exp=exp) for name, exp in (("a", "paper_bottleneck"), ("b", "paper_gqa"))]
    for run in runs:
        run.train(20)
    figure, order = counted("bottleneck_core.figures.frontier.quality_figure"), counted("dashboard.runs.query.ordered")
    runs_query.MADE.clear()
    test = app(tmp_path).runs()
    first = charts(test)["quality"]
    drawn, sorted_ = figure.calls, order.calls
    assert drawn and sorted_
    test.run()
    assert charts(test)["quality"] == first and (figure.calls, order.calls) == (drawn, sorted_)
    runs[0].evaluate(20, 1.5)
    test.run()
    points = {name: trace(charts(test)["quality"], name)["y"] for name in ("bottleneck", "gqa")}
    assert points["bottleneck"] == [1.5] and np.all(np.asarray(points["gqa"]) > 2)
    assert (figure.calls, order.calls) == (drawn + 1, sorted_ + 1)
