"""Tags and notes of runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bottleneck_core.errors import UserError
from bottleneck_core.store.notes import LONGEST_NOTE, LONGEST_TAG, MOST_TAGS, Notes, read_notes, write_notes


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = write_notes(tmp_path, tags=[" seed ", "seed", "two  words", "\n"], note="  a note\nof two lines ")
    assert written == Notes(tags=("seed", "two words"), note="a note\nof two lines") == read_notes(tmp_path)
    assert json.loads((tmp_path / "notes.json").read_text())["schema_version"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes.json"]


def test_nothing_left_is_no_file(tmp_path: Path) -> None:
    assert read_notes(tmp_path) == Notes()
    write_notes(tmp_path, tags=["a"], note="")
    assert write_notes(tmp_path, tags=[], note=" ") == Notes()
    assert not list(tmp_path.iterdir())


def test_too_much_is_refused_and_long_tags_are_cut(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="33 tags are too many"):
        write_notes(tmp_path, tags=[f"t{i}" for i in range(MOST_TAGS + 1)], note="")
    with pytest.raises(UserError, match="10,001 characters is too long"):
        write_notes(tmp_path, tags=[], note="x" * (LONGEST_NOTE + 1))
    assert write_notes(tmp_path, tags=["x" * 1000], note="").tags == ("x" * LONGEST_TAG,)
    with pytest.raises(UserError, match="plain text"):
        write_notes(tmp_path, tags=[], note="\ud800")


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"tags": ["a"]}', '{"schema_version": "1", "tags": []}', '{"cells": []}', "\x00" * 10]
)
def test_a_file_of_another_program_is_neither_read_nor_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "notes.json").write_text(text)
    assert read_notes(tmp_path) == Notes(foreign=True)
    with pytest.raises(UserError, match="of another program"):
        write_notes(tmp_path, tags=["mine"], note="")
    assert (tmp_path / "notes.json").read_text() == text


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text('{"schema_version": 1, "note": "private"}')
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "notes.json").symlink_to(elsewhere)
    assert read_notes(folder) == Notes(foreign=True)


def test_values_of_another_type_are_left_out(tmp_path: Path) -> None:
    fields = {"schema_version": 2, "tags": ["a", 1, None, "b\nc"], "note": 3, "more": {}}
    (tmp_path / "notes.json").write_text(json.dumps(fields))
    assert read_notes(tmp_path) == Notes(tags=("a", "b c"))
