"""Which format each cached tensor of a model is stored in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bottleneck_core.memory.formats import FORMATS


@dataclass(frozen=True, kw_only=True)
class CachePolicy:
    """Formats and block sizes by tensor name (`k`, `v`, or `k_sem`, `k_geo`, `v`), with the shared defaults.

    `residual` newest tokens of each quantised tensor are kept in fp16 as well.
    """

    kind: str = "fp16"
    qblock: int = 32
    residual: int = 128
    kinds: Mapping[str, str] = field(default_factory=dict)
    qblocks: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind in (self.kind, *self.kinds.values()):
            if kind not in FORMATS:
                raise ValueError(f"unknown cache kind {kind}: choose one of {', '.join(FORMATS)}")

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
        )

    def kind_of(self, tensor: str) -> str:
        """The format of one tensor.

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
