"""The Compare page: what is in the address, what is drawn and said; ticks of the table of runs."""

from __future__ import annotations

import csv
import io
import json
from typing import Any
from urllib.parse import parse_qs, quote

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from bottleneck_core.config import RunConfig
from bottleneck_core.figures.moving_average import moving_average
from bottleneck_core.figures.smoothing import ema
from bottleneck_core.store.lock import RunLock
from dashboard.compare import curves as compare_curves
from dashboard.compare.data import compared_runs
from dashboard.compare.groups import EACH, grouped
from dashboard.compare.runs import chosen_rows, runs_text
from dashboard.runs import selection as runs_selection
from dashboard.state import run_rows

from .conftest import App, array, charts, texts, trace

HOSTILE = "<img src=x onerror=alert(1)>[a](b)$x_y,@%"


def compare(app: App, *names: str, **query: str) -> AppTest:
    """The page in a browser of its own."""
    if names:
        query["runs"] = ",".join(names)
    return app._open("dashboard/pages/compare.py", query)


def address(test: AppTest) -> str:
    """The runs in the address."""
    value = test.query_params["runs"]
    return value if isinstance(value, str) else value[0]


def turn(test: AppTest) -> tuple[str, dict[str, list[str]]] | None:
    """The page that the browser is sent to, and its address."""
    for link in test.get("page_link"):
        proto: Any = link.proto  # pyright: ignore[reportAttributeAccessIssue]
        if proto.label.startswith("Opening"):
            return proto.page, parse_qs(proto.query_string)
    return None


def chips(test: AppTest) -> list[dict[str, Any]]:
    found = [e.proto.json for e in test.get("bidi_component") if e.proto.json]  # pyright: ignore[reportAttributeAccessIssue]
    return next(json.loads(text)["chips"] for text in found if "chips" in text)


@pytest.fixture
def two(make_run):
    """Two finished runs that differ in their attention."""
    for name, exp in (("small_cache", "paper_bottleneck"), ("large_cache", "paper_baseline")):
        run = make_run(name, exp=exp)
        run.train(100)
        run.finish()
    return "small_cache", "large_cache"


@pytest.fixture
def seeds(make_run):
    """Three seeds of two variants, `a_seed1` to `b_seed3`, with losses of their own."""
    for variant, exp, base in (("a", "paper_bottleneck", 3.0), ("b", "paper_baseline", 2.0)):
        for seed in (1, 2, 3):
            run = make_run(f"{variant}_seed{seed}", exp=exp)
            config = RunConfig.resolve(size="nano", exp=exp, steps=100, log_every=1, seed=seed)
            run.write("config.json", config.model_dump(mode="json"))
            run.train(40, loss=base + 0.01 * seed)
    return [f"{variant}_seed{seed}" for variant in "ab" for seed in (1, 2, 3)]


# Address


def row(run_id, root="/x"):
    return {"id": run_id, "path": f"{root}/{run_id}", "status": "done"}


def test_the_address_names_any_run_and_keeps_their_order():
    rows = [row("a"), row("b/c"), row("d,e@f%2C"), row("a", "/y"), row("@")]
    text = runs_text(rows[::-1], rows)
    assert text == "%40,a@/y,d%2Ce%40f%252C,b/c,a@/x"
    assert chosen_rows(text, rows) == (rows[::-1], [])
    assert chosen_rows("b/c,b/c,gone,,a", rows) == ([rows[1], rows[0]], ["gone"])
    assert chosen_rows(None, rows) == ([], [])


def test_no_runs_chosen_says_what_to_do(app, tmp_path, two):
    test = compare(app(tmp_path))
    assert not test.exception and "tick runs" in test.info[0].value
    assert test.get("page_link") and test.selectbox(key="add_run").options == ["large_cache", "small_cache"]
    test.selectbox(key="add_run").select("large_cache").run()
    assert not test.exception and address(test) == "large_cache"
    assert [chip["name"] for chip in chips(test)] == ["large_cache"]


def test_a_run_that_is_gone_is_named_and_the_rest_is_shown(app, tmp_path, two):
    test = compare(app(tmp_path), "gone_*run*", two[0])
    assert r"gone\_\*run\*" in test.warning[0].value and len(chips(test)) == 1


def test_without_any_run_at_all(app, tmp_path):
    test = compare(app(tmp_path), "gone")
    assert not test.exception and test.info and test.selectbox(key="add_run").disabled


# Curves


def test_both_curves_in_the_order_and_colours_of_the_chips(app, tmp_path, two):
    test = compare(app(tmp_path), *two)
    assert not test.exception
    overlay = charts(test)["overlay"]
    assert [t["name"] for t in overlay["data"]] == list(two)
    assert [t["line"]["color"] for t in overlay["data"]] == [chip["light"] for chip in chips(test)]
    assert overlay["layout"]["title"]["text"] == "Validation loss (nats/token)"
    assert overlay["layout"]["xaxis"]["title"]["text"] == "step"
    np.testing.assert_array_equal(array(overlay["data"][0]["x"]), [*range(0, 100, 10), 100])


def test_the_address_shapes_the_overlay(app, tmp_path, two):
    dashboard = app(tmp_path)
    query = {"metric": "Training loss", "axis": "tokens", "rows_train": "5", "scales": "log y"}
    overlay = charts(compare(dashboard, *two, **query))["overlay"]
    assert [t["name"] for t in overlay["data"]] == [f"{two[0]}, raw", f"{two[1]}, raw", *two]
    assert overlay["layout"]["yaxis"]["type"] == "log" and overlay["layout"]["xaxis"]["title"]["text"] == "tokens"
    raw, smoothed = (array(trace(overlay, name)["y"]) for name in (f"{two[0]}, raw", two[0]))
    np.testing.assert_allclose(smoothed, ema(raw, 0.8), rtol=1e-5)
    moving = charts(compare(dashboard, *two, smooth="moving mean", **query))["overlay"]
    np.testing.assert_allclose(array(trace(moving, two[0])["y"]), moving_average(raw, 5), rtol=1e-5)


def test_flops_come_from_the_configuration_and_what_it_does_not_tell_is_said(app, tmp_path, two):
    (tmp_path / "unknown").mkdir()
    lines = [{"type": "eval", "step": s, "val_loss": 3.0 - s, "wall_time": "2026-01-01T00:00:00"} for s in (0, 1)]
    (tmp_path / "unknown" / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    test = compare(app(tmp_path), *two, "unknown", axis="FLOPs")
    overlay = charts(test)["overlay"]
    assert [t["name"] for t in overlay["data"]] == list(two)
    assert overlay["layout"]["xaxis"]["title"]["text"] == "training compute (FLOPs)"
    x = array(trace(overlay, two[0])["x"])
    assert x[-1] == pytest.approx(100 * 4096 * 6 * 877_568, rel=0.5)  # 6 N D, attention and embedding aside
    assert "does not tell the FLOPs of unknown" in texts(test)


def test_runs_that_log_less_often_are_averaged_over_the_same_steps():
    look = compare_curves.Look(
        metric="loss",
        kind="train",
        x_axis="step",
        smoothing=compare_curves.MOVING,
        strength=20,
        every=10,
        band="min to max",
        log_x=False,
        log_y=False,
        all_values=False,
    )
    values = np.random.default_rng(0).normal(size=100)
    np.testing.assert_allclose(look.smoothed(values, 10), moving_average(values, 20))
    np.testing.assert_allclose(look.smoothed(values, 50), moving_average(values, 4))
    np.testing.assert_allclose(look.smoothed(values, np.inf), values)


def test_a_metric_that_only_one_run_has_names_the_other(app, tmp_path, two, make_run):
    make_run("no_losses")
    test = compare(app(tmp_path), two[0], "no_losses")
    assert r"Without validation loss on this axis: no\_losses." in texts(test)
    alone = compare(app(tmp_path), "no_losses")
    assert not alone.exception and "logged a number" in texts(alone)


def test_a_running_run_grows_and_ends(app, tmp_path, two, make_run):
    live = make_run("live")
    live.train(21)
    with RunLock(live.path):
        test = compare(app(tmp_path), two[0], "live")
        assert array(trace(charts(test)["overlay"], "live")["x"])[-1] == 20
        live.train(20)
        assert array(trace(charts(test.run())["overlay"], "live")["x"])[-1] == 40
    assert not test.run().exception


def test_the_data_of_the_chart(app, tmp_path, two):
    app(tmp_path)
    rows = run_rows()
    runs = compared_runs(rows, rows)
    look = compare_curves.Look(
        metric="loss",
        kind="train",
        x_axis="step",
        smoothing=compare_curves.EXPONENTIAL,
        strength=10,
        every=1,
        band="min to max",
        log_x=False,
        log_y=False,
        all_values=False,
    )
    table = list(csv.reader(io.StringIO(compare_curves.curve_csv(runs, look, compare_curves.scale_of(look, runs)))))
    assert table[0] == ["run", "step", "loss", "loss, smoothed"] and len(table) == 201
    values = np.array([float(line[2]) for line in table[1:101]])
    np.testing.assert_allclose([float(line[3]) for line in table[1:101]], ema(values, 0.9))


# Groups


def test_seeds_are_grouped_with_band_interval_and_significance(app, tmp_path, seeds):
    test = compare(app(tmp_path), *seeds)
    assert not test.exception and test.selectbox(key="group").value == "same but seed"
    overlay = charts(test)["overlay"]
    assert [t["name"] for t in overlay["data"] if not t["name"].endswith("band")] == ["a (3)", "b (3)"]
    band = [array(t["y"]) for t in overlay["data"] if t["name"] == "a (3), band"]
    np.testing.assert_allclose([edge[0] for edge in band], [3.06, 3.08])
    assert len({(chip["light"], chip["dash"]) for chip in chips(test)}) == 2
    table = test.dataframe[0].value
    assert table["run"].tolist() == ["a", "b"] and table["runs"].tolist() == [3, 3]
    assert table["Δ loss"].iloc[1] == pytest.approx(-1.0)
    assert table["difference"].iloc[1] == "lower (p < 0.001)"
    settings = test.dataframe[1].value.set_index("setting")
    assert settings.loc["attn_mode"].tolist() == ["bottleneck", "standard"]
    assert settings.loc["seed"].tolist() == ["1, 2, 3"] * 2
    points = trace(charts(test)["scatter"], "runs")
    assert len(points["customdata"]) == 2 and points["error_y"]["visible"]
    interval = charts(compare(app(tmp_path), *seeds, band="95 % interval"))["overlay"]
    wide = [array(t["y"]) for t in interval["data"] if t["name"] == "a (3), band"]
    np.testing.assert_allclose(wide[1] - wide[0], 2 * 4.302653 * 0.01 / np.sqrt(3), rtol=1e-4)


def test_each_run_by_itself_and_by_a_setting(app, tmp_path, seeds):
    dashboard = app(tmp_path)
    each = compare(dashboard, *seeds, group=EACH)
    assert len(each.dataframe[0].value) == 6
    assert set(each.dataframe[0].value["difference"][1:]) == {"one seed each: no statement"}
    by_mode = compare(dashboard, *seeds, group="attn_mode")
    assert by_mode.dataframe[0].value["run"].tolist() == ["attn_mode bottleneck", "attn_mode standard"]


def test_unequal_training_and_other_text_are_said(app, tmp_path, two, make_run):
    short = make_run("short")
    short.train(20)
    short.config["data"] = "other.bin"
    short.write("config.json", short.config)
    other = json.loads((tmp_path / two[0] / "config.json").read_text()) | {"data": "text.bin"}
    (tmp_path / two[0] / "config.json").write_text(json.dumps(other))
    said = texts(compare(app(tmp_path), two[0], "short"))
    assert "between 81.9k and 410k tokens" in said and "The runs differ in data" in said
    assert "tokens:" not in texts(compare(app(tmp_path), *two))


# Tables and points


def test_only_differing_settings_and_both_formats(app, tmp_path, two):
    test = compare(app(tmp_path), *two)
    settings = test.dataframe[1].value
    assert "attn_mode" in set(settings["setting"]) and "lr" not in set(settings["setting"])
    markdown, latex = (e.value for e in test.code[:2])
    assert markdown.startswith("| run | best loss |") and r"small\_cache" in markdown
    assert latex.startswith("\\begin{tabular}{lrrl") and r"small\_cache & 2." in latex


def test_settings_of_another_system_are_shown_on_demand(app, shared):
    dashboard = app(shared / "foreign_runs")
    names = ("tiny_bottleneck", "m4max_baseline_seed1337")
    few = compare(dashboard, *names).dataframe[1].value
    many = compare(dashboard, *names, partial="true").dataframe[1].value
    assert "optimizer" not in set(few["setting"]) and "optimizer" in set(many["setting"])
    assert "6,000" not in few.to_string() and "steps" not in set(few["setting"])


def test_the_points_of_the_page(app, tmp_path, two, make_run):
    test = compare(app(tmp_path), *two)
    scatter = charts(test)["scatter"]
    assert scatter["layout"]["xaxis"]["type"] == "log"
    assert [data[1] for data in trace(scatter, "runs")["customdata"]] == list(two)
    parallel = charts(compare(app(tmp_path), *two, axes=["attn_dim", "sem_dim"]))["parallel"]  # pyright: ignore[reportArgumentType]
    assert [t["name"] for t in parallel["data"]] in ([], list(two))
    tokens = charts(compare(app(tmp_path), *two, across="parameters"))["scatter"]
    assert tokens["layout"]["xaxis"]["title"]["text"] == "parameters"


@pytest.mark.parametrize(
    "names", [("tiny_bottleneck",), ("v27_gqa_100steps", "1b_train_decoupled_fast", "v28_stress_fix")]
)
def test_foreign_runs(app, shared, names):
    assert not compare(app(shared / "foreign_runs"), *names).exception


def test_a_hostile_name_is_text_everywhere(app, tmp_path, two, make_run):
    run = make_run(HOSTILE.replace("/", ""))
    run.train(10)
    rows = [{"id": HOSTILE, "path": str(tmp_path / HOSTILE)}]
    token = runs_text(rows, rows)
    test = compare(app(tmp_path), token, two[0], axis="FLOPs", metric="Validation loss")
    assert not test.exception and not test.warning
    assert chips(test)[0]["name"] == HOSTILE
    figures = json.dumps(charts(test))
    assert "<img" not in figures and "&lt;img" in figures
    markdown, latex = (e.value for e in test.code[:2])
    assert r"\<img" in markdown and r"\textless{}img" in latex
    assert "<img" not in "\n".join(str(m.value) for m in (*test.markdown, *test.caption)).replace(r"\<img", "")


def test_groups_of_one_are_the_runs_themselves(app, tmp_path, two):
    app(tmp_path)
    rows = run_rows()
    groups = grouped(compared_runs(rows, rows), EACH)
    assert [group.name for group in groups] == [row["id"] for row in rows]


# Ticks of the table of runs


def test_ticks_stay_with_their_runs():
    assert runs_selection.ticked_places(["a", "b", "c"], ["gone", "c"], [1, 0]) == ["gone", "b", "a"]
    assert runs_selection.ticked_places(["a"], [], [0, 7]) == ["a"]


def test_ticked_runs_get_a_bar(app, tmp_path, two):
    test = app(tmp_path).runs()
    assert not test.button
    paths = [str(tmp_path / name) for name in two]
    test.session_state["ticked_runs"] = paths[:1]
    test.run()
    assert [b.label for b in test.button if b.label][:2] == ["Compare", "Open"] and not test.button[1].disabled
    test.session_state["ticked_runs"] = paths
    test.run()
    assert "**2** ticked" in texts(test) and test.button[1].disabled
    assert len(test.get("download_button")) == 4


def test_ticks_follow_their_runs_when_rows_move(app, tmp_path, two):
    test = app(tmp_path).runs()
    test.session_state["ticked_runs"] = [str(tmp_path / "small_cache")]
    test.session_state["shown_runs"] = []
    test.run()
    place = test.dataframe[0].value["run"].tolist().index("small_cache")
    assert test.session_state["runs_table"]["selection"]["rows"] == [place]
    test.text_input(key="q").set_value("large").run()
    assert test.session_state["runs_table"]["selection"]["rows"] == []
    assert "**1** ticked" in texts(test)
    test.text_input(key="q").set_value("small").run()
    assert test.session_state["runs_table"]["selection"]["rows"] == [0]


def test_compare_opens_the_ticked_runs(app, tmp_path, two):
    test = app(tmp_path).runs()
    test.session_state["ticked_runs"] = [str(tmp_path / name) for name in two]
    test.run()
    assert turn(test) is None
    test.button[0].click().run()
    assert not test.exception and turn(test) == ("compare", {"runs": [",".join(two)]})
    test.run()  # a live update before the browser has gone
    assert turn(test) == ("compare", {"runs": [",".join(two)]})

    test.switch_page("dashboard/pages/compare.py")
    test.query_params["runs"] = ",".join(two)
    test.run()
    assert not test.exception and [chip["name"] for chip in chips(test)] == list(two)
    test.switch_page("dashboard/pages/runs.py").run()
    assert turn(test) is None  # back, and not forward again


def test_export_of_rows(app, tmp_path, two):
    app(tmp_path)
    rows = run_rows()
    table = list(csv.DictReader(io.StringIO(runs_selection.rows_csv(rows))))
    assert [line["id"] for line in table] == ["large_cache", "small_cache"]
    assert float(table[0]["best_val_loss"]) == rows[0]["best_val_loss"] and table[0]["size"] == "nano"
    assert [line["id"] for line in json.loads(runs_selection.rows_json(rows))] == ["large_cache", "small_cache"]
    assert quote("errors") in json.loads(runs_selection.rows_json(rows))[0]
