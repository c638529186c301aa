"""Bytes, parameters and FLOPs from a configuration or a dict. Imports no torch and knows no run folders."""

from bottleneck_core.memory.formats import FORMATS, Format
from bottleneck_core.memory.kv import TOKENS_128K, CachedTensor, KVMemory, cached_widths, kv_memory
from bottleneck_core.memory.parameters import count_parameters, training_flops_per_token
from bottleneck_core.memory.policy import CachePolicy

__all__ = [
    "FORMATS",
    "TOKENS_128K",
    "CachePolicy",
    "CachedTensor",
    "Format",
    "KVMemory",
    "cached_widths",
    "count_parameters",
    "kv_memory",
    "training_flops_per_token",
]
