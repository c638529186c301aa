"""Text from a model: prefill, decode and sampling over a cache of keys and values. Needs torch."""

from bottleneck_core.generate.engine import Engine
from bottleneck_core.generate.layer import Plan
from bottleneck_core.generate.sampling import Sampler, Sampling

__all__ = ["Engine", "Plan", "Sampler", "Sampling"]
