"""The form: preset cards, data and name, the first settings, the folded rest, the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import streamlit as st

import bottleneck_core as bc
from bottleneck_core.config import EXPERIMENTS
from bottleneck_core.figures import numbers
from dashboard.access import may_change, why_not
from dashboard.markdown import escaped
from dashboard.state import run_roots
from dashboard.train.address import edit, key, show
from dashboard.train.corpora import BUILT_IN, Corpus, built_in_path, corpora, corpus_of
from dashboard.train.devices import device_of, devices, usable_cores
from dashboard.train.draft import ALL, SIZES, Draft
from dashboard.train.fields import changed_bar, field_grid, own_text
from dashboard.train.plan import plan
from dashboard.train.prepare import prepare_built_in, preparing
from dashboard.train.schema import FIRST, OWN, fields, folded_groups
from dashboard.train.speed import Measured

_CUSTOM = "custom"
_TITLES = {
    "paper_baseline": "Standard",
    "paper_bottleneck": "Bottleneck",
    "paper_decoupled": "Decoupled",
    "paper_gqa": "Grouped queries",
}


def form(draft: Draft, runs: Sequence[Measured], wrong: str | None) -> None:
    """All of it. `wrong` is the flag that the schema objects to."""
    preset_cards(draft, runs)
    what_and_where(draft)
    changed_bar(draft, fields(), wrong)
    field_grid([fields()[name] for name in FIRST], draft, wrong)
    sweep(draft)
    for group, members in folded_groups().items():
        changed = sum(member.name in draft.settings for member in members)
        title = group[0].upper() + group[1:]
        words = f"{title} :primary[· {changed} changed]" if changed else title
        with st.expander(words, key=key("group", group), on_change="rerun") as folded:
            if folded.open:  # a hundred widgets that nobody looks at would slow each keystroke
                field_grid(members, draft, wrong)


def preset_cards(draft: Draft, runs: Sequence[Measured]) -> None:
    """Sizes in a line, the attentions of the chosen size as cards."""
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        show(key("size"), draft.size or _CUSTOM)
        st.segmented_control(
            "Size",
            [*SIZES, *([] if draft.size else [_CUSTOM])],
            key=key("size"),
            required=True,
            label_visibility="collapsed",
            help=fields()["size"].help,
            on_change=_sized,
        )
        chosen = draft.exp == ALL
        st.button(
            "All four attentions",
            key=key("exp", ALL),
            type="primary" if chosen else "secondary",
            icon=":material/check:" if chosen else None,
            help="One run each, from the same seed.",
            on_click=edit,
            args=(Draft.with_exp, ALL),
        )
    for column, exp in zip(st.columns(len(EXPERIMENTS)), EXPERIMENTS, strict=True):
        with column, st.container(border=True, gap="small"):
            _card(exp, draft, runs)


def _card(exp: str, draft: Draft, runs: Sequence[Measured]) -> None:
    chosen = draft.exp in (exp, ALL)
    st.button(
        _TITLES.get(exp, exp),
        key=key("exp", exp),
        type="primary" if chosen else "secondary",
        icon=":material/check:" if chosen else None,
        width="stretch",
        on_click=edit,
        args=(Draft.with_exp, exp),
    )
    try:
        config = bc.RunConfig.resolve(size=draft.size, exp=exp)
        device = device_of(draft.settings.get("device")) or devices()[0]
        numbers_of = plan(config, corpus_of(config), device, runs)
    except bc.UserError:  # a share of the width that is no whole number
        st.caption("not at this size")
        return
    time = numbers.duration(numbers_of.seconds) if numbers_of.seconds is not None else "time not measured"
    st.caption(
        f"{numbers.count(numbers_of.params)} parameters  \n{numbers.size(numbers_of.kv_bytes)} KV @128k  \n{time}",
        help=f"{numbers.exact_size(numbers_of.kv_bytes)} of KV cache for one request at 128,000 tokens, in fp16.",
    )


def what_and_where(draft: Draft) -> None:
    """The corpus, the run's name, the device."""
    found = devices()
    most = sum(device.name != "cpu" for device in found) or usable_cores()
    left, middle, right, last = st.columns([5, 3, 3, 2])
    with left:
        _corpus_choice(draft)
    with middle:
        own_text("name", "run name", draft.name, "Name of the run's folder; empty: made from the presets.", "automatic")
    with right:
        options = ["", *(device.name for device in found)]
        setting = draft.settings.get("device", "")
        options += [] if setting in options else [setting]
        show(key("device"), setting)
        st.selectbox(
            "device",
            options,
            key=key("device"),
            format_func=lambda name: name or f"automatic: {found[0].name}",
            help=fields()["device"].help,
            on_change=_device_chosen,
        )
    with last:
        show(key("nproc"), draft.nproc)
        st.number_input(
            "processes",
            1,
            max(most, draft.nproc),
            key=key("nproc"),
            help="More than one: started through torchrun, the batch shared among them.",
            on_change=_attribute,
            args=("nproc",),
        )
    names = [str(root) for root in run_roots()]
    if len(names) > 1:
        show(key("root"), draft.root if draft.root in names else names[0])
        st.selectbox("folder of the run", names, key=key("root"), on_change=_attribute, args=("root",))


def _corpus_choice(draft: Draft) -> None:
    found: dict[str, Corpus] = {str(corpus.path): corpus for corpus in corpora()}
    tokenizer = str(draft.explicit.get("tokenizer") or draft.defaults.get("tokenizer"))
    tokenizer = "gpt2" if tokenizer == "tiktoken" else tokenizer
    ready = built_in_path(tokenizer).is_file()
    # The built-in corpus stands there already, under its own name.
    options = ["", *(path for path in found if Path(path) != built_in_path(tokenizer))]
    setting = draft.settings.get("data", "")
    options += [] if setting in options else [setting]

    def words(path: str) -> str:
        if path:
            return found[path].label if path in found else path
        state = "" if ready else ", prepared at the start"
        return f"{BUILT_IN} · {tokenizer}{state}"

    show(key("data"), setting)
    st.selectbox(
        "data", options, key=key("data"), format_func=words, help=fields()["data"].help, on_change=_corpus_chosen
    )
    if not ready and not setting:
        running = preparing(tokenizer)
        st.button(
            f"Preparing {BUILT_IN} …" if running else f"Prepare {BUILT_IN} now",
            key=key("prepare"),
            type="tertiary",
            icon=":material/hourglass_top:" if running else ":material/download_done:",
            disabled=running or not may_change(),
            help="Makes the token file in the background, so that the run's size is known and it starts at once."
            if may_change()
            else why_not(),
            on_click=prepare_built_in,
            args=(tokenizer,),
        )


def sweep(draft: Draft) -> None:
    """One setting with a list of values, times a list of seeds."""
    active = bool(draft.sweep or draft.seeds)
    words = "Sweep :primary[· on]" if active else "Sweep"
    with st.expander(words, key=key("sweep_fold"), on_change="rerun") as folded:
        if not folded.open:
            return
        left, middle, right = st.columns([1, 2, 1])
        with left:
            names = ["", *(name for name in fields() if name not in OWN and name != "seed")]
            show(key("sweep"), draft.sweep if draft.sweep in names else "")
            st.selectbox(
                "setting",
                names,
                key=key("sweep"),
                format_func=lambda name: fields()[name].label if name else "none",
                help=escaped(fields()[draft.sweep].help) if draft.sweep in fields() else "Type to search.",
                on_change=_attribute,
                args=("sweep",),
            )
        with middle:
            own_text("values", "its values", draft.values, "Separated by commas, or by semicolons.", "1e-3, 2e-3, 4e-3")
        with right:
            own_text("seeds", "seeds", draft.seeds, "Each value is run with each seed.", "1337, 1338")


def _sized() -> None:
    size = st.session_state[key("size")]
    edit(Draft.with_size, None if size == _CUSTOM else size)


def _attribute(name: str) -> None:
    value = st.session_state[key(name)]
    edit(lambda draft: replace(draft, **{name: value}))


def _corpus_chosen() -> None:
    edit(_with_text, "data", st.session_state[key("data")])


def _device_chosen() -> None:
    edit(_with_text, "device", st.session_state[key("device")])


def _with_text(draft: Draft, name: str, text: str) -> Draft:
    others = {key: value for key, value in draft.settings.items() if key != name}
    return replace(draft, settings=others | ({name: text} if text else {}))
