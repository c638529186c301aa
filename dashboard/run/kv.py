"""The KV memory tab: what this run's cache takes, by tensor and layer, and over the context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

import bottleneck_core as bc
from bottleneck_core import memory, sizing
from bottleneck_core.figures import numbers
from bottleneck_core.figures.kv import SizeLine, size_figure
from bottleneck_core.figures.kv_parts import Bar, Segment, breakdown_figure
from bottleneck_core.figures.palette import attention_color, run_color
from bottleneck_core.memory.kv import Cache
from bottleneck_core.memory.policy_text import policy_label
from dashboard.kv.models import Model
from dashboard.kv.result import Result, part_rows, per_token, result_of
from dashboard.kv.scenario import FIRST, Scenario, Source, encode
from dashboard.kv.scenario import View as Workload
from dashboard.live_chart import live_chart
from dashboard.markdown import escaped
from dashboard.runs.kv import CONTEXTS
from dashboard.state import Row, root_of
from dashboard.theme import theme

if TYPE_CHECKING:
    from bottleneck_core import Run

KV_PAGE = "dashboard/pages/kv.py"


@dataclass(frozen=True, kw_only=True)
class RunCache:
    """The cache of a run at a context under its own policy, and standard attention of its width in fp16."""

    result: Result
    cache: Cache

    @property
    def baseline(self) -> list[int]:
        """Bytes of standard fp16 at each context of the result's curve."""
        return [self.cache.baseline(context, 1) for context in self.result.contexts]


def kv_memory(run: Run, row: Row) -> None:
    """Draws the tab, or says what is missing."""
    try:
        model = model_of(run)
    except bc.UserError as error:
        st.info(escaped(f"The cache of this run has no known size: {error}."))
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="large"):
        at = st.selectbox(
            "Context (tokens)",
            list(CONTEXTS),
            index=list(CONTEXTS).index("128k"),
            key="at",
            bind="query-params",
            width=140,
        )
        found = run_cache(model, CONTEXTS.get(at, memory.TOKENS_128K))
        _measures(found)
        st.page_link(
            KV_PAGE,
            label="Open in the calculator",
            icon=":material/calculate:",
            query_params=scenario_address(row, found.result.size.context),
            help="This run as a scenario: other formats, lengths, batches and cards.",
        )
    st.caption(f"{escaped(per_token(found.result.size))}, stored as `{policy_label(model.own)}`, the run's own policy.")
    left, right = st.columns([3, 2], gap="medium")
    with left:
        live_chart(_curve(run, found), name="sizes", group=f"{run.path}/kv")
    with right:
        live_chart(_parts(run, found), name="tensors", group=f"{run.path}/kv-parts/{at}")
        st.dataframe(tensor_frame(found), hide_index=True)
    st.markdown("**By layer and tensor**")
    frame = layer_frame(found)
    st.dataframe(frame, hide_index=True, height="content" if len(frame) <= 25 else 720)
    with st.expander("Derivation: every sum, to be checked with a pocket calculator"):
        st.code("\n".join(found.result.size.derivation), language=None, wrap_lines=True)


def model_of(run: Run) -> Model:
    """The run as the calculator knows models. Raises UserError for a configuration that does not say enough."""
    try:
        return Model(
            title=run.id,
            config=run.config,
            layers=memory.layers_of(run.config),
            own=memory.policy_of(run.config),
            params=run.n_params or sizing.parameters_of(run),
        )
    except ValueError as error:
        raise bc.UserError(str(error)) from None


def run_cache(model: Model, context: int) -> RunCache:
    """The sizes of one request at `context` tokens."""
    result = result_of("a", model, model.own, Workload(scenarios=FIRST.scenarios, context=context))
    return RunCache(result=result, cache=Cache(model.config, model.own))


def scenario_address(row: Row, context: int) -> dict[str, str]:
    """The calculator's query parameters for the run as its only scenario, with its root: another may have that id."""
    source = Source(kind="run", name=row["id"], root=root_of(row))
    return encode(Workload(scenarios=(Scenario(source=source),), context=context))


def tensor_frame(found: RunCache) -> pd.DataFrame:
    """One line a tensor over the layers that store it alike."""
    kept = ("tensor", "layers", "kind", "values", "bytes a row", "size", "bytes")
    return pd.DataFrame([{name: row[name] for name in kept} for row in part_rows([found.result], "tensors")])


def layer_frame(found: RunCache) -> pd.DataFrame:
    """One line a layer: kind and bytes of each tensor, and their sum."""
    context = found.result.size.context
    lines = []
    for layer, parts in enumerate(found.cache.by_layer):
        sizes = {part.name: part.paged(context, 1, 1) for part in parts}
        cells = {part.name: f"{numbers.size(sizes[part.name])} {part.format.name}" for part in parts}
        lines.append({"layer": layer, **cells, "all": numbers.size(sum(sizes.values())), "bytes": sum(sizes.values())})
    return pd.DataFrame(lines)


def _measures(found: RunCache) -> None:
    size = found.result.size
    st.metric(
        "KV cache",
        numbers.size(size.bytes),
        help=f"{numbers.exact_size(size.bytes)} at {size.context:,} tokens, one request.",
        width="content",
    )
    st.metric(
        "less than fp16 standard",
        numbers.ratio(size.compression),
        help=f"Standard attention of this width in fp16 takes {numbers.exact_size(size.baseline_fp16_bytes)}.",
        width="content",
    )


def _curve(run: Run, found: RunCache) -> Any:
    result = found.result
    lines = [
        SizeLine(name=run.id, color=run_color(run.id, theme()), tokens=result.contexts, bytes=result.curve),
        SizeLine(
            name="standard fp16",
            color=attention_color("standard", theme()),
            tokens=result.contexts,
            bytes=found.baseline,
        ),
    ]
    if result.size.bytes == result.size.baseline_fp16_bytes:
        lines.pop()  # the run is that
    return size_figure(lines, context=result.size.context, devices=memory.GPUS, theme=theme(), height=430)


def _parts(run: Run, found: RunCache) -> Any:
    parts = found.result.tensors
    names = list(dict.fromkeys(part.name for part in parts))
    segments = [
        Segment(
            name=f"{part.name} {part.kind}",
            detail=f"layers: {part.layers}, {part.width:,} values, {part.row_bytes:,} B a row",
            bytes=part.bytes,
            shade=names.index(part.name),
        )
        for part in parts
    ]
    bar = Bar(name=run.id, color=run_color(run.id, theme()), segments=segments)
    title = f"tensors at {found.result.size.context:,} tokens"
    return breakdown_figure([bar], title=title, theme=theme())
