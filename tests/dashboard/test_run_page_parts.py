"""The page of a run: what can be done with it, its cache, its files."""

from __future__ import annotations

import io
import json
import zipfile
from urllib.parse import parse_qs

import pandas as pd
import pytest

import bottleneck_core as bc
from bottleneck_core.store.lock import RunLock
from bottleneck_core.store.notes import write_notes
from dashboard.run import actions as run_actions
from dashboard.run.export import events_csv, exported_files, run_zip
from dashboard.run.files import file_inside
from dashboard.run.kv import layer_frame, model_of, run_cache

from .conftest import array, charts, texts, trace


@pytest.fixture
def finished(make_run):
    run = make_run("finished")
    run.train(30)
    run.finish()
    (run.path / "last.pt").write_bytes(b"weights")
    return run


def links(test) -> dict[str, dict]:
    """Links of the page by their words: whether they are disabled, and their query parameters."""
    return {
        link.proto.label: {"disabled": link.proto.disabled, **parse_qs(link.proto.query_string)}
        for link in test.get("page_link")
    }


def test_resume_and_clone_lead_to_the_training_page(app, finished, tmp_path):
    found = links(app(tmp_path).run("finished"))
    assert found["Resume"] == {"disabled": False, "resume": ["finished"]}
    assert found["Clone"] == {"disabled": False, "clone": ["finished"]}
    (finished.path / "last.pt").unlink()
    assert links(app(tmp_path).run("finished"))["Resume"]["disabled"]
    (finished.path / "last.pt").touch()
    with RunLock(finished.path):
        assert links(app(tmp_path).run("finished"))["Resume"]["disabled"]


def test_one_of_two_of_a_name_is_meant_with_its_folder(app, make_run, tmp_path):
    for root in ("x", "y"):
        make_run("twin", root=tmp_path / root).train(5)
    found = links(app(tmp_path / "x", tmp_path / "y").run("twin", root=str(tmp_path / "y")))
    assert found["Clone"] == {"disabled": False, "clone": ["twin"], "root": [str(tmp_path / "y")]}


def test_who_may_not_finds_resume_and_clone_closed(app, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(run_actions, "may_change", lambda: False)
    found = links(app(tmp_path).run("finished"))
    assert found["Resume"]["disabled"] and found["Clone"]["disabled"]


def test_tags_and_note_are_shown_as_text(app, finished, tmp_path):
    write_notes(finished.path, tags=["<b>x</b>", "a*b*"], note="[link](http://x) <i>")
    test = app(tmp_path).run("finished")
    assert r"\<b\>x\</b\>" in texts(test) and r"a\*b\*" in texts(test)
    assert "[link](http://x) <i>" in [text.value for text in test.text]


def test_the_cache_of_the_run_by_tensor_layer_and_context(app, finished, tmp_path):
    test = app(tmp_path).run("finished", tab="KV memory", at="1M")
    assert not test.exception
    expected = bc.kv_memory(finished.config, 1_000_000)
    drawn = charts(test)
    line = drawn["sizes"]["data"]
    named = {trace["name"]: array(trace["y"])[-1] for trace in line if trace.get("mode") == "lines"}
    assert named["finished"] == 10 * expected.bytes  # at 10 million
    assert named["standard fp16"] == 10 * expected.baseline_fp16_bytes
    assert array(next(t for t in line if t["name"] == "finished")["x"])[0] == 1
    assert sum(array(t["x"])[0] for t in drawn["tensors"]["data"]) == expected.bytes
    layers = test.dataframe[1].value
    assert layers["bytes"].sum() == expected.bytes and len(layers) == finished.config["n_layer"]
    address = links(test)["Open in the calculator"]
    assert address["a.run"] == ["finished"] and address["context"] == ["1000000"]


def test_the_cache_is_stored_as_the_run_says(finished):
    config = json.loads((finished.path / "config.json").read_text())
    finished.write("config.json", {**config, "kv_cache": "q8_0", "kv_first_layers": 1})
    run = bc.load_run(finished.path)
    found = run_cache(model_of(run), 128_000)
    assert found.result.size.bytes == bc.kv_memory(run.config, 128_000).bytes
    frame = layer_frame(found)
    assert frame["k"].iloc[0].endswith("fp16") and frame["k"].iloc[1].endswith("q8_0")


def test_a_run_without_a_shape_has_no_cache(app, tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "train.jsonl").write_text('{"type": "train", "step": 0, "loss": 1.0}\n')
    test = app(tmp_path).run("bare", tab="KV memory")
    assert not test.exception and "has no known size" in test.info[0].value


def test_the_attention_tab_leads_to_the_attention_page(app, finished, tmp_path):
    assert "Every step, head and map of this run" not in links(app(tmp_path).run("finished", tab="Attention"))
    finished.analyse()
    link = links(app(tmp_path).run("finished", tab="Attention"))["Every step, head and map of this run"]
    assert link["run"] == ["finished"]


def test_memory_is_a_curve_where_it_was_recorded(app, make_run, tmp_path):
    run = make_run("gpu")
    for step in range(5):
        run.events.write("train", step, loss=3.0, device_peak_bytes=2**30 * (step + 1))
    run.events.flush()
    drawn = charts(app(tmp_path).run("gpu"))
    (curve,) = [trace for trace in drawn["memory"]["data"] if trace.get("name") == "peak"]
    assert array(curve["y"]).tolist() == [1, 2, 3, 4, 5]
    assert drawn["memory"]["layout"]["height"] == drawn["perplexity"]["layout"]["height"]


# Files and exports


def test_only_files_of_the_folder_are_offered(finished, tmp_path):
    (tmp_path / "private").write_text("secret")
    (finished.path / "out").symlink_to(tmp_path / "private")
    assert file_inside(finished.path, "config.json") == finished.path / "config.json"
    for name in ("out", "../private", str(tmp_path / "private"), "absent", "."):
        assert file_inside(finished.path, name) is None


def test_the_zip_holds_the_folder_without_checkpoints(finished, tmp_path):
    (finished.path / "last.dcp").mkdir()
    (finished.path / "last.dcp" / "shard").touch()
    (finished.path / "sub").mkdir()
    (finished.path / "sub" / "notes.txt").write_text("kept")
    (finished.path / "out").symlink_to(tmp_path)
    (finished.path / "linked.json").symlink_to(finished.path / "config.json")
    expected = {"config.json", "manifest.json", "summary.md", "train.jsonl", "sub/notes.txt"}
    assert {path.relative_to(finished.path).as_posix() for path in exported_files(finished.path)} == expected
    with zipfile.ZipFile(io.BytesIO(run_zip(finished.path))) as archive:
        assert set(archive.namelist()) == {f"finished/{name}" for name in expected}
        assert archive.read("finished/sub/notes.txt") == b"kept"


def test_the_events_are_one_table(finished):
    table = pd.read_csv(io.StringIO(events_csv(bc.load_run(finished.path))))
    assert table["type"].value_counts().to_dict() == {"train": 30, "eval": 4}
    assert list(table.columns[:2]) == ["type", "step"]
    assert table["step"].tolist() == sorted(table["step"])
    counts = table.count().to_dict()
    assert counts["val_loss"] == 4 and counts["loss"] == 30


def test_a_link_opens_its_run_while_others_are_unread(app, tmp_path, make_run, monkeypatch):
    """A server that has just begun to read a big folder."""
    from bottleneck_core.store import index

    for name in ("first", "second", "third"):
        run = make_run(name)
        run.train(20)
        run.finish()
    monkeypatch.setattr("dashboard.run.index._FIRST_PORTION", -1.0)
    monkeypatch.setattr("dashboard.run.index.RunIndex._look_behind", lambda self: None)
    monkeypatch.setattr(index, "_entries", {})
    test = app(tmp_path).run("second")
    assert not test.warning and "second" in texts(test)
    test = app(tmp_path)._open("dashboard/pages/compare.py", {"runs": "third,first"})
    assert not test.warning and trace(charts(test)["overlay"], "third")
