"""Widgets of single settings, made from the schema. Empty fields show in grey what the presets say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from dashboard.markdown import escaped
from dashboard.train.address import edit, key, show
from dashboard.train.draft import Draft
from dashboard.train.schema import Field, text_of

_UNSET = "unset"
_COLUMNS = 4


def field_grid(members: Sequence[Field], draft: Draft, wrong: str | None) -> None:
    """The fields of one group, side by side. `wrong` is the flag that the schema's sentence is about."""
    usual = draft.defaults
    for start in range(0, len(members), _COLUMNS):
        for column, field in zip(st.columns(_COLUMNS), members[start : start + _COLUMNS], strict=False):
            with column:
                setting(field, draft, usual.get(field.name), wrong == field.flag)


def setting(field: Field, draft: Draft, usual: Any, wrong: bool) -> None:
    """One setting; `usual` is its value while it is not changed."""
    text, widget = draft.settings.get(field.name), key(field.name)
    # No colours: the label is also what screen readers say, directives included.
    label = field.label + (" ▲" if wrong else " ●" if text is not None else "")
    if field.kind == "switch":
        show(widget, (text_of(usual) if text not in ("true", "false") else text) == "true")
        with st.container(height=68, border=False, vertical_alignment="bottom"):  # on a line with its neighbours
            st.toggle(label, key=widget, help=field.help, on_change=_switched, args=(field.name,))
    elif field.kind == "choice":
        chosen = text_of(usual) if text is None else text
        chosen = text_of(field.value(chosen))  # `none` is the unset one
        options = [*([""] if field.nullable else []), *field.choices]
        if chosen not in options:
            options.append(chosen)
        show(widget, chosen)
        st.selectbox(
            label,
            options,
            key=widget,
            format_func=lambda choice: choice or _UNSET,
            help=field.help,
            on_change=_chosen,
            args=(field.name,),
        )
    else:
        before = st.session_state.get(widget, "")
        if text is None and not field.says_nothing(before, usual):
            show(widget, "")
        elif text is not None and before.strip() != text:
            show(widget, text)
        st.text_input(
            label,
            key=widget,
            placeholder=text_of(usual) or _UNSET,
            help=field.help,
            live=True,
            on_change=_typed,
            args=(field.name,),
        )


def own_text(name: str, label: str, value: str, help: str, placeholder: str = "") -> None:
    """A text of the draft that is no setting: its attribute `name`."""
    widget = key(name)
    if st.session_state.get(widget, "").strip() != value or widget not in st.session_state:
        show(widget, value)

    def typed() -> None:
        text = st.session_state[widget].strip()
        edit(lambda draft: replace(draft, **{name: text}))

    st.text_input(label, key=widget, placeholder=placeholder, help=help, live=True, on_change=typed)


def changed_bar(draft: Draft, known: dict[str, Field], wrong: str | None) -> None:
    """What differs from the presets; a click takes it back."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if not draft.settings:
            st.caption("Nothing changed: grey values are those of the presets.")
            return
        for name, text in draft.settings.items():
            field = known[name]
            words = escaped(f"{field.label} {text if len(text) <= 24 else text[:23] + '…'}")
            st.button(
                f":red[{words}]" if field.flag == wrong else words,
                icon=":material/undo:",
                key=key("reset", name),
                help=f"Changed. Click to reset: {escaped(text_of(draft.defaults.get(name)) or _UNSET)}",
                on_click=edit,
                args=(Draft.with_setting, name, ""),
            )
        if len(draft.settings) > 1:
            st.button("Reset all", key=key("reset"), type="tertiary", on_click=edit, args=(_reset_all,))


def _reset_all(draft: Draft) -> Draft:
    return replace(draft, settings={})


def _typed(name: str) -> None:
    edit(Draft.with_setting, name, st.session_state[key(name)])


def _chosen(name: str) -> None:
    # Unset where the preset sets something is a setting too.
    edit(Draft.with_setting, name, st.session_state[key(name)] or "none")


def _switched(name: str) -> None:
    edit(Draft.with_setting, name, text_of(st.session_state[key(name)]))
