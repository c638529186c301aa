"""A workbench for attention with a small KV cache: train, instrument, browse and size.

The names below are the public interface. They are loaded when first used, so that `import bottleneck_core` costs
nothing and pages that only read runs never load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bottleneck_core.cli.evaluate_text import quality_frame
    from bottleneck_core.cli.trained import open_trained
    from bottleneck_core.config import RunConfig
    from bottleneck_core.errors import UserError
    from bottleneck_core.generate import Engine, Sampling
    from bottleneck_core.generate.quality import cache_quality
    from bottleneck_core.kvcache.allocation import allocated_bytes
    from bottleneck_core.memory import FORMATS, GPUS, PACKABLE, CachePolicy, training_memory
    from bottleneck_core.memory.policy_text import parse_policy
    from bottleneck_core.model import build_model
    from bottleneck_core.probe import attention_metrics
    from bottleneck_core.sizing import (
        cheapest_policy,
        index,
        kv_memory,
        largest_batch,
        longest_context,
        model_zoo,
        parameters_of,
    )
    from bottleneck_core.store.metrics import METRICS
    from bottleneck_core.store.run import Run, load_run, load_runs
    from bottleneck_core.train import load_checkpoint, train

_HOMES = {
    "CachePolicy": "memory",
    "Engine": "generate",
    "FORMATS": "memory",
    "GPUS": "memory",
    "METRICS": "store.metrics",
    "PACKABLE": "memory",
    "Run": "store.run",
    "RunConfig": "config",
    "Sampling": "generate",
    "UserError": "errors",
    "allocated_bytes": "kvcache.allocation",
    "attention_metrics": "probe",
    "build_model": "model",
    "cache_quality": "generate.quality",
    "cheapest_policy": "sizing",
    "index": "sizing",
    "kv_memory": "sizing",
    "largest_batch": "sizing",
    "load_checkpoint": "train",
    "load_run": "store.run",
    "load_runs": "store.run",
    "longest_context": "sizing",
    "model_zoo": "sizing",
    "open_trained": "cli.trained",
    "parameters_of": "sizing",
    "parse_policy": "memory.policy_text",
    "quality_frame": "cli.evaluate_text",
    "train": "train",
    "training_memory": "memory",
}

__all__ = [
    "FORMATS",
    "GPUS",
    "METRICS",
    "PACKABLE",
    "CachePolicy",
    "Engine",
    "Run",
    "RunConfig",
    "Sampling",
    "UserError",
    "allocated_bytes",
    "attention_metrics",
    "build_model",
    "cache_quality",
    "cheapest_policy",
    "index",
    "kv_memory",
    "largest_batch",
    "load_checkpoint",
    "load_run",
    "load_runs",
    "longest_context",
    "model_zoo",
    "open_trained",
    "parameters_of",
    "parse_policy",
    "quality_frame",
    "train",
    "training_memory",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    # A room that has the name keeps it, for `bottleneck_core.train.loop`; it can be called as well.
    return globals().setdefault(name, value)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
