"""Bytes, parameters and FLOPs from a configuration or a dict. Imports no torch and knows no run folders."""

from bottleneck_core.memory.budget import GPUS, WEIGHT_BITS, Budget
from bottleneck_core.memory.formats import FORMATS, PACKABLE, Format
from bottleneck_core.memory.inverse import QUALITY_ORDER, PolicyChoice, cheapest_policy, largest_batch, longest_context
from bottleneck_core.memory.kv import TOKENS_128K, CachedTensor, KVMemory, kv_memory, layers_of, policy_of
from bottleneck_core.memory.layers import ModelLayers, cached_widths
from bottleneck_core.memory.parameters import count_parameters, training_flops_per_token
from bottleneck_core.memory.policy import CachePolicy
from bottleneck_core.memory.training import TrainingMemory, training_memory

__all__ = [
    "FORMATS",
    "GPUS",
    "PACKABLE",
    "QUALITY_ORDER",
    "TOKENS_128K",
    "WEIGHT_BITS",
    "Budget",
    "CachePolicy",
    "CachedTensor",
    "Format",
    "KVMemory",
    "ModelLayers",
    "PolicyChoice",
    "TrainingMemory",
    "cached_widths",
    "cheapest_policy",
    "count_parameters",
    "kv_memory",
    "largest_batch",
    "layers_of",
    "longest_context",
    "policy_of",
    "training_flops_per_token",
    "training_memory",
]
