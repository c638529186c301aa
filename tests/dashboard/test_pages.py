"""What the two pages show, on real folders of earlier systems and on runs made here."""

from __future__ import annotations

import numpy as np
import pytest

from bottleneck_core.store.lock import RunLock

from .conftest import array, charts, texts, trace

FOREIGN = (
    "1b_train_decoupled_fast",
    "m4max_baseline_seed1337",
    "m4max_decoupled_48_96_seed1337",
    "tiny_bottleneck",
    "v27_gqa_100steps",
    "v28_stress_fix",
)
TABS = ("Curves", "Attention", "Samples", "Summary", "Config", "Log", "Files")


@pytest.fixture
def finished(make_run):
    run = make_run("finished")
    run.train(100)
    run.analyse()
    run.finish()
    return run


# Runs page


def test_runs_page_over_foreign_folders(app, shared):
    test = app(shared / "foreign_runs").runs()
    assert not test.exception
    assert "**6** runs" in texts(test) and r"best **4.3349** tiny\_bottleneck" in texts(test)
    table = test.dataframe[0].value
    assert set(table["run"]) == set(FOREIGN)
    assert table.set_index("run").loc["tiny_bottleneck", "KV @128k"] == 294_912_000
    assert len(charts(test)["quality"]["data"]) == 4  # attention modes; 1b has no cache size


def test_no_runs_names_the_folder_and_leads_to_train(app, tmp_path):
    test = app(tmp_path).runs()
    assert not test.exception and str(tmp_path) in texts(test)
    assert test.get("page_link")[-1].proto.page == "train"


def test_a_root_that_is_not_there_is_named_and_the_rest_is_shown(app, tmp_path, finished):
    test = app(tmp_path, tmp_path / "nowhere").runs()
    assert not test.exception and "nowhere" in test.warning[0].value
    assert list(test.dataframe[0].value["run"]) == ["finished"]


def test_filters_come_from_the_address(app, tmp_path, make_run):
    for name, exp in (("one", "paper_bottleneck"), ("two", "paper_gqa"), ("three", "paper_gqa")):
        run = make_run(name, exp=exp)
        run.train(20)
        run.finish("completed" if name != "three" else "sigterm")
    dashboard = app(tmp_path)

    def shown(**query):
        return set(dashboard.runs(**query).dataframe[0].value["run"])

    assert shown() == {"one", "two", "three"}
    assert shown(q="gqa tw") == {"two"}
    assert shown(attention="gqa") == {"two", "three"}
    assert shown(status="stopped") == {"three"}
    test = dashboard.runs(q="no such run")
    assert not test.dataframe and "None of the 3 runs match" in texts(test)


def test_running_runs_come_first_and_are_counted(app, tmp_path, finished, make_run):
    live = make_run("a_live_one")
    live.train(25)
    with RunLock(live.path):
        test = app(tmp_path).runs()
        table = test.dataframe[0].value
        assert "**1** running" in texts(test)
        assert table["run"].iloc[0] == "a_live_one" and table["status"].iloc[0] == "running"
        assert table["progress"].iloc[0] == pytest.approx(0.25)
        assert len(table["validation"].iloc[0]) == 3
        live.train(25)
        assert test.run().dataframe[0].value["progress"].iloc[0] == pytest.approx(0.5)


def test_a_broken_folder_does_not_hide_the_others(app, tmp_path, finished):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "train.jsonl").write_bytes(b'\x00\xff{"type": "tra\n[1]\n')
    test = app(tmp_path).runs()
    assert not test.exception
    table = test.dataframe[0].value.set_index("run")
    assert set(table.index) == {"finished", "broken"} and table.loc["broken", "errors"] > 0
    assert not app(tmp_path).run("broken").exception


# Run page


@pytest.mark.parametrize("run_id", FOREIGN)
def test_every_tab_of_a_foreign_run(app, shared, run_id):
    test = app(shared / "foreign_runs").run(run_id)
    for tab in TABS:
        test.session_state["tab"] = tab
        assert not test.run().exception, tab
    assert test.metric[0].label == "best loss"


def test_header_of_the_seed_run(app, shared):
    test = app(shared / "foreign_runs").run("tiny_bottleneck")
    measured = {metric.label: metric.value for metric in test.metric}
    assert measured["best loss"] == "4.3349 @5,800" and measured["perplexity"] == "76.32"
    assert measured["KV @128k"] == "281 MiB, 5.33× less"
    assert "bottleneck 96 · null · tiny · 45.8M params · 6,000 steps" in texts(test)
    assert test.expander[0].label == "2 things are broken or missing"
    assert "61 of 61 analysis events are errors" in test.expander[0].markdown[0].value


def test_curves_hold_every_row(app, tmp_path, finished):
    drawn = charts(app(tmp_path).run("finished"))
    assert set(drawn) == {"loss", "perplexity", "gradients", "lr", "tok_s"}
    np.testing.assert_array_equal(array(trace(drawn["loss"], "train")["x"]), np.arange(100))
    values = array(trace(drawn["loss"], "val")["y"])
    assert len(values) == 11 and values[-1] == pytest.approx(2.1)
    assert {t["name"] for t in drawn["gradients"]["data"]} >= {"attn", "ffn", "total"}


def test_the_address_shapes_the_curves(app, tmp_path, finished):
    loss = charts(app(tmp_path).run("finished", x="tokens", log="true", smoothing="0.0"))["loss"]
    assert loss["layout"]["yaxis"]["type"] == "log"
    assert loss["layout"]["xaxis"]["title"]["text"] == "tokens"
    assert array(trace(loss, "train")["x"])[-1] == 100 * 4096
    assert not any(t["name"] == "train, raw" for t in loss["data"])


def test_smoothing_follows_the_length_of_the_run(app, tmp_path, finished, make_run):
    long = make_run("long", steps=5000)
    long.train(20)
    dashboard = app(tmp_path)
    assert dashboard.run("finished").slider[0].value == 0.5
    assert dashboard.run("long").slider[0].value == 0.9


def test_a_running_run_grows_and_tells_when_it_ends(app, tmp_path, make_run):
    live = make_run("live")
    live.train(30)
    with RunLock(live.path):
        test = app(tmp_path).run("live")
        assert ":blue-badge[running]" in texts(test)
        progress = test.get("progress")[0].proto  # pyright: ignore[reportAttributeAccessIssue]
        assert progress.value == 30 and progress.text.startswith("step 30 of 100")
        live.train(30)
        drawn = charts(test.run())
        assert array(trace(drawn["loss"], "train")["x"])[-1] == 59
    live.finish()
    assert ":green-badge[done]" in texts(test.run()) and not test.get("progress")


def test_resumes_gaps_and_stops_are_marked(app, tmp_path, make_run):
    run = make_run("stopped")
    run.train(20)
    run.events.write("resume", 20)
    run.train(1, loss=float("nan"))
    run.train(10)
    run.events.write("done", 31, reason="sigterm")
    run.events.flush()
    event = trace(charts(app(tmp_path).run("stopped"))["loss"], "event")
    assert array(event["x"]).tolist() == [20, 20, 31]
    assert event["customdata"] == [
        "resumed at step 20",
        "non-finite loss at step 20",
        "stopped at step 31: sigterm",
    ]


def test_only_the_open_tab_is_computed(app, tmp_path, finished):
    dashboard = app(tmp_path)
    assert set(charts(dashboard.run("finished", tab="Config"))) == set()
    assert not charts(dashboard.run("finished", tab="Curves")).keys() & {"entropy-lines"}


def test_attention_by_layer_and_head(app, tmp_path, finished):
    dashboard = app(tmp_path)
    test = dashboard.run("finished", tab="Attention")
    drawn = charts(test)
    shown = ("entropy", "local_mass", "topk_mass", "null_mass")
    assert set(drawn) == {f"{m}-{kind}" for m in shown for kind in ("lines", "map")}
    assert [t["name"] for t in drawn["entropy-lines"]["data"]] == [*(f"layer {i}" for i in range(4)), "uniform"]
    assert array(drawn["entropy-map"]["data"][0]["z"]).shape == (4, 4)
    assert "-sum p ln p" in texts(test)
    one_layer = charts(dashboard.run("finished", tab="Attention", layer="layer 2", metrics="Sink mass"))
    assert set(one_layer) == {"sink_mass-lines", "sink_mass-map"}
    assert one_layer["sink_mass-lines"]["data"][0]["name"] == "head 0"


def test_attention_falls_back_to_the_means_of_the_events(app, shared):
    test = app(shared / "foreign_runs").run("m4max_baseline_seed1337", tab="Attention")
    assert {"attn_entropy_mean", "attn_local_mass_mean", "attn_topk_mass_mean"} <= set(charts(test))
    assert "means over layers and heads only" in texts(test)


def test_attention_of_a_run_without_any(app, tmp_path, make_run):
    run = make_run("plain")
    run.train(5)
    assert "no attention metrics" in texts(app(tmp_path).run("plain", tab="Attention"))


def test_config_is_searchable(app, tmp_path, finished):
    dashboard = app(tmp_path)
    test = dashboard.run("finished", tab="Config")
    settings = test.dataframe[0].value
    assert {"attn_mode", "d_model", "steps"} <= set(settings["setting"])
    assert "n_params" in set(test.dataframe[1].value["setting"])
    found = dashboard.run("finished", tab="Config", find="attn bottleneck").dataframe[0].value
    assert found["setting"].tolist() == ["attn_mode"]


def test_log_summary_and_files(app, tmp_path, finished):
    (finished.path / "console.log").write_text("loading\r  10%\r 100%\nready\n")
    dashboard = app(tmp_path)
    log = dashboard.run("finished", tab="Log")
    assert log.code[0].value == " 100%\nready"
    assert log.dataframe[0].value["type"].iloc[0] == "done"
    assert "### Run Summary" in texts(dashboard.run("finished", tab="Summary"))
    files = dashboard.run("finished", tab="Files").dataframe[0].value
    assert {"config.json", "train.jsonl", "analysis.h5"} <= set(files["file"])


@pytest.mark.parametrize("address", [{"run_id": "nobody"}, {"run_id": ""}, {"run_id": "finished", "root": "/etc"}])
def test_an_unknown_run_leads_back(app, tmp_path, finished, address):
    test = app(tmp_path).run(**address)
    assert not test.exception and test.warning and not test.metric
    assert test.get("page_link")


def test_the_same_id_below_two_roots(app, tmp_path, make_run):
    for folder, loss in (("first", 3.0), ("second", 4.0)):
        run = make_run("twin", root=tmp_path / folder)
        run.train(1, loss=loss)
    dashboard = app(tmp_path / "first", tmp_path / "second")
    assert len(dashboard.runs().dataframe[0].value) == 2
    for folder, best in (("first", "3.0500 @0"), ("second", "4.0500 @0")):
        assert dashboard.run("twin", root=str(tmp_path / folder)).metric[0].value == best
