"""The cache of keys and values: storage formats, cache tensors, and attention over them."""

from bottleneck_core.kvcache.cache import KVCache
from bottleneck_core.kvcache.formats import Packed, pack, unpack
from bottleneck_core.kvcache.stream import attend_and_store

__all__ = ["KVCache", "Packed", "attend_and_store", "pack", "unpack"]
