"""KV bytes of many runs at one context: equal shapes are counted once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import bottleneck_core as bc
from bottleneck_core.config import ModelConfig
from bottleneck_core.config.settings import CacheSettings
from dashboard.state import Row

RECORDED = 128_000  # the context at which runs record the size of their cache
# What people ask for, on a logarithmic scale, by its name in the address.
CONTEXTS = {
    **{f"{k}k": k * 1000 for k in (1, 4, 8, 16, 32, 64, 128, 256, 512)},
    **{f"{m}M": m * 1_000_000 for m in (1, 2, 5, 10)},
}
_SETTINGS = (*ModelConfig.model_fields, *CacheSettings.model_fields)
_PLAIN = (str, int, float)  # anything else in a foreign configuration is no setting of ours
_shapes: dict[int, tuple[dict[str, Any], tuple[tuple[str, Any], ...]]] = {}  # with the configuration that has the id
_MOST_SHAPES = 50_000


def cache_bytes(row: Row, context: int) -> int | None:
    """Bytes of one request's cache under the run's own policy; None where its configuration does not say enough.

    At 128,000 tokens what the run recorded.
    """
    if context == RECORDED and row.get("kv_bytes_128k") is not None:
        return row["kv_bytes_128k"]
    config = row["config"] or row.get("model") or {}
    return _bytes(_shape(config), context)


def sizes(rows: Sequence[Row], context: int) -> list[int | None]:
    """`cache_bytes` of each row."""
    return [cache_bytes(row, context) for row in rows]


def _shape(config: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """What the size depends on. Rows are shared and stay: each configuration is looked through once."""
    known = _shapes.get(id(config))
    if known is None or known[0] is not config:
        if len(_shapes) > _MOST_SHAPES:
            _shapes.clear()
        shape = tuple((name, config[name]) for name in _SETTINGS if isinstance(config.get(name), _PLAIN))
        known = _shapes[id(config)] = (config, shape)
    return known[1]


@lru_cache(maxsize=4096)
def _bytes(settings: tuple[tuple[str, Any], ...], context: int) -> int | None:
    try:
        return bc.kv_memory(dict(settings), context).bytes
    except bc.UserError:
        return None
