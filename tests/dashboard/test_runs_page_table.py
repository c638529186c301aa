"""The page of runs: search, filters, groups, columns, the context of KV bytes, many runs."""

from __future__ import annotations

import json

import pytest

import bottleneck_core as bc
from bottleneck_core.store.notes import write_notes
from dashboard.run.index import RunIndex
from dashboard.runs import kv as runs_kv
from dashboard.runs import query as runs_query
from dashboard.runs.query import SEEDS, Filter, matching

from .conftest import array, charts, texts


@pytest.fixture
def four(make_run, tmp_path):
    """Two learning rates of bottleneck with two seeds each; best losses 2, 3, 4 and 5 (and 0.05)."""
    for number, (name, lr, seed) in enumerate((("a0", 1e-3, 0), ("a1", 1e-3, 1), ("b0", 2e-3, 0), ("b1", 2e-3, 1))):
        run = make_run(name)
        run.write("config.json", {**run.config, "lr": lr, "seed": seed, "out_dir": name})
        run.train(20, loss=2.0 + number)
    write_notes(tmp_path / "a0", tags=["best", "report"], note="Looks\nfine")
    write_notes(tmp_path / "b1", tags=["report"], note="")
    return tmp_path


def shown(test) -> list[str]:
    assert not test.exception
    return list(test.dataframe[0].value["run"]) if test.dataframe else []


def test_tags_notes_and_settings_are_searched(app, four):
    dashboard = app(four)
    for query, found in (
        ({"q": "REPORT"}, {"a0", "b1"}),
        ({"q": "fine"}, {"a0"}),
        ({"q": "lr=0.002"}, {"b0", "b1"}),
        ({"q": "lr=2e-3 seed=1"}, {"b1"}),
        ({"q": "attn_mode=bottleneck a"}, {"a0", "a1"} | {"b0", "b1"}),
        ({"q": "lr=none"}, set()),
        ({"tag": "report"}, {"a0", "b1"}),
        ({"tag": "best"}, {"a0"}),
        ({"by": "lr", "in": "0.001"}, {"a0", "a1"}),
    ):
        assert set(shown(dashboard.runs(**query))) == found, query
    table = dashboard.runs().dataframe[0].value.set_index("run")
    assert list(table.loc["a0", "tags"]) == ["best", "report"]


def test_groups_have_the_mean_and_the_range_of_their_runs(app, four):
    for by in ("lr", SEEDS):
        table = app(four).runs(by=by).dataframe[0].value
        assert table["runs"].tolist() == [2, 2]
        assert table["mean loss"].tolist() == pytest.approx([2.55, 4.55])
        assert table["min loss"].tolist() == pytest.approx([2.05, 4.05])
        assert table["max loss"].tolist() == pytest.approx([3.05, 5.05])
        assert table[by].tolist() == (["0.001", "0.002"] if by == "lr" else ["a", "b"])
    assert "2 groups by lr" in texts(app(four).runs(by="lr", q="report"))


def test_a_group_of_another_grouping_is_forgotten(app, four):
    test = app(four).runs(by="lr", **{"in": "0.001"})
    test.selectbox(key="by").set_value("seed").run()
    assert not test.exception and test.dataframe[0].value["seed"].tolist() == ["0", "1"]


def test_any_setting_is_a_column(app, four):
    table = app(four).runs(columns="lr").dataframe[0].value
    assert list(table.columns) == ["run", "lr"]
    assert dict(zip(table["run"], table["lr"], strict=True)) == {"a0": 1e-3, "a1": 1e-3, "b0": 2e-3, "b1": 2e-3}
    test = app(four).runs()
    test.multiselect(key="columns").set_value(["note", "last loss", "attn_mode", "size"]).run()
    assert list(test.dataframe[0].value.columns) == ["run", "note", "last loss", "attn_mode", "size"]


def test_the_context_is_that_of_table_and_picture(app, four):
    config = json.loads((four / "a0" / "config.json").read_text())
    expected = bc.kv_memory(config, 1_000_000).bytes
    test = app(four).runs(at="1M")
    assert test.dataframe[0].value["KV @1M"].tolist() == [expected] * 4
    figure = charts(test)["quality"]
    assert "at 1M tokens" in figure["layout"]["title"]["text"]
    points = [trace for trace in figure["data"] if trace.get("name") == "bottleneck"]
    assert set(array(points[0]["x"])) == {expected}
    # At 128k it is what the run says itself.
    assert app(four).runs().dataframe[0].value["KV @128k"].tolist() == [24_576_000] * 4


def test_the_picture_is_of_the_runs_shown(app, four):
    (points,) = [t for t in charts(app(four).runs(q="lr=0.001"))["quality"]["data"] if t.get("name") == "bottleneck"]
    assert sorted(row[1] for row in points["customdata"]) == ["a0", "a1"]


def test_many_runs_are_sorted_and_turned_page_by_page(app, tmp_path):
    for number in range(260):
        folder = tmp_path / f"run{number:03d}"
        folder.mkdir()
        event = {"type": "eval", "step": 0, "val_loss": 1 + (number * 7 % 260) / 100}
        (folder / "train.jsonl").write_text(json.dumps(event) + "\n")
    bc.index(tmp_path)  # a slow machine would show the first of them only, and the others a moment later
    dashboard = app(tmp_path)
    first = dashboard.runs(sort="best loss").dataframe[0].value
    assert len(first) == 100 and first["best loss"].is_monotonic_increasing and first["best loss"].iloc[0] == 1
    last = dashboard.runs(sort="best loss", page="3").dataframe[0].value
    assert len(last) == 60 and last["best loss"].max() == pytest.approx(3.59)
    assert dashboard.runs(sort="best loss", order="true").dataframe[0].value["best loss"].iloc[0] == pytest.approx(3.59)
    assert len(dashboard.runs(q="run00", sort="best loss").dataframe[0].value) == 10


# The parts behind the page


def test_rows_without_a_value_come_last_in_either_order():
    rows = [
        {"id": name, "x": value, "config": {}} for name, value in (("a", None), ("b", 2), ("c", float("nan")), ("d", 1))
    ]
    for descending, order in ((False, "dbac"), (True, "bdac")):
        assert "".join(row["id"] for row in runs_query.by_value(rows, "x", descending=descending)) == order
    by_setting = [{"id": "a", "config": {"lr": "x"}}, {"id": "b", "config": {"lr": 3}}, {"id": "c", "config": {}}]
    assert [row["id"] for row in runs_query.by_value(by_setting, "lr", descending=False)] == ["b", "a", "c"]


def test_a_filter_that_asks_for_nothing_gives_all():
    rows = [{"id": "a", "status": "done", "config": {"flag": True}, "tags": [], "note": ""}]
    assert (
        matching(rows, Filter()) == matching(rows, Filter(text="flag=true")) == matching(rows, Filter(text="flag=yes"))
    )
    assert matching(rows, Filter(text="=a")) == [] == matching(rows, Filter(text="absent=1"))


def test_settings_that_differ_are_those_to_group_by():
    rows = [
        {"config": {"lr": 1, "same": 2, "list": [1], "out_dir": "a"}},
        {"config": {"lr": 2, "same": 2, "list": [2], "out_dir": "b", "late": 1}},
        {"config": {"late": 3}},
    ]
    names, differing = runs_query.setting_names(-1, rows)
    assert names == ["late", "list", "lr", "out_dir", "same"] and differing == ["late", "lr"]


def test_hostile_configurations_have_no_size():
    for config in ({}, {"attn_mode": ["x"]}, {"attn_mode": "standard", "d_model": {"a": 1}}, {"n_layer": 10**400}):
        assert runs_kv.cache_bytes({"config": config}, 1000) is None


def test_the_index_follows_a_change_of_ours_at_once_and_others_behind(tmp_path, make_run, monkeypatch):
    make_run("a").train(1)
    index = RunIndex((tmp_path,))
    assert [row["id"] for row in index.rows()] == ["a"] and index.unread == 0
    version, looks = index.version, []
    monkeypatch.setattr(index, "_took", 100.0)  # as of ten thousand runs
    monkeypatch.setattr(index, "_look_behind", lambda: looks.append(1))
    make_run("b").train(1)
    assert [row["id"] for row in index.rows()] == ["a"]  # looked at a moment ago
    index.look_again()
    assert [row["id"] for row in index.rows()] == ["a", "b"] and index.version > version
    version = index.version
    with open(tmp_path / "a" / "train.jsonl", "a") as file:
        file.write(json.dumps({"type": "eval", "step": 5, "val_loss": 1.0}) + "\n")
    index.look_again()
    assert index.rows()[0]["best_val_loss"] == 1.0
    assert index.version == version  # the runs are the same, only further
    assert not looks
