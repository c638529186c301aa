"""Bytes of a KV cache: of our own models, and of public ones from their Hugging Face configuration.

Three totals. `logical` is what the tokens need: a windowed layer keeps its window, a chunked one its chunk.
`engine_reserved` is what an engine sets aside for that, the larger of the rules in `engines`; `conservative` gives no
credit for windows and chunks: every attention layer holds the whole context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bottleneck_core.memory.derivation import derive
from bottleneck_core.memory.engines import reserved
from bottleneck_core.memory.hf import hf_layers, is_hf_config
from bottleneck_core.memory.layers import ModelLayers, StateKind, own_layers
from bottleneck_core.memory.policy import CachePolicy
from bottleneck_core.memory.stored import Stored, merged, rows_by_layer, states_by_layer, up

TOKENS_128K = 128_000
STATE_KINDS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class CachedTensor:
    """One cached tensor over the layers that store it alike.

    `bytes` = layers x (tokens x row_bytes + residual tokens x width x 2) x batch; `tokens` are those kept, in whole
    pages. A recurrent state is one row whatever the context.
    """

    name: str
    layers: int
    kind: str
    qblock: int
    width: int
    row_bytes: int
    tokens: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class KVMemory:
    """Size of a cache in bytes at `context` tokens and `batch` requests.

    `bytes` is `totals["logical"]`; `bytes_per_token` is what the first token of a request adds,
    `slope_bytes_per_token` what one more adds at this context, `fixed_bytes_per_request` what recurrent layers keep
    whatever the context. `baseline_fp16_bytes` is standard attention of the same d_model in fp16 for our models, the
    same model in fp16 for public ones, and `compression` that divided by `bytes`. `layer_bytes` are `bytes` layer by
    layer, from the first; a layer that reads another's cache has none. `engines` are the rules behind
    `engine_reserved`, `derivation` the sums, line by line.
    """

    context: int
    batch: int
    bytes: int
    bytes_per_token: int
    slope_bytes_per_token: int
    fixed_bytes_per_request: int
    baseline_fp16_bytes: int
    compression: float
    tensors: tuple[CachedTensor, ...]
    totals: dict[str, int]
    layer_bytes: tuple[int, ...] = ()
    engines: dict[str, int] = field(default_factory=dict)
    derivation: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, texts, lists and dicts: the document of `kv --json`."""
        document = asdict(self)
        lists = {name: list(document[name]) for name in ("tensors", "layer_bytes", "derivation")}
        return document | lists


def layers_of(model: Any) -> ModelLayers:
    """What each layer of `model` caches. `model`: object or dict with the Model Config names, a Hugging Face
    configuration dict, or ModelLayers. Raises ValueError for what is missing or unknown."""
    if isinstance(model, ModelLayers):
        return model
    if isinstance(model, Mapping) and is_hf_config(model):
        return hf_layers(model)
    if isinstance(model, Mapping) and "attn_mode" not in model:
        raise ValueError(
            "the configuration has neither model_type, as Hugging Face's have, nor attn_mode, as ours: add it"
        )
    return own_layers(model)


def policy_of(model: Any, policy: CachePolicy | Mapping[str, Any] | None = None) -> CachePolicy:
    """The policy that counts: the one given (a dict of `kv_*` settings too), else the model's own, else fp16.

    Public engines keep no window of fp16 rows: a dict without kv_residual means none for public models. A CachePolicy
    is taken as it is.
    """
    if isinstance(policy, CachePolicy):
        return policy
    public = layers_of(model).page is None
    settings: Any = policy if policy is not None else ({} if public else model)
    if public and settings.get("kv_residual") is None:
        settings = {**settings, "kv_residual": 0}
    return CachePolicy.of(settings)


def kv_memory(
    model: Any,
    context: int,
    batch: int = 1,
    policy: CachePolicy | Mapping[str, Any] | None = None,
    page: int = 1,
    state_kind: StateKind | None = None,
) -> KVMemory:
    """Bytes of the cache of `model` (see `layers_of`) at `context` tokens.

    Storage is counted in whole pages of `page` tokens; the residual window is not paged. `state_kind` is the dtype of
    recurrent states (fp32, bf16 or fp16), by default the reference implementation's. Raises ValueError for sizes below
    1, unknown names and missing fields.
    """
    cache = Cache(model, policy, page, state_kind)
    check_sizes(context=context, batch=batch)
    size = cache.bytes(context, batch)
    baseline = cache.baseline(context, batch)
    engines = reserved(cache.model, cache.rows, cache.states, context, batch, page)
    totals = {
        "logical": size,
        "engine_reserved": max(engine.bytes for engine in engines.values()),
        "conservative": cache.bytes(context, batch, credit=False),
    }
    return KVMemory(
        context=context,
        batch=batch,
        bytes=size,
        bytes_per_token=cache.bytes(1, 1) - cache.fixed,
        slope_bytes_per_token=cache.bytes(context + 1, 1) - cache.bytes(context, 1),
        fixed_bytes_per_request=cache.fixed,
        baseline_fp16_bytes=baseline,
        compression=baseline / size if size else 1.0,
        layer_bytes=tuple(sum(part.paged(context, batch, page) for part in parts) for parts in cache.by_layer),
        tensors=tuple(_tensor(part, context, batch, page) for part in (*cache.rows, *cache.states)),
        totals=totals,
        engines={name: engine.bytes for name, engine in engines.items()},
        derivation=derive(cache, context, batch, totals, engines),
    )


class Cache:
    """A model under a policy: its size at any context and batch. What `kv_memory` reports and the searches ask."""

    def __init__(
        self,
        model: Any,
        policy: CachePolicy | Mapping[str, Any] | None = None,
        page: int = 1,
        state_kind: StateKind | None = None,
    ) -> None:
        check_sizes(page=page)
        if state_kind is not None and state_kind not in STATE_KINDS:
            raise ValueError(f"unknown dtype of recurrent states {state_kind}: choose one of {', '.join(STATE_KINDS)}")
        self.model, self.page = layers_of(model), page
        self.state_kind: StateKind = state_kind or self.model.state_kind
        rows = rows_by_layer(self.model.layers, policy_of(model, policy))
        states = states_by_layer(self.model.layers, self.state_kind)
        self.by_layer = [[*grows, *fixed] for grows, fixed in zip(rows, states, strict=True)]
        self.rows, self.states = merged(rows), merged(states)
        self.fixed = sum(part.bytes(1, 1) for part in self.states)
        plain = CachePolicy(kind="fp16", residual=0)
        self.baseline_rows = merged(rows_by_layer(self.model.baseline or self.model.layers, plain))

    def bytes(self, context: int, batch: int, credit: bool = True) -> int:
        """Logical bytes; without `credit` every layer holds the whole context."""
        size = sum(part.bytes(1, batch) for part in self.states)
        for part in self.rows:
            tokens = part.tokens(context) if credit else context
            size += part.bytes(up(tokens, self.page), batch, tokens)
        return size

    def total(self, name: str, context: int, batch: int) -> int:
        """One of the three totals by its name. Raises ValueError for another."""
        if name == "engine_reserved":
            engines = reserved(self.model, self.rows, self.states, context, batch, self.page)
            return max(engine.bytes for engine in engines.values())
        if name not in ("logical", "conservative"):
            raise ValueError(f"unknown total {name}: choose one of logical, engine_reserved, conservative")
        return self.bytes(context, batch, credit=name == "logical")

    def baseline(self, context: int, batch: int) -> int:
        """Bytes of what compression is measured against; recurrent states are the same in both."""
        parts = (*self.baseline_rows, *self.states)
        return sum(part.bytes(part.tokens(context), batch) for part in parts)


def check_sizes(**sizes: int) -> None:
    """Raises ValueError where one of the named sizes is below 1."""
    if any(size < 1 for size in sizes.values()):
        got = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"{', '.join(sizes)} must be at least 1: got {got}")


def _tensor(part: Stored, context: int, batch: int, page: int) -> CachedTensor:
    return CachedTensor(
        name=part.name,
        layers=part.layers,
        kind=part.format.name,
        qblock=part.qblock,
        width=part.width,
        row_bytes=part.row_bytes,
        tokens=1 if part.state else up(part.tokens(context), page),
        bytes=part.paged(context, batch, page),
    )
