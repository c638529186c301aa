"""notes.json: what people say of a run. The only file in a run folder that readers of runs write.

Tags and a text, in any run folder, ours or a foreign one; training neither reads nor writes it. The writer is strict
and replaces the whole file; the reader takes what it understands. A notes.json of another program stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bottleneck_core.errors import UserError
from bottleneck_core.store.atomic import atomic_write_bytes

NAME = "notes.json"
SCHEMA_VERSION = 1
MOST_TAGS = 32
LONGEST_TAG = 48
LONGEST_NOTE = 10_000
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # Windows has none
_MOST_BYTES = 256 << 10  # a file of ours is below a quarter of it


@dataclass(frozen=True, kw_only=True)
class Notes:
    """Tags in the order in which they were given, each once, and a text. `foreign`: another program's file."""

    tags: tuple[str, ...] = ()
    note: str = ""
    foreign: bool = False


def read_notes(folder: str | os.PathLike[str]) -> Notes:
    """The notes in a run folder; empty where there are none that can be read."""
    path = os.path.join(folder, NAME)
    try:
        # A link would show, or replace, a file from elsewhere.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NO_LINKS)) as file:
            data = file.read(_MOST_BYTES + 1)
        fields = orjson.loads(data)
    except FileNotFoundError:
        return Notes()
    except (OSError, ValueError):
        return Notes(foreign=True)
    if not isinstance(fields, dict) or not _is_ours(fields):
        return Notes(foreign=True)
    tags, note = fields.get("tags"), fields.get("note")
    return Notes(
        tags=tuple(clean_tags(tag for tag in tags if isinstance(tag, str))) if isinstance(tags, list) else (),
        note=note[:LONGEST_NOTE] if isinstance(note, str) else "",
    )


def write_notes(folder: str | os.PathLike[str], *, tags: Iterable[str], note: str) -> Notes:
    """Replaces the notes of a run; none at all remove the file. Returns what was written.

    Raises UserError for too many or too long ones, where another program's notes.json is in the way, and where the
    folder cannot be written.
    """
    folder = Path(folder)
    kept, note = clean_tags(tags), note.strip()
    if len(kept) > MOST_TAGS:
        raise UserError(f"{len(kept)} tags are too many: a run takes {MOST_TAGS}")
    if len(note) > LONGEST_NOTE:
        raise UserError(f"a note of {len(note):,} characters is too long: {LONGEST_NOTE:,} are kept")
    if read_notes(folder).foreign:
        raise UserError(f"{folder / NAME} is of another program: rename it to keep notes here")
    document = {"schema_version": SCHEMA_VERSION, "tags": kept, "note": note}
    try:
        if kept or note:
            atomic_write_bytes(folder / NAME, orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
        else:
            (folder / NAME).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{folder / NAME} cannot be written ({error.strerror}): check the folder's rights") from None
    except TypeError:  # a lone surrogate
        raise UserError("tags and notes are plain text: remove what is no character") from None
    return Notes(tags=tuple(kept), note=note)


def clean_tags(tags: Iterable[str]) -> list[str]:
    """Tags on one line, without what is not printable, cut at their longest, each once."""
    plain = ("".join(c for c in " ".join(tag.split()) if c.isprintable())[:LONGEST_TAG].strip() for tag in tags)
    return list(dict.fromkeys(tag for tag in plain if tag))


def _is_ours(fields: dict[str, Any]) -> bool:
    return isinstance(fields.get("schema_version"), int) and ("tags" in fields or "note" in fields)
