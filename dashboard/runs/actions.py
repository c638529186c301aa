"""What is done to ticked runs: tags and notes, the archive, the trash, and the way back.

A dialog asks before runs are moved; it belongs to the page and not to the part of it that is drawn anew while runs are
trained, which would close it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path

import streamlit as st

import bottleneck_core as bc
from bottleneck_core.store.attic import PutAway, Shelf, put_away, put_away_runs, restore
from bottleneck_core.store.notes import LONGEST_NOTE, LONGEST_TAG, MOST_TAGS, read_notes, write_notes
from dashboard.access import may_change, why_not
from dashboard.markdown import escaped
from dashboard.runs.query import all_tags
from dashboard.runs.selection import untick_all
from dashboard.state import Row, all_runs, root_of, run_roots

_ASKED, _MOVED, _PROBLEMS = "runs_asked", "runs_moved", "runs_problems"
_MOST_NAMED = 12
_VERBS = {"archive": ("Archive", "archived"), "trash": ("Delete", "deleted")}


@dataclass
class _Question:
    shelf: Shelf
    rows: list[Row]
    drawn: bool = False


def tag_popover(ticked: Sequence[Row], rows: Sequence[Row], label: str = "Tag") -> None:
    """Edits the tags of runs, and the note where it is one; of several those that all of them have."""
    allowed = may_change()
    with st.popover(
        label, icon=":material/sell:", disabled=not allowed, help=None if allowed else why_not(), width="content"
    ):
        notes_form(ticked, rows)


def notes_form(ticked: Sequence[Row], rows: Sequence[Row]) -> None:
    """The widgets of `tag_popover`."""
    common = [tag for tag in ticked[0]["tags"] if all(tag in row["tags"] for row in ticked)]
    one = ticked[0] if len(ticked) == 1 else None
    # Widgets keep what was typed as long as the runs and their notes are the same.
    state = [[row["path"], *row["tags"], row["note"]] for row in ticked]
    key = sha1(repr(state).encode("utf-8", "replace")).hexdigest()[:12]
    with st.form(f"notes/{key}", border=False, width=360):
        st.multiselect(
            "Tags" if one else f"Tags of all {len(ticked)} runs",
            sorted({*all_tags(rows), *common}, key=str.lower),
            default=common,
            key=f"tags/{key}",
            max_selections=MOST_TAGS,
            accept_new_options=True,
            placeholder="choose, or type a new one",
            help=f"Up to {LONGEST_TAG} characters each. They are kept in notes.json of the run's folder.",
        )
        if one:
            st.text_area("Note", one["note"], height=110, max_chars=LONGEST_NOTE, key=f"note/{key}")
        st.form_submit_button(
            "Save", type="primary", disabled=not may_change(), on_click=_save, args=(list(ticked), common, key)
        )


def move_buttons(ticked: Sequence[Row]) -> None:
    """Archive and Delete; both ask before they do."""
    allowed = may_change()
    busy = [row["id"] for row in ticked if row["status"] in ("running", "queued")]
    reason = f"{escaped(busy[0])} is running or queued: stop it first." if busy else None
    reason = reason if allowed else why_not()
    for shelf, icon in (("archive", ":material/archive:"), ("trash", ":material/delete:")):
        st.button(
            _VERBS[shelf][0],
            icon=icon,
            key=f"ask_{shelf}",
            disabled=reason is not None,
            help=reason,
            on_click=_ask,
            args=(shelf, list(ticked)),
        )


def question_waits() -> bool:
    """Whether a dialog was asked for that the page has not drawn yet."""
    question = st.session_state.get(_ASKED)
    return question is not None and not question.drawn


def dialog() -> None:
    """Asks whether the runs are to be moved, where that was asked for. To be called by the page itself."""
    question: _Question | None = st.session_state.get(_ASKED)
    if question is None:
        return
    question.drawn = True
    verb, _ = _VERBS[question.shelf]
    count = len(question.rows)
    title = f"{verb} {'this run' if count == 1 else f'these {count} runs'}?"

    @st.dialog(title, on_dismiss=_answered)
    def ask() -> None:
        for row in question.rows[:_MOST_NAMED]:
            st.text(row["id"])
        if count > _MOST_NAMED:
            st.text(f"and {count - _MOST_NAMED} more")
        st.caption(f"Moved to `.{question.shelf}` in their folder of runs, from where they can be restored.")
        with st.container(horizontal=True):
            if st.button(verb, type="primary", key="confirm_move", disabled=not may_change()):
                _move(question)
                st.rerun()
            if st.button("Cancel", key="cancel_move"):
                _answered()
                st.rerun()

    ask()


def problems() -> None:
    """Sentences on what went wrong in the last action, until the next one or until they are closed."""
    sentences = st.session_state.get(_PROBLEMS, [])
    if sentences:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.error("\n\n".join(escaped(f"{sentence}.") for sentence in sentences), width="stretch")
            st.button(
                "", icon=":material/close:", type="tertiary", key="forget_problems", help="Close", on_click=_start
            )


def outcome() -> bool:
    """What the last action did, with the way back; whether there is any to tell of."""
    moved: list[PutAway] = st.session_state.get(_MOVED, [])
    if not moved:
        return False
    what = moved[0].id if len(moved) == 1 else f"{len(moved)} runs"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f":material/check: {escaped(what)} {_VERBS[moved[0].shelf][1]}.", width="content")
        allowed = may_change()
        st.button(
            "Undo",
            icon=":material/undo:",
            key="undo_move",
            disabled=not allowed,
            help=None if allowed else why_not(),
            on_click=_restore,
            args=(moved,),
        )
        st.button("", icon=":material/close:", type="tertiary", key="forget_move", help="Close", on_click=_forget)
    return True


def shelves_popover() -> None:
    """The runs that were put away, each with a button that brings it back; absent where there are none."""
    found = [run for root in run_roots() for run in put_away_runs(root, _MOST_NAMED + 1)]
    if not found:
        return
    allowed = may_change()
    with st.popover("Put away", icon=":material/inventory_2:", help="Archived and deleted runs"):
        for place, run in enumerate(found[:_MOST_NAMED]):
            with st.container(horizontal=True, vertical_alignment="center", width=420):
                st.text(run.id, width="stretch")
                st.caption(f"{_VERBS[run.shelf][1]} {run.time:%Y-%m-%d %H:%M}", width="content")
                st.button(
                    "Restore",
                    key=f"restore/{place}/{run.path}",
                    disabled=not allowed,
                    help=None if allowed else why_not(),
                    on_click=_restore,
                    args=([run],),
                )
        rest = " Older ones are not listed." if len(found) > _MOST_NAMED else ""
        places = ", ".join(dict.fromkeys(str(run.root / f".{run.shelf}") for run in found))
        st.caption(f"They lie in {escaped(places)}; what is removed there is gone.{rest}")


def _save(ticked: list[Row], common: list[str], key: str) -> None:
    if not may_change():
        return
    _start()
    chosen = st.session_state[f"tags/{key}"]
    dropped = set(common) - set(chosen)
    for row in ticked:
        path = _folder(row)
        if path is None:
            continue
        now = read_notes(path)  # another reader may have written since
        tags = [*(tag for tag in now.tags if tag not in dropped), *chosen]
        with _told():
            write_notes(path, tags=tags, note=st.session_state.get(f"note/{key}", now.note))
    all_runs().look_again()


def _ask(shelf: Shelf, ticked: list[Row]) -> None:
    if may_change():
        st.session_state[_ASKED] = _Question(shelf, ticked)


def _answered() -> None:
    st.session_state.pop(_ASKED, None)


def _forget() -> None:
    st.session_state.pop(_MOVED, None)


def _move(question: _Question) -> None:
    _answered()
    if not may_change():
        return
    _start()
    moved = []
    for row in question.rows:
        path = _folder(row)
        if path is not None:
            with _told():
                moved.append(put_away(path, root_of(row), question.shelf))
    st.session_state[_MOVED] = moved
    untick_all()
    all_runs().look_again()


def _restore(runs: list[PutAway]) -> None:
    if not may_change():
        return
    _start()
    for run in runs:
        with _told():
            restore(run)
    _forget()
    all_runs().look_again()


def _folder(row: Row) -> Path | None:
    """The run's folder if it still is one of those that are looked at: what was ticked may be old."""
    known = {other["path"] for other in all_runs().rows()}
    if row["path"] in known:
        return Path(row["path"])
    _note_problem(f"{row['id']} is not there any more")
    return None


def _start() -> None:
    """What went wrong before is over."""
    st.session_state.pop(_PROBLEMS, None)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """A mistake inside is told with the next drawing, and the others go on."""
    try:
        yield
    except bc.UserError as error:
        _note_problem(str(error))


def _note_problem(sentence: str) -> None:
    st.session_state.setdefault(_PROBLEMS, []).append(sentence)
