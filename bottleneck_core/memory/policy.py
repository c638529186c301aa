"""Which format each cached tensor of a model is stored in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bottleneck_core.memory.formats import FORMATS


@dataclass(frozen=True, kw_only=True)
class CachePolicy:
    """Formats and block sizes by tensor name (`k`, `v`, or `k_sem`, `k_geo`, `v`), with the shared defaults.

    `residual` newest tokens of each quantised tensor are kept in fp16 as well. The `first_layers` and `last_layers`
    of the model are stored as `edge_kind` throughout, and `layer_kinds` (tensor -> kind by layer) wins over all.
    `hadamard` rotates queries and keys before they are stored, which spreads outliers and changes no size.
    """

    kind: str = "fp16"
    qblock: int = 32
    residual: int = 128
    kinds: Mapping[str, str] = field(default_factory=dict)
    qblocks: Mapping[str, int] = field(default_factory=dict)
    first_layers: int = 0
    last_layers: int = 0
    edge_kind: str = "fp16"
    layer_kinds: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    hadamard: bool = False

    def __post_init__(self) -> None:
        of_layers = [kind for kinds in self.layer_kinds.values() for kind in kinds.values()]
        for kind in (self.kind, self.edge_kind, *self.kinds.values(), *of_layers):
            if kind not in FORMATS:
                raise ValueError(f"unknown cache kind {kind}: choose one of {', '.join(FORMATS)}")
        for name, least in (("qblock", 1), ("residual", 0), ("first_layers", 0), ("last_layers", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} of a cache policy must be at least {least}, got {getattr(self, name)}")

    @classmethod
    def of(cls, settings: Any) -> CachePolicy:
        """The policy that the `kv_*` settings of a configuration (object or dict) ask for; absent ones are defaults."""
        tensors = ("k", "v", "k_sem", "k_geo")
        return cls(
            kind=_get(settings, "kv_cache", "fp16"),
            qblock=_get(settings, "kv_qblock", 32),
            residual=_get(settings, "kv_residual", 128),
            kinds={name: kind for name in tensors if (kind := _get(settings, f"kv_cache_{name}", None))},
            qblocks={name: block for name in tensors if (block := _get(settings, f"kv_qblock_{name}", None))},
            first_layers=_get(settings, "kv_first_layers", 0),
            last_layers=_get(settings, "kv_last_layers", 0),
            edge_kind=_get(settings, "kv_edge_kind", "fp16"),
            hadamard=_get(settings, "kv_hadamard", False),
        )

    def layer_kind(self, tensor: str, layer: int, n_layer: int) -> str:
        """The format of one tensor in layer `layer` of `n_layer`, counted from 0."""
        edge = layer < self.first_layers or layer >= n_layer - self.last_layers
        return self.layer_kinds.get(layer, {}).get(tensor) or (self.edge_kind if edge else self.kind_of(tensor))

    def kind_of(self, tensor: str) -> str:
        """The format of one tensor away from the edges.

        q4_0 alone keeps the geometric keys at q8_0: positions rotate them, and four bits lose the phase.
        """
        alone = self.kind == "q4_0" and not self.kinds
        return self.kinds.get(tensor, "q8_0" if alone and tensor == "k_geo" else self.kind)

    def qblock_of(self, tensor: str) -> int:
        return self.qblocks.get(tensor, self.qblock)


def _get(settings: Any, name: str, default: Any) -> Any:
    """A setting of an object or a dict; absent and null are the default."""
    value = settings.get(name) if isinstance(settings, Mapping) else getattr(settings, name, None)
    return default if value is None else value
