"""A cache filled for real, to see whether the accounting is right: `python -m bottleneck_core.kvcache.allocation`.

Reads {"model", "policy", "context", "batch"} as JSON from the standard input and prints {"bytes"}.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from bottleneck_core.kvcache.cache import KVCache
from bottleneck_core.memory import CachePolicy

_VALUES = 2**21  # written at a time


def allocated_bytes(model: Any, policy: CachePolicy, context: int, batch: int) -> int:
    """Bytes of the tensors of a cache that holds `context` rows of each of `batch` requests, in one page."""
    cache = KVCache(model, policy, batch=batch, page=context)
    widths = {name: tensor.width for name, tensor in cache.layers[0].items()}
    step = max(1, _VALUES // (batch * max(widths.values())))
    for start in range(0, context, step):
        tokens = min(step, context - start)
        rows = {name: torch.zeros(batch, tokens, width) for name, width in widths.items()}
        for layer in range(len(cache.layers)):
            cache.write(layer, rows)
        cache.advance(tokens)
        cache.check()
    return cache.allocated_bytes


def _policy(fields: dict[str, Any]) -> CachePolicy:
    layers = {int(layer): kinds for layer, kinds in fields.pop("layer_kinds", {}).items()}
    return CachePolicy(**fields, layer_kinds=layers)


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    size = allocated_bytes(asked["model"], _policy(asked["policy"]), asked["context"], asked["batch"])
    print(json.dumps({"bytes": size}))
