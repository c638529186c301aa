"""The KV calculator's page: each source, mistakes, the address, and a link in a real browser."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

import bottleneck_core as bc
from bottleneck_core.figures import numbers
from bottleneck_core.figures.palette import ink
from bottleneck_core.memory import CachePolicy
from dashboard.kv import config as kv_config
from dashboard.kv import measure as kv_measure
from dashboard.kv.scenario import encode
from dashboard.markdown import escaped
from tests.browser import watched

from .conftest import array, charts, texts, trace
from .kv_cases import LLAMA

# The page


@pytest.fixture
def calculator(app, tmp_path):
    """`calculator(query)` is the page in a browser of its own, over the runs below tmp_path."""

    def opened(query: dict[str, str] | None = None, root: Path = tmp_path) -> AppTest:
        test = app(root)._open("dashboard/pages/kv.py", query or {})
        assert not test.exception
        return test

    return opened


def widget(test: AppTest, kind: str, *name: str) -> Any:
    generation = test.session_state["kv_generation"]
    return getattr(test, kind)(key="/".join(("kv", str(generation), *name)))


def shown(test: AppTest) -> list[tuple[str, str]]:
    """What a reader sees of all numbers."""
    return [(m.label, m.value) for m in test.metric] + [("", text) for text in texts(test).splitlines()]


def address(test: AppTest) -> dict[str, str]:
    return {name: "".join(value) for name, value in test.query_params.items()}


def test_it_starts_with_the_small_cache_and_leaves_the_address_alone(calculator):
    test = calculator()
    assert [m.value for m in test.metric] == ["281 MiB", "5.33×"]
    assert "2,304 B per token" in texts(test).replace("\\", "") and "**tiny bottleneck**" in texts(test)
    assert address(test) == {}
    line = trace(charts(test)["sizes"], "A tiny bottleneck")
    assert array(line["y"])[list(array(line["x"])).index(128_000)] == 294_912_000


@pytest.mark.parametrize(
    ("query", "source"),
    [
        ({"a.preset": "small.paper_gqa"}, bc.RunConfig.resolve(size="small", exp="paper_gqa")),
        ({"a.model": "deepseek-v3"}, "deepseek-v3"),
        ({"a.config": kv_config.pack_config(json.dumps(LLAMA))}, LLAMA),
    ],
)
def test_each_source_is_sized_as_the_library_does(calculator, query, source):
    test = calculator(query | {"context": "131072", "batch": "2", "a.cache": "q8_0", "a.residual": "0"})
    size = bc.kv_memory(source, 131_072, 2, CachePolicy(kind="q8_0", residual=0))
    assert [m.value for m in test.metric] == [numbers.size(size.bytes), numbers.ratio(size.compression)]
    assert numbers.exact_size(size.bytes) in test.metric[0].help
    assert "\n".join(size.derivation) in [code.value for code in test.code]


def test_a_run_is_sized_as_it_stores_its_cache(calculator, make_run, tmp_path):
    run = make_run("mine")
    run.write("config.json", run.config | {"kv_cache": "q8_0", "kv_residual": 32})
    test = calculator({"a.run": "mine"})
    size = bc.kv_memory(run.path, 128_000)
    assert size.tensors[0].kind == "q8_0" and test.metric[0].value == numbers.size(size.bytes)
    assert widget(test, "selectbox", "a", "run mine", "k").value == "q8_0"


def test_runs_of_one_name_are_told_apart_by_their_folder(app, make_run, tmp_path):
    for folder, exp in (("first", "paper_baseline"), ("second", "paper_bottleneck")):
        make_run("twin", root=tmp_path / folder, exp=exp)
    dashboard = app(tmp_path / "first", tmp_path / "second")
    for folder, saved in (("first", "1.00×"), ("second", "5.33×")):
        test = dashboard._open("dashboard/pages/kv.py", {"a.run": "twin", "a.root": str(tmp_path / folder)})
        assert test.metric[1].value == saved


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"a.model": "nobody"}, "There is no public model nobody"),
        ({"a.preset": "tiny.nobody"}, "There is no preset tiny.nobody"),
        ({"a.run": "../../etc"}, "There are no runs"),
        ({"a.preset": "tiny.paper_gqa", "a.k": "q4_0", "a.k_block": "3"}, "even block size"),
        ({"a.config": ""}, "paste or upload"),
        ({"a.config": "broken"}, "damaged"),
    ],
)
def test_mistakes_are_sentences_in_place_and_neighbours_still_answer(calculator, query, sentence):
    test = calculator(query | {"b.preset": "tiny.paper_bottleneck"})
    assert "281 MiB" in [m.value for m in test.metric]
    assert sentence in texts(test).replace("\\", "")


def test_hostile_names_are_text(calculator, make_run):
    make_run("<b>x</b> [a](javascript:1) :red[y]")
    test = calculator({"a.run": "<b>x</b> [a](javascript:1) :red[y]"})
    name = "<b>x</b> [a](javascript:1) :red[y]"
    assert f"**{escaped(name)}**" in [m.value for m in test.markdown]
    assert not any(name in m.value for m in test.markdown)
    drawn = json.dumps(charts(test))
    assert "<b>x" not in drawn


def test_an_edit_is_in_the_address_and_the_address_shows_it_again(calculator):
    test = calculator({"a.preset": "tiny.paper_decoupled"})
    widget(test, "selectbox", "a", "own", "v").set_value("q4_0").run()
    widget(test, "number_input", "a", "own", "residual").set_value(64).run()
    widget(test, "number_input", "a", "own", "first").set_value(1).run()
    widget(test, "text_input", "context").set_value("128Ki").run()
    widget(test, "number_input", "batch").set_value(3).run()
    widget(test, "selectbox", "card").set_value("L4").run()
    widget(test, "segmented_control", "by").set_value("layers").run()
    query = address(test)
    assert query["context"] == "131072" and query["a.v"] == "q4_0" and query["card"] == "L4"
    policy = CachePolicy(kinds={"v": "q4_0"}, residual=64, first_layers=1)
    size = bc.kv_memory(bc.RunConfig.resolve(size="tiny", exp="paper_decoupled"), 131_072, 3, policy)
    assert test.metric[0].value == numbers.size(size.bytes)
    again = calculator(query)
    assert shown(again)[:2] == shown(test)[:2] and charts(again) == charts(test)
    assert [c.value for c in again.code][:-1] == [c.value for c in test.code][:-1]
    assert widget(again, "segmented_control", "by").value == "layers"


def test_slider_and_field_are_one_number(calculator):
    test = calculator()
    widget(test, "select_slider", "slider").set_value(32_000).run()
    assert widget(test, "text_input", "context").value == "32,000" and address(test)["context"] == "32000"
    widget(test, "text_input", "context").set_value("5,000").run()
    assert widget(test, "select_slider", "slider").value == 5000 and address(test)["context"] == "5000"
    widget(test, "text_input", "context").set_value("11M").run()
    assert "up to 10,000,000" in texts(test) and address(test)["context"] == "5000"
    assert test.metric[0].value == numbers.size(5000 * 2304)


def test_scenarios_come_and_go(calculator):
    test = calculator()
    for _ in range(3):
        widget(test, "button", "add").click().run()
    assert len(test.metric) == 8 and set(address(test)) >= {"a.preset", "b.preset", "c.preset", "d.preset"}
    with pytest.raises(KeyError):
        widget(test, "button", "add")
    widget(test, "selectbox", "b", "size").set_value("small").run()
    widget(test, "button", "a", "remove").click().run()
    assert address(test)["a.preset"] == "small.paper_bottleneck" and len(test.metric) == 6
    assert not test.exception


def test_a_click_before_the_page_is_complete_counts(calculator, monkeypatch):
    with monkeypatch.context() as interrupted:
        interrupted.setattr("dashboard.kv.address.keep", encode)
        test = calculator({"a.preset": "tiny.paper_gqa"})
    widget(test, "button", "add").click().run()
    assert not test.exception and address(test)["b.preset"] == "tiny.paper_gqa"


def test_a_pasted_configuration_is_sized_and_linked(calculator):
    test = calculator({"a.config": ""})
    widget(test, "text_area", "a", "config").set_value(json.dumps(LLAMA)).run()
    assert test.metric[0].value == numbers.size(bc.kv_memory(LLAMA, 128_000).bytes)
    assert "give their number" in texts(test)
    widget(test, "text_input", "a", "params").set_value("8.03e9").run()
    query = address(test)
    assert query["a.params"] == "8030000000" and len(query["a.config"]) < 250
    assert "at batch 1" in texts(calculator(query))
    widget(test, "text_area", "a", "config").set_value('{"model_type": "nobody"}').run()
    assert not test.metric and "unknown architecture nobody" in texts(test)


def test_a_problem_of_the_link_is_said_until_something_is_changed(calculator):
    test = calculator({"context": "-5", "a.preset": "tiny.paper_bottleneck"})
    assert "context" in test.warning[0].value and test.metric[0].value == "281 MiB"
    widget(test, "number_input", "batch").set_value(2).run()
    assert not test.warning and address(test)["context"] == "128000"


def test_a_measured_number_has_its_badge(calculator, monkeypatch):
    monkeypatch.setattr(kv_measure, "_allocate", lambda request: 4608)
    kv_measure.measured().clear()
    test = calculator({"context": "2", "a.preset": "tiny.paper_bottleneck"})
    assert "measured: allocation agrees" not in texts(test)
    widget(test, "button", "a", "measure").click().run()
    assert "measured: allocation agrees" in texts(test)
    assert "measured: allocation agrees" in texts(calculator({"context": "2", "a.preset": "tiny.paper_bottleneck"}))
    kv_measure.measured().clear()
    monkeypatch.setattr(kv_measure, "_allocate", lambda request: 4609)
    test = calculator({"context": "2", "a.preset": "tiny.paper_bottleneck"})
    widget(test, "button", "a", "measure").click().run()
    assert "4,609 B" in texts(test) and "agrees" not in texts(test)
    kv_measure.measured().clear()


# A real browser


def heading_numbers(page: Any) -> list[str]:
    page.get_by_test_id("stMetricValue").nth(3).wait_for()
    page.locator(".bottleneck-chart .main-svg").nth(3).wait_for(state="attached")
    return (
        page.get_by_test_id("stMetricValue").all_inner_texts()
        + page.locator("[data-testid=stMarkdown] strong").all_inner_texts()
    )


@pytest.mark.e2e
def test_a_link_shows_the_same_numbers_in_a_fresh_browser(server, browser):
    site, pid = server
    with contextlib.ExitStack() as opened:
        page = opened.enter_context(watched(browser))
        page.goto(site)
        page.get_by_role("link", name="KV calculator").click()
        page.get_by_role("button", name="Scenario B").click()
        page.wait_for_url("**b.preset=**")
        page.get_by_text("Public", exact=True).nth(1).click()
        page.wait_for_url("**b.model=**")
        context = page.get_by_role("textbox", name="Exactly")
        context.fill("256Ki")
        context.press("Enter")
        page.wait_for_url("**context=262144**")
        page.get_by_test_id("stMetricValue").get_by_text("576 MiB").wait_for()
        link, first = page.url, heading_numbers(page)

        other = opened.enter_context(watched(browser, color_scheme="dark"))
        other.goto(link)
        other.get_by_test_id("stMetricValue").get_by_text("576 MiB").wait_for()
        assert heading_numbers(other) == first
        ink_of_chart = "document.querySelector('.bottleneck-chart')?._fullLayout?.font.color"
        for shown, color in ((page, ink("text", "light")), (other, ink("text", "dark"))):
            shown.wait_for_function(f"{ink_of_chart} === '{color}'")

        page.go_back()  # to before the context was changed
        page.wait_for_url("**context=128000**")
        page.get_by_test_id("stMetricValue").get_by_text("281 MiB").wait_for()
        left = page.url
        page.get_by_role("link", name="Runs").click()
        page.get_by_text("No runs in").wait_for()
        page.get_by_role("link", name="KV calculator").click()
        page.wait_for_url(left)  # as it was left
    assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
