"""What each layer of a model keeps in its cache, whatever the model: rows that grow with the context, and fixed states.

Values per token and layer of our own models: standard 2 d_model; bottleneck 2 attn_dim; gqa 2 kv_head (attn_dim /
n_head); decoupled sem_dim + geo_dim + attn_dim; what `config/attention.py` names. The learned null key and value are
weights and are never cached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bottleneck_core.config.attention import MODES, AttentionMode

LayerKind = Literal["full", "sliding", "chunked", "latent", "recurrent", "hybrid", "shared", "none"]
StateKind = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One cached tensor of one layer: a token adds `width` values, in heads of `head_dim`.

    `setting` is the name that a policy knows it by, where that is not its own.
    """

    name: str
    width: int
    head_dim: int
    setting: str

    @classmethod
    def of(cls, name: str, heads: int, head_dim: int, setting: str | None = None) -> Row:
        return cls(name=name, width=heads * head_dim, head_dim=head_dim, setting=setting or name)


@dataclass(frozen=True, kw_only=True)
class State:
    """Values that one request keeps whatever its length. `kind` None: the model's choice of `state_kind`."""

    name: str
    values: int
    kind: StateKind | None = None


@dataclass(frozen=True, kw_only=True)
class LayerCache:
    """One layer: its rows, the most tokens it keeps (`limit`: a window or a chunk, else None), and its states."""

    kind: LayerKind
    rows: tuple[Row, ...] = ()
    limit: int | None = None
    states: tuple[State, ...] = ()

    def tokens(self, context: int) -> int:
        """Tokens of `context` that this layer keeps."""
        return context if self.limit is None else min(context, self.limit)


@dataclass(frozen=True, kw_only=True)
class ModelLayers:
    """A model as its cache sees it.

    `state_kind` is the reference implementation's dtype of recurrent states. `baseline` is what fp16 is compared with:
    None is this model itself. `page` is the tokens a page where our own cache holds the model, None for public models.
    `assumed` says each default of its family's configuration class that stood in for an absent field.
    """

    family: str
    layers: tuple[LayerCache, ...]
    state_kind: StateKind = "fp32"
    baseline: tuple[LayerCache, ...] | None = None
    page: int | None = None
    assumed: tuple[str, ...] = ()

    @property
    def kinds(self) -> dict[str, int]:
        """Layers by kind, in order of appearance."""
        counts: dict[str, int] = {}
        for layer in self.layers:
            counts[layer.kind] = counts.get(layer.kind, 0) + 1
        return counts


def cached_widths(model: Any) -> dict[str, int]:
    """Values per token and layer by cached tensor. `model`: object or dict with the Model Config names."""
    mode = mode_of(model)
    widths = {name: setting_of(model, setting) for name, setting in {**mode.keys, "v": mode.values}.items()}
    if not mode.grouped:
        return widths
    heads, shared = setting_of(model, "n_head"), _kv_heads(model)
    return {name: shared * (width // heads) for name, width in widths.items()}


def mode_of(model: Any) -> AttentionMode:
    """The attention mode of an object or a dict. Raises ValueError for one that is not registered."""
    name = setting_of(model, "attn_mode")
    if not isinstance(name, str) or name not in MODES:
        raise ValueError(f"unknown attn_mode {name}: known are {', '.join(MODES)}")
    return MODES[name]


def query_width(model: Any) -> int:
    """Total width of the queries: that of all keys, before heads of keys are shared."""
    return sum(setting_of(model, setting) for setting in mode_of(model).keys.values())


def output_width(model: Any) -> int:
    """Total width of what attention hands to the output projection: a value for each query head."""
    return setting_of(model, mode_of(model).values)


def own_layers(model: Any) -> ModelLayers:
    """The layers of one of our models, from an object or dict with the Model Config names. Raises ValueError."""
    layers, d_model = setting_of(model, "n_layer"), setting_of(model, "d_model")
    rows = tuple(
        Row(name=name, width=width, head_dim=_head_dim(model, width), setting=name)
        for name, width in cached_widths(model).items()
    )
    standard = tuple(Row(name=name, width=d_model, head_dim=d_model, setting=name) for name in ("k", "v"))
    return ModelLayers(
        family=setting_of(model, "attn_mode"),
        layers=(LayerCache(kind="full", rows=rows),) * layers,
        baseline=(LayerCache(kind="full", rows=standard),) * layers,
        page=optional_setting(model, "kv_page") or DEFAULT_PAGE,
    )


DEFAULT_PAGE = 256  # tokens a page of our own cache, as the setting kv_page has it


def _kv_heads(model: Any) -> int:
    return setting_of(model, "kv_head") or setting_of(model, "n_head")


def _head_dim(model: Any, width: int) -> int:
    heads = optional_setting(model, "n_head") or 1
    if mode_of(model).grouped:
        heads = _kv_heads(model)
    return max(1, width // heads)


def setting_of(model: Any, name: str) -> Any:
    """A setting of an object or a dict. Raises ValueError where it is absent, or null without a meaning."""
    missing = name not in model if isinstance(model, Mapping) else not hasattr(model, name)
    value = optional_setting(model, name)
    if missing or (value is None and name != "kv_head"):  # a null kv_head is n_head
        raise ValueError(f"the model configuration lacks {name}: give a whole configuration, ours or Hugging Face's")
    return value


def optional_setting(model: Any, name: str) -> Any:
    return model.get(name) if isinstance(model, Mapping) else getattr(model, name, None)
