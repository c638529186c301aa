"""A scenario's widgets: each takes what it starts from and returns what the reader chose."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

import streamlit as st

from bottleneck_core.cli.amounts import decimal
from bottleneck_core.config import EXPERIMENTS
from bottleneck_core.errors import UserError
from bottleneck_core.memory import FORMATS, PACKABLE, CachePolicy
from dashboard.kv.address import edited, key
from dashboard.kv.config import MOST_CHARACTERS, read_config
from dashboard.kv.models import SIZES, Model, public_names, run_sources
from dashboard.kv.scenario import (
    FIRST,
    MOST_LAYERS,
    MOST_TOKENS,
    MOST_VALUES,
    SOURCES,
    Source,
    SourceKind,
    read_layers,
    settings_of,
    spelled_layers,
)
from dashboard.markdown import escaped

_SOURCE_NAMES = {"run": "Run", "preset": "Preset", "model": "Public", "config": "Config"}


def source_form(letter: str, seed: Source) -> Source:
    """Where the model comes from. Raises UserError where what was given is no configuration."""
    kind = st.segmented_control(
        "Model",
        SOURCES,
        default=seed.kind,
        required=True,
        format_func=_SOURCE_NAMES.__getitem__,
        key=key(letter, "kind"),
        on_change=edited,
        label_visibility="collapsed",
        width="stretch",
    )
    kind = cast("SourceKind", kind or seed.kind)
    before = seed if seed.kind == kind else Source(kind=kind, name="")
    if kind == "preset":
        return _preset_form(letter, before)
    if kind == "config":
        return _config_form(letter, before)
    if kind == "run":
        return _run_form(letter, before)
    names = public_names()
    name = _choice("Public model", names, _place(names, before.name), key(letter, "model"), help="Type to search.")
    return Source(kind="model", name=name or before.name)


def storage_form(letter: str, model: Model, source: Source, before: CachePolicy) -> CachePolicy | None:
    """How the cache is stored; None where that is the source's own way. Raises UserError for unreadable layers."""
    # Runs have ways of their own, and public models no residual window: each kind of source keeps its own fields.
    group = f"run {source.name}" if source.kind == "run" else "public" if model.public else "own"
    kinds: dict[str, str] = {}
    for column, name in zip(st.columns(max(1, len(model.tensors))), model.tensors, strict=False):
        with column:
            kinds[name] = _format(name, before.kind_of(name), model, key(letter, group, name))
    if not model.tensors:
        st.caption("Nothing grows with the context: no formats to choose.")
    with st.popover("Blocks, residual, layers", icon=":material/tune:", width="stretch"):
        policy = _details(letter, group, model, before, kinds)
    return None if settings_of(policy, model.tensors) == settings_of(model.own, model.tensors) else policy


def params_form(letter: str, before: int | None) -> int | None:
    """The number of weights, asked for where the source does not say it."""
    text = st.text_input(
        "Number of weights",
        "" if before is None else f"{before}",
        placeholder="8.03e9",
        key=key(letter, "params"),
        on_change=edited,
        help="This configuration does not say it; what fits a card depends on it.",
    )
    try:
        number = round(decimal(text.strip() or None, "the number of weights") or 0) or None
        if number is not None and number > 10**15:
            raise UserError("the number of weights must be at most 1e15: write it as 8.03e9")
        return number
    except UserError as error:
        st.error(escaped(str(error)))
        return before


def _preset_form(letter: str, before: Source) -> Source:
    first, _, then = (before.name or FIRST.scenarios[0].source.name).partition(".")
    left, right = st.columns([1, 2])
    with left:
        size = _choice("Size", SIZES, _place(SIZES, first), key(letter, "size"))
    with right:
        experiment = _choice("Experiment", EXPERIMENTS, _place(EXPERIMENTS, then), key(letter, "experiment"))
    return Source(kind="preset", name=f"{size or first}.{experiment or then}")


def _run_form(letter: str, before: Source) -> Source:
    runs = run_sources()
    if not runs:
        return before
    same = [run for run in runs if run.name == before.name and before.root in (None, run.root)]
    labels = {run.name if run.root is None else f"{run.name} in {run.root}": run for run in runs}
    if before.name and not same:  # the link's run is gone: its name stays, and the answer says so
        labels = {before.name: before} | labels
    names = list(labels)
    start = next((i for i, name in enumerate(names) if labels[name] in (same or [before])), 0)
    name = _choice("Run", names, start, key(letter, "run"), help="Type to search.")
    return labels.get(name or "", before)


def _config_form(letter: str, before: Source) -> Source:
    with st.popover("Paste or upload a config.json", icon=":material/upload_file:", width="stretch"):
        text = st.text_area(
            "config.json",
            json.dumps(json.loads(before.name), indent=1) if before.name else "",
            height=220,
            placeholder='{"model_type": "llama", "num_hidden_layers": 32, ...}',
            key=key(letter, "config"),
            on_change=edited,
            help="The config.json of a Hugging Face model, or of one of our runs.",
        )
        st.file_uploader(
            "or a file",
            type="json",
            key=key(letter, "file"),
            max_upload_size=1,
            on_change=_uploaded,
            args=(key(letter, "file"), key(letter, "config")),
        )
    return Source(kind="config", name=_fields_that_matter(text) if text.strip() else "")


def _details(letter: str, group: str, model: Model, before: CachePolicy, kinds: dict[str, str]) -> CachePolicy:
    def number(label: str, name: str, least: int, most: int, value: int, help: str | None = None) -> int:
        return st.number_input(
            label, least, most, min(max(value, least), most), key=key(letter, group, name), on_change=edited, help=help
        )

    blocks = {
        name: number(f"Block of {name} (values)", f"{name}_block", 1, MOST_VALUES, before.qblock_of(name))
        for name in model.tensors
    }
    residual = number(
        "Residual (tokens)",
        "residual",
        0,
        MOST_TOKENS,
        before.residual,
        "So many newest tokens of quantised tensors are held in fp16 as well.",
    )
    left, middle, right = st.columns(3)
    with left:
        first = number("First layers", "first", 0, MOST_LAYERS, before.first_layers)
    with middle:
        last = number("Last layers", "last", 0, MOST_LAYERS, before.last_layers)
    with right:
        edge = _format("kept in", before.edge_kind, model, key(letter, group, "edge"))
    text = st.text_input(
        "Single layers",
        spelled_layers(before.layer_kinds),
        placeholder="3.k.q8_0, 4.v.fp16",
        key=key(letter, group, "layers"),
        on_change=edited,
        help="Layer (counted from 0), tensor and kind; they win over everything else.",
    )
    return CachePolicy(
        **_shared("kind", "fp16", kinds),
        **_shared("qblock", CachePolicy.qblock, blocks),
        residual=residual,
        first_layers=first,
        last_layers=last,
        edge_kind=edge,
        layer_kinds=read_layers(text),
    )


def _choice(label: str, options: Sequence[str], start: int | None, name: str, help: str | None = None) -> str | None:
    """A part of the source, one of `options`; what is above it says what it is."""
    return st.selectbox(label, options, start, key=name, on_change=edited, label_visibility="collapsed", help=help)


def _format(label: str, start: str, model: Model, name: str) -> str:
    """A storage format; those that our own models can be sized in but not stored say so."""
    formats = list(FORMATS)
    return st.selectbox(
        label,
        formats,
        formats.index(start),
        format_func=lambda kind: kind if model.public or kind in PACKABLE else f"{kind} (counted only)",
        key=name,
        on_change=edited,
    )


def _place(options: Sequence[str], name: str) -> int | None:
    """Where a list starts: at the name, at its top where nothing was said, nowhere where the name is none of it."""
    if not name:
        return 0
    return options.index(name) if name in options else None


def _shared(name: str, default: object, values: dict[str, str] | dict[str, int]) -> dict:
    """One value for all tensors where they agree, else the default and those that differ."""
    agreed = set(values.values())
    common = agreed.pop() if len(agreed) == 1 else default
    # q4_0 for all is said tensor by tensor: alone it leaves k_geo at q8_0.
    if common == "q4_0" and "k_geo" in values:
        common = default
    return {name: common, f"{name}s": {tensor: value for tensor, value in values.items() if value != common}}


@st.cache_data(max_entries=32, show_spinner=False)
def _fields_that_matter(text: str) -> str:
    return read_config(text)


def _uploaded(file: str, area: str) -> None:
    upload = st.session_state[file]
    if upload is not None:
        # One character more than is allowed is enough to be refused with a sentence.
        st.session_state[area] = upload.read(MOST_CHARACTERS + 1).decode("utf-8", "replace")
    edited()
