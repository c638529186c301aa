"""From what a reader chose to a model that can be sized: runs, presets, public models, pasted configurations."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, get_args

import streamlit as st

import bottleneck_core as bc
from bottleneck_core import memory, sizing
from bottleneck_core.config import EXPERIMENTS, RunConfig
from bottleneck_core.memory import CachePolicy, ModelLayers
from bottleneck_core.memory.zoo import zoo
from dashboard.kv.scenario import TENSORS, Source
from dashboard.state import root_of, run_roots, run_rows

_SECONDS_KEPT = 10  # of the list of runs and what they are
SIZES: tuple[str, ...] = get_args(get_args(RunConfig.model_fields["size"].annotation)[0])


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model by its `title`; `own` is how it is stored unless said otherwise, `params` None where not known."""

    title: str
    config: Any
    layers: ModelLayers
    own: CachePolicy
    params: int | None

    @property
    def public(self) -> bool:
        return self.layers.page is None

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors that formats can be chosen for."""
        named = {row.setting for layer in self.layers.layers for row in layer.rows}
        return tuple(name for name in TENSORS if name in named)


def model_behind(source: Source) -> Model:
    """The model that is meant. Raises UserError with what to do."""
    if source.kind == "preset":
        return _preset(source.name)
    if source.kind == "model":
        return _public(source.name)
    if source.kind == "config":
        if not source.name:
            raise bc.UserError("No configuration yet: paste or upload the config.json of a model.")
        return _model(json.loads(source.name), None)
    return _run(source)


def run_sources() -> list[Source]:
    """All runs under the roots that are looked at; the root is said where an id is in several."""
    return list(_run_paths(tuple(map(str, run_roots()))))


def public_names() -> list[str]:
    """The public models that are known."""
    return list(zoo())


def _preset(name: str) -> Model:
    size, _, experiment = name.partition(".")
    if size not in SIZES or experiment not in EXPERIMENTS:
        raise bc.UserError(f"There is no preset {name[:80]}: choose a size and an experiment.")
    config = bc.RunConfig.resolve(size=size, exp=experiment)
    return _model(config, f"{size} {experiment.removeprefix('paper_')}")


def _public(name: str) -> Model:
    if name not in zoo():
        raise bc.UserError(f"There is no public model {name[:80]}: choose one from the list.")
    model = zoo()[name]
    layers = memory.layers_of(model.config)
    own = memory.policy_of(model.config, None)
    return Model(title=name, config=model.config, layers=layers, own=own, params=model.params)


def _run(source: Source) -> Model:
    paths = _run_paths(tuple(map(str, run_roots())))
    if not paths:
        raise bc.UserError("There are no runs in the folders that are looked at: choose a preset, or train one.")
    path = paths.get(source) or next((p for other, p in paths.items() if source == replace(other, root=None)), None)
    if path is None:
        raise bc.UserError(f"There is no run {source.name[:80]} in the folders that are looked at: choose another.")
    return _run_model(source.name, path)


@st.cache_resource(ttl=_SECONDS_KEPT, show_spinner=False)
def _run_paths(roots: tuple[str, ...]) -> dict[Source, str]:
    rows = run_rows()
    several = Counter(row["id"] for row in rows)
    return {
        Source(kind="run", name=row["id"], root=root_of(row) if several[row["id"]] > 1 else None): row["path"]
        for row in rows
    }


@st.cache_resource(ttl=_SECONDS_KEPT, max_entries=64, show_spinner=False)
def _run_model(run_id: str, path: str) -> Model:
    model = _model(sizing.model_of(path), run_id)
    return replace(model, params=sizing.parameters_of(path))


def _model(config: Any, title: str | None) -> Model:
    """Of one of our configurations, or a Hugging Face one, which is called by its family where it has no title."""
    try:
        layers = memory.layers_of(config)
        own = memory.policy_of(config, None)
    except ValueError as error:
        raise bc.UserError(str(error)) from None
    named = title or f"{layers.family} config.json"
    return Model(title=named, config=config, layers=layers, own=own, params=sizing.parameters_of(config))
