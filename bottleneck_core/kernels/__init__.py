"""Triton kernels: tensors in, tensors out. Importing this needs no Triton; `available()` says whether it can run."""

from bottleneck_core.kernels.decode import available, decode, unsupported
from bottleneck_core.kernels.linear_cross_entropy import HALF_PRECISION, linear_cross_entropy
from bottleneck_core.kernels.packed import KINDS, PackedTensor, supported
from bottleneck_core.kernels.plan import Tuning

__all__ = [
    "HALF_PRECISION",
    "KINDS",
    "PackedTensor",
    "Tuning",
    "available",
    "decode",
    "linear_cross_entropy",
    "supported",
    "unsupported",
]
