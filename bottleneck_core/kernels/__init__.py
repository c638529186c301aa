"""Triton kernels: tensors in, tensors out. Importing this needs no Triton; `available()` says whether it can run."""

from bottleneck_core.kernels.attention import WIDEST, attention
from bottleneck_core.kernels.decode import available, decode, unsupported
from bottleneck_core.kernels.linear_cross_entropy import HALF_PRECISION, IGNORED, linear_cross_entropy
from bottleneck_core.kernels.packed import KINDS, PackedTensor, supported
from bottleneck_core.kernels.plan import Tuning
from bottleneck_core.kernels.swiglu import swiglu

__all__ = [
    "HALF_PRECISION",
    "IGNORED",
    "KINDS",
    "WIDEST",
    "PackedTensor",
    "Tuning",
    "attention",
    "available",
    "decode",
    "linear_cross_entropy",
    "supported",
    "swiglu",
    "unsupported",
]
