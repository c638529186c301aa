"""The Attention page without a browser: what it shows of a run, at a step, of a head, and beside another run."""

# Elements of streamlit's test client have their attributes at run time.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from bottleneck_core.errors import UserError
from bottleneck_core.figures.tokens import token_labels, visible
from bottleneck_core.store.analysis import AnalysisWriter
from bottleneck_core.store.lock import RunLock
from bottleneck_core.store.thinning import thin_analysis

from .conftest import ROOT, array, charts, texts, trace

TEXT = b"def f(x):\n\treturn <b>x & y"
T = len(TEXT)
STEPS = (0, 100, 200, 300)
MAPPED = ((0, 3), (2, 1))


def causal(null: float) -> np.ndarray:
    lower = np.tri(T)
    return (1 - null) * lower / lower.sum(axis=1, keepdims=True)


def probe(run: Any, *, steps: tuple[int, ...] = STEPS, scores: bool = False, collapsed: bool = False) -> dict[str, Any]:
    """Writes analysis.h5 with byte tokens; the values of each metric. `collapsed`: head 3 of layer 0 from 200 on."""
    layers, heads = run.config["n_layer"], run.config["n_head"]
    rng = np.random.default_rng(len(steps))
    shape = (len(steps), layers, heads)
    attn = {
        "entropy": 1 + rng.random(shape),
        "sink_mass": 0.4 * rng.random(shape),
        "null_mass": 0.1 * rng.random(shape),
    }
    redundancy = rng.random((len(steps), layers)) * 0.9
    if collapsed:
        attn["entropy"][2:, 0, 3] = 0.01
        redundancy[3:, 2] = 0.99
    with AnalysisWriter.create(
        run.path / "analysis.h5",
        n_layer=layers,
        n_head=heads,
        attn_metrics=list(attn),
        weight_metrics=["redundancy"],
        chosen=MAPPED,
        map_size=T,
        save_scores=scores,
        probe_tokens=np.frombuffer(TEXT, np.uint8)[None],
    ) as writer:
        for i, step in enumerate(steps):
            null = 0.1 * (i + 1)
            writer.append(
                step,
                attn={name: values[i] for name, values in attn.items()},
                weights={"redundancy": redundancy[i]},
                maps={head: causal(null) for head in MAPPED},
                svd={head: np.exp(-np.arange(T) / (i + 1)) for head in MAPPED},
                scores={p: {h: np.full((T, T), sign) for h in MAPPED} for p, sign in (("sem", 2), ("geo", -3))}
                if scores
                else None,
            )
    return attn | {"redundancy": redundancy}


@pytest.fixture
def look(app, tmp_path):
    """`look(run=..., step=...)` opens the page at such an address."""

    def opened(*roots: Path, **query: str) -> AppTest:
        app(*(roots or [tmp_path]))
        test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
        test.switch_page("dashboard/pages/attention.py")
        for name, value in query.items():
            test.query_params[name] = value
        test.run()
        assert not test.exception
        return test

    return opened


def button(test: AppTest, label: str) -> Any:
    return next(b for b in test.button if b.label == label)


def heat(test: AppTest, side: int = 0) -> dict[str, Any]:
    return charts(test)[f"heads-{side}"]["data"][0]


def test_the_last_step_of_the_first_run_with_an_analysis(look, make_run):
    make_run("a_plain")
    values = probe(make_run("probed"))
    test = look()
    assert test.selectbox(key="run").value == "probed"
    np.testing.assert_allclose(array(heat(test)["z"]), values["entropy"][-1], rtol=1e-6)
    # The colours' range is that of all steps, so that playing does not change what they mean.
    assert heat(test)["zmin"] == pytest.approx(values["entropy"].min())
    assert heat(test)["zmax"] == pytest.approx(values["entropy"].max())
    lines = charts(test)["lines-entropy"]
    assert {t["name"] for t in lines["data"]} == {*(f"head {i}" for i in range(4)), "uniform"}
    # The window is T tokens and the model has a null key: q + 2 keys are visible to query q.
    assert array(trace(lines, "uniform")["y"])[0] == pytest.approx(np.log(np.arange(T) + 2).mean(), rel=1e-6)
    assert "-sum p ln p" in texts(test)


def test_a_box_that_is_emptied_shows_the_run_still(look, make_run):
    make_run("a_plain")
    probe(make_run("probed"))
    test = look(run="probed")
    test.selectbox(key="run").set_value(None).run()
    assert not test.exception and "heads-0" in charts(test)


def test_the_address_says_step_metric_and_head(look, make_run):
    values = probe(make_run("probed"))
    test = look(run="probed", step="100", metric="Sink mass", layer="2", head="1")
    np.testing.assert_allclose(array(heat(test)["z"]), values["sink_mass"][1], rtol=1e-6)
    lines = charts(test)["lines-sink_mass"]
    np.testing.assert_allclose(array(trace(lines, "head 1")["y"]), values["sink_mass"][:, 2, 1], rtol=1e-6)
    assert lines["layout"]["shapes"][0]["x0"] == 100
    frame = charts(test)["heads-0"]["layout"]["shapes"][0]
    assert (frame["x0"], frame["y0"]) == (0.5, 1.5)
    # Between two probes the nearer one is shown.
    np.testing.assert_allclose(array(heat(look(run="probed", step="160"))["z"]), values["entropy"][2], rtol=1e-6)


def test_a_metric_of_layers_has_one_column(look, make_run):
    values = probe(make_run("probed"))
    test = look(run="probed", metric="Head redundancy", layer="1")
    np.testing.assert_allclose(array(heat(test)["z"]).ravel(), values["redundancy"][-1], rtol=1e-6)
    lines = charts(test)["lines-redundancy"]
    np.testing.assert_allclose(array(trace(lines, "layer 1")["y"]), values["redundancy"][:, 1], rtol=1e-6)


def test_the_stored_map_has_tokens_and_the_null_share(look, make_run):
    probe(make_run("probed"))
    test = look(run="probed", step="100", head="3", log_colours="false")
    drawn = charts(test)["map-0"]
    heatmap, bar = drawn["data"]
    z = array(heatmap["z"])
    np.testing.assert_allclose(z[np.tri(T, dtype=bool)], causal(0.2)[np.tri(T, dtype=bool)], atol=1e-3)
    np.testing.assert_allclose(array(bar["x"]), 0.2, atol=1e-3)
    assert heatmap["y"][3] == "3 ␣" and heatmap["y"][9] == "9 ↵" and heatmap["x"][10] == "10 ⇥"
    assert heatmap["x"][18] == "18 &lt;"  # a token is text, not markup
    logarithmic = charts(look(run="probed", head="3"))["map-0"]["data"][0]
    assert logarithmic["zmax"] == 1 and not logarithmic["showscale"]


def test_a_window_of_tokens(look, make_run):
    probe(make_run("probed"))
    test = look(run="probed", head="3")
    test.slider(key="tokens").set_value((4, 12)).run()
    assert charts(test)["map-0"]["data"][0]["y"] == ["4 f", "5 (", "6 x", "7 )", "8 :", "9 ↵", "10 ⇥", "11 r"]


def test_a_head_without_a_map_offers_those_with_one(look, make_run):
    probe(make_run("probed"))
    test = look(run="probed", layer="1", head="0")
    assert "map-0" not in charts(test) and "No map is stored for layer 1 head 0" in texts(test)
    assert "No singular values are stored for layer 1 head 0" in texts(test)
    button(test, "layer 2 head 1").click().run()
    assert "map-0" in charts(test)
    assert (test.selectbox(key="layer").value, test.selectbox(key="head").value) == (2, 1)


def test_a_thinned_file_shows_the_nearest_map_and_says_so(look, make_run):
    run = make_run("probed")
    probe(run)
    path = run.path / "analysis.h5"
    thin_analysis(path, path, maps=1)  # of the first probe
    test = look(run="probed", head="3", step=str(STEPS[-1]))
    assert f"stored no map at step {STEPS[-1]:,}: this is the nearest, step {STEPS[0]:,}" in texts(test)
    shown = array(charts(test)["map-0"]["data"][0]["z"])
    assert np.isfinite(shown).any()


def test_logits_where_they_were_saved(look, make_run):
    probe(make_run("probed"), scores=True)
    test = look(run="probed", head="3", shown="Geometric logits")
    heatmap = charts(test)["map-0"]["data"][0]
    assert (heatmap["zmin"], heatmap["zmax"]) == (-3, 3) and array(heatmap["z"])[5, 2] == -3
    assert len(charts(test)["map-0"]["data"]) == 1  # logits have no null share


def test_singular_values_at_the_step_and_before(look, make_run):
    probe(make_run("probed"))
    drawn = charts(look(run="probed", head="3", step="200"))["spectra"]
    assert [t["name"] for t in drawn["data"]] == ["step 0", "step 100", "step 200"]
    np.testing.assert_allclose(array(drawn["data"][2]["y"])[:5], np.exp(-np.arange(5) / 3), rtol=1e-5)
    shares = np.exp(-np.arange(T) / 3) / np.exp(-np.arange(T) / 3).sum()
    rank = np.exp(-(shares * np.log(shares)).sum())
    assert f"effective rank **{rank:.4g}** of {T}" in texts(look(run="probed", head="3", step="200"))


def test_alarms_lead_to_their_head_and_metric(look, make_run):
    probe(make_run("probed"), collapsed=True)
    test = look(run="probed", layer="1")
    button(test, "layer 0 head 3: entropy below 0.1 nats since step 200")
    button(test, "layer 2: redundancy above 0.95 since step 300").click().run()
    assert test.selectbox(key="metric").value == "redundancy" and test.selectbox(key="layer").value == 2
    button(test, "layer 0 head 3: entropy below 0.1 nats since step 200").click().run()
    assert test.selectbox(key="metric").value == "entropy"
    assert (test.selectbox(key="layer").value, test.selectbox(key="head").value) == (0, 3)
    # At an earlier step nothing had happened yet.
    test.slider(key="step").set_value(100).run()
    assert "nothing alarms at step 100 (watched: entropy, sink mass, null mass, redundancy)" in texts(test)


def test_of_many_alarms_the_worst_have_buttons_and_the_others_are_chosen(look, make_run):
    run = make_run("probed")
    layers, heads = run.config["n_layer"], run.config["n_head"]
    # The later the worse, so that neither age nor place puts them in order.
    entropy = np.linspace(0.09, 0.01, layers * heads).reshape(layers, heads)
    with AnalysisWriter.create(
        run.path / "analysis.h5", n_layer=layers, n_head=heads, attn_metrics=["entropy"], weight_metrics=[]
    ) as writer:
        for step in STEPS:
            writer.append(step, attn={"entropy": entropy}, weights={})
    test = look(run="probed", layer="1", head="1")
    sentence = "layer {} head {}: entropy below 0.1 nats since step 100"
    places = [(layer, head) for layer in range(layers) for head in range(heads)][::-1]
    listed = [b.label for b in test.button if "entropy" in b.label]
    assert listed == [sentence.format(*place) for place in places[:4]]
    more = test.selectbox(key="more/0/entropy")
    assert more.options == [sentence.format(*place) for place in places[4:]] and more.value is None
    assert more.placeholder == f"and {len(places) - 4} more: entropy collapse"
    more.set_value(sentence.format(0, 2)).run()
    assert not test.exception and test.selectbox(key="more/0/entropy").value is None
    assert (test.selectbox(key="layer").value, test.selectbox(key="head").value) == (0, 2)


def test_playing_goes_through_the_probes_and_stops_at_the_last(look, make_run, monkeypatch):
    monkeypatch.setattr("dashboard.attention.playback.FRAME_SECONDS", 0.0)
    values = probe(make_run("probed"))
    test = look(run="probed")
    button(test, "Play").click()
    for i in range(3):
        test.run()
        np.testing.assert_allclose(array(heat(test)["z"]), values["entropy"][i], rtol=1e-6)
        assert button(test, "Pause")
        assert "step" not in test.query_params  # each change of the address would be a page to go back to
    test.run()
    assert button(test, "Play") and test.slider(key="step").value == 300


def test_a_rerun_between_two_frames_skips_none(look, make_run, monkeypatch):
    monkeypatch.setattr("dashboard.attention.playback.FRAME_SECONDS", 1e6)
    values = probe(make_run("probed"))
    test = look(run="probed")
    button(test, "Play").click()
    for _ in range(5):
        test.run()
        np.testing.assert_allclose(array(heat(test)["z"]), values["entropy"][0], rtol=1e-6)


def test_pausing_stays_at_the_step(look, make_run):
    probe(make_run("probed"))
    test = look(run="probed", step="0")
    button(test, "Play").click().run()
    button(test, "Pause").click().run()
    assert test.slider(key="step").value == 100 and button(test, "Play")


def test_a_played_map_is_coarser(look, make_run, monkeypatch):
    monkeypatch.setattr("dashboard.attention.maps._PLAYED_CELLS", 8)
    probe(make_run("probed"))
    test = look(run="probed", head="3", step="0")
    assert array(charts(test)["map-0"]["data"][0]["z"]).shape == (T, T)
    button(test, "Play").click().run()
    assert array(charts(test)["map-0"]["data"][0]["z"]).shape == (7, 7)


def test_a_long_run_is_played_in_sixty_frames(look, make_run):
    probe(make_run("long"), steps=tuple(range(0, 1250, 10)))
    test = look(run="long", step="0")
    button(test, "Play").click().run()
    assert charts(test)["lines-entropy"]["layout"]["shapes"][0]["x0"] == 20


def test_moving_the_slider_while_playing_goes_there(look, make_run):
    probe(make_run("probed"))
    test = look(run="probed", step="0")
    button(test, "Play").click().run()
    test.slider[0].set_value(0).run()
    assert charts(test)["lines-entropy"]["layout"]["shapes"][0]["x0"] == 0


def test_another_run_ends_the_playing(look, make_run):
    for name in ("one", "other"):
        probe(make_run(name))
    test = look(run="one", step="0")
    button(test, "Play").click().run()
    test.selectbox(key="run").select("other").run()
    assert button(test, "Play") and "attention_played_step" not in [slider.key for slider in test.slider]


def test_two_runs_share_colours_and_state_their_difference(look, make_run):
    first = probe(make_run("first"))
    second = probe(make_run("second"), steps=(0, 130, 290))
    test = look(run="first", step="100", head="3", **{"with": "second"})
    np.testing.assert_allclose(array(heat(test, 0)["z"]), first["entropy"][1], rtol=1e-6)
    np.testing.assert_allclose(array(heat(test, 1)["z"]), second["entropy"][1], rtol=1e-6)
    both = np.concatenate([first["entropy"].ravel(), second["entropy"].ravel()])
    for side in (0, 1):
        assert heat(test, side)["zmin"] == pytest.approx(both.min())
        assert heat(test, side)["zmax"] == pytest.approx(both.max())
    by = second["entropy"][1, 0, 3] - first["entropy"][1, 0, 3]
    said = texts(test)
    assert "nearest of second: step 130" in said and "layer 0 head 3" in said
    assert f"{abs(by):.4g} {'more' if by > 0 else 'less'} in second" in said
    mean = second["entropy"][1].mean() - first["entropy"][1].mean()
    assert f"{abs(mean):.4g} {'more' if mean > 0 else 'less'} in second" in said
    assert {"map-0", "map-1", "spectra"} <= set(charts(test))
    assert {"first", "second"} <= {t["name"] for t in charts(test)["lines-entropy"]["data"]}


def test_a_run_without_an_analysis_says_which_flag_records_it(look, make_run):
    make_run("plain").train(5)
    test = look(run="plain")
    assert "--instrument full" in texts(test) and not charts(test) and test.get("page_link")


def test_no_runs_at_all(look):
    test = look()
    assert "--instrument full" in texts(test) and test.get("page_link")


def test_an_unknown_run_is_named_and_another_shown(look, make_run):
    probe(make_run("probed"))
    test = look(run="*gone*")
    assert "\\*gone\\* is not in the folders" in texts(test) and "heads-0" in charts(test)


def test_a_bare_id_is_the_first_run_of_that_id(look, make_run, tmp_path):
    probe(make_run("another", root=tmp_path / "first"))
    for folder in ("first", "second"):
        probe(make_run("twin", root=tmp_path / folder))
    test = look(tmp_path / "first", tmp_path / "second", run="twin")
    assert test.selectbox(key="run").value == f"twin @ {tmp_path / 'first'}"


def test_a_broken_file_is_one_sentence(look, make_run):
    run = make_run("broken")
    (run.path / "analysis.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    test = look(run="broken")
    assert not charts(test) and len(test.info) == 1


def test_a_file_that_is_damaged_inside_is_one_sentence(look, make_run):
    run = make_run("half")
    probe(run)
    with h5py.File(run.path / "analysis.h5", "r", swmr=True) as file:
        start = file["attn/entropy"].id.get_chunk_info(0).byte_offset
        end = max(file[f"attn/{name}"].id.get_chunk_info(0).byte_offset for name in ("sink_mass", "null_mass"))
    content = (run.path / "analysis.h5").read_bytes()
    assert start < end
    (run.path / "analysis.h5").write_bytes(content[:start])
    test = look(run="half")
    assert not charts(test) and len(test.warning) + len(test.info) == 1


def test_a_metric_that_cannot_be_read_is_one_sentence(look, make_run, monkeypatch):
    probe(make_run("half"))

    def unreadable(*_: object) -> None:
        raise UserError("analysis.h5: *torn*")

    monkeypatch.setattr("dashboard.attention.view.values_of", unreadable)
    test = look(run="half")
    assert [warning.value for warning in test.warning] == ["analysis.h5\\: \\*torn\\*."]


def test_a_growing_run_is_followed(look, make_run):
    run = make_run("live")
    probe(run)
    with RunLock(run.path):
        test = look(run="live")
        probe(run, steps=(*STEPS, 400))
        test.run()
        assert charts(test)["lines-entropy"]["layout"]["shapes"][0]["x0"] == 400
        test.slider(key="step").set_value(100).run()
        probe(run, steps=(*STEPS, 400, 500))
        test.run()
        assert charts(test)["lines-entropy"]["layout"]["shapes"][0]["x0"] == 100


def test_hostile_names_are_text(look, make_run):
    for name in ("<b>bold<b>", "%{x}*star*"):
        probe(make_run(name))
    test = look(run="<b>bold<b>", **{"with": "%{x}*star*"})
    assert "\\<b\\>bold\\<b\\>" in texts(test) and "\\*star\\*" in texts(test)
    titles = [charts(test)[f"heads-{side}"]["layout"]["title"]["text"] for side in (0, 1)]
    assert titles == ["&lt;b&gt;bold&lt;b&gt;: step 300", "% {x}*star*: step 300"]


@pytest.mark.parametrize("name", ["v27_gqa_100steps", "v28_stress_fix", "1b_train_decoupled_fast", "tiny_bottleneck"])
def test_foreign_runs(look, shared, name):
    test = look(shared / "foreign_runs", run=name)
    if name.startswith("v27"):
        assert {"heads-0", "lines-entropy", "map-0", "spectra"} <= set(charts(test))
        assert "positions stand for" in texts(test)
        assert charts(test)["map-0"]["data"][0]["y"][7] == "7"
    else:
        assert not charts(test) and "--instrument full" in texts(test)


def test_every_token_shows():
    assert visible("a b\n\t\r\x00\u200b") == "a␣b↵⇥␍␀\\u{200b}"
    assert token_labels("byte", [65, 0xC3, 0xA9, 127, 400]) == ["A", "\\xc3", "\\xa9", "\\u{7f}", "\\x190"]
    assert token_labels("gpt2", [262, 198]) == ["␣the", "↵"]
    assert token_labels("word", [1]) is None and token_labels(None, [1]) is None
