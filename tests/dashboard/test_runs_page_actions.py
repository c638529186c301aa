"""What the page of runs does to ticked runs."""

from __future__ import annotations

import json

import pytest

from bottleneck_core.store.attic import put_away_runs
from bottleneck_core.store.lock import RunLock
from bottleneck_core.store.notes import read_notes, write_notes
from dashboard import access
from dashboard.runs import actions as runs_actions
from dashboard.runs.selection import rows_csv, rows_json

from .conftest import texts


@pytest.fixture
def three(make_run, tmp_path):
    for name in ("a", "b", "<b>c"):
        run = make_run(name)
        run.train(10)
        run.finish()
    return tmp_path


def ticked(test, root, *names: str):
    """The page with these runs ticked."""
    test.session_state["ticked_runs"] = [str(root / name) for name in names]
    return test.run()


def names(test) -> set[str]:
    assert not test.exception
    return set(test.dataframe[0].value["run"]) if test.dataframe else set()


def notes_keys(test) -> str:
    return next(box.key for box in test.multiselect if str(box.key).startswith("tags/"))


def saved(test, tags: list[str], note: str | None = None):
    key = notes_keys(test)
    test.multiselect(key=key).set_value(tags)
    if note is not None:
        test.text_area(key=key.replace("tags/", "note/")).set_value(note)
    next(button for button in test.button if button.label == "Save").click()
    return test.run()


def test_one_run_gets_tags_and_a_note(app, three):
    test = saved(ticked(app(three).runs(), three, "a"), ["new", "x y"], "why")
    assert not test.exception and not test.error
    assert (read_notes(three / "a").tags, read_notes(three / "a").note) == (("new", "x y"), "why")
    table = test.dataframe[0].value.set_index("run")
    assert list(table.loc["a", "tags"]) == ["new", "x y"]
    saved(test, ["x y"], "")
    assert json.loads((three / "a" / "notes.json").read_text())["tags"] == ["x y"]
    assert read_notes(three / "a").note == ""


def test_several_runs_keep_what_only_some_of_them_have(app, three):
    write_notes(three / "a", tags=["both", "mine"], note="stays")
    write_notes(three / "b", tags=["both"], note="")
    test = ticked(app(three).runs(), three, "a", "b")
    assert test.multiselect(key=notes_keys(test)).value == ["both"] and not test.text_area
    saved(test, ["added"])
    assert read_notes(three / "a").tags == ("mine", "added") and read_notes(three / "a").note == "stays"
    assert read_notes(three / "b").tags == ("added",)


def test_a_file_in_the_way_is_a_sentence(app, three):
    (three / "a" / "notes.json").write_text("{}")
    test = saved(ticked(app(three).runs(), three, "a"), ["x"])
    assert "of another program" in test.error[0].value and (three / "a" / "notes.json").read_text() == "{}"


@pytest.mark.parametrize("shelf", ["archive", "trash"])
def test_runs_are_put_away_after_a_question_and_come_back(app, three, shelf):
    test = ticked(app(three).runs(), three, "a", "<b>c")
    test.button(key=f"ask_{shelf}").click().run()
    assert names(test) == {"a", "b", "<b>c"} and not put_away_runs(three)
    assert {"a", "<b>c"} <= {text.value for text in test.text}  # named as what they are
    test.button(key="confirm_move").click().run()
    assert names(test) == {"b"}
    assert {(run.id, run.shelf) for run in put_away_runs(three)} == {("a", shelf), ("<b>c", shelf)}
    assert "2 runs" in texts(test)
    test.button(key="undo_move").click().run()
    assert names(test) == {"a", "b", "<b>c"} and not put_away_runs(three)


def test_one_of_those_put_away_is_restored_from_the_list(app, three):
    test = ticked(app(three).runs(), three, "a")
    test.button(key="ask_trash").click().run()
    test.button(key="confirm_move").click().run()
    later = app(three).runs()  # another visitor, another day
    next(button for button in later.button if button.label == "Restore").click().run()
    assert names(later) == {"a", "b", "<b>c"}


def test_a_question_that_is_cancelled_changes_nothing(app, three):
    test = ticked(app(three).runs(), three, "a")
    test.button(key="ask_trash").click().run()
    test.button(key="cancel_move").click().run()
    assert names(test) == {"a", "b", "<b>c"}
    assert not [button for button in test.button if button.key == "confirm_move"]


def test_a_run_that_is_trained_is_not_moved(app, three):
    with RunLock(three / "a"):
        test = ticked(app(three).runs(), three, "a")
        for shelf in ("archive", "trash"):
            assert test.button(key=f"ask_{shelf}").disabled
    # Trained only since the question was asked.
    test = ticked(app(three).runs(), three, "a", "b")
    test.button(key="ask_trash").click().run()
    with RunLock(three / "a"):
        test.button(key="confirm_move").click().run()
        for _ in range(2):  # it stays when the page is drawn anew
            assert r"a is running\: stop it first" in test.error[0].value
            test.run()
        assert names(test) == {"a", "<b>c"}  # the others go
        test.button(key="forget_problems").click().run()
        assert not test.error


def test_who_may_not_changes_nothing(app, three, monkeypatch):
    test, other, asked = (ticked(app(three).runs(), three, "a") for _ in range(3))
    asked.button(key="ask_trash").click().run()
    monkeypatch.setattr(runs_actions, "may_change", lambda: False)
    # Drawn while it was allowed.
    saved(test, ["x"])
    other.button(key="ask_trash").click().run()
    asked.button(key="confirm_move").click().run()
    assert not [button for button in other.button if button.key == "confirm_move"]
    assert not put_away_runs(three) and not (three / "a" / "notes.json").exists()
    assert test.button(key="ask_archive").disabled and test.button(key="ask_archive").help == access.why_not()


def test_all_runs_can_be_put_away_and_come_back(app, three):
    test = ticked(app(three).runs(), three, "a", "b", "<b>c")
    test.button(key="ask_archive").click().run()
    test.button(key="confirm_move").click().run()
    assert "No runs in" in texts(test)
    test.button(key="undo_move").click().run()
    assert names(test) == {"a", "b", "<b>c"}


def test_exports_hold_tags_and_settings_whatever_they_are():
    row = {"id": "=cmd", "tags": ["a", "b"], "note": None, "config": {"big": 10**30, "half": "\ud800"}, "errors": []}
    header, line = rows_csv([row]).splitlines()
    assert line.startswith("'=cmd,") and dict(zip(header.split(","), line.split(","), strict=True))["tags"] == "a; b"
    assert json.loads(rows_json([row]))[0]["config"]["big"] == 10**30
