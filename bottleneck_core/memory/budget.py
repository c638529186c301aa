"""What a device leaves for the cache: its memory less weights, activations and a reserve, each named and adjustable."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, field
from fractions import Fraction

MIB, GIB = 2**20, 2**30

# Total memory as the vendor's driver reports it (nvidia-smi, in MiB), less than the round number of the datasheet where
# error correction or firmware takes a part; AMD and Apple by datasheet. On Apple chips the GPU may use about three
# quarters of it, which `reserve` has to say.
GPUS: dict[str, int] = {
    "H100 80GB": 81_559 * MIB,
    "H200": 143_771 * MIB,
    "B200": 183_359 * MIB,
    "A100 40GB": 40_960 * MIB,
    "A100 80GB": 81_920 * MIB,
    "L4": 23_034 * MIB,
    "L40S": 46_068 * MIB,
    "T4": 15_360 * MIB,
    "V100 16GB": 16_384 * MIB,
    "V100 32GB": 32_768 * MIB,
    "RTX 3090": 24_576 * MIB,
    "RTX 4090": 24_564 * MIB,
    "RTX 5090": 32_607 * MIB,
    "MI300X": 192 * GIB,
    "M2 Ultra 192GB": 192 * GIB,
    "M3 Max 128GB": 128 * GIB,
    "M4 Max 128GB": 128 * GIB,
    "M4 Pro 48GB": 48 * GIB,
}

# Bits a weight, scales included: a block of 32 has one fp16 scale in q8_0 and q4_0, one e8m0 byte in mxfp4.
WEIGHT_BITS: dict[str, Fraction] = {
    "fp32": Fraction(32),
    "bf16": Fraction(16),
    "fp16": Fraction(16),
    "fp8": Fraction(8),
    "int8": Fraction(8),
    "q8_0": Fraction(17, 2),
    "q4_0": Fraction(9, 2),
    "mxfp4": Fraction(17, 4),
    "int4": Fraction(4),
}

DEFAULT_WEIGHTS = "bf16"
DEFAULT_ACTIVATIONS = GIB  # of decoding a batch and prefilling in chunks; a rule of thumb, so say what you measured
DEFAULT_RESERVE = 0.1  # of the device: vLLM's gpu_memory_utilization of 0.9, for the context, fragments and others


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Bytes: `total` = weights + activations + reserve + what is left for the `cache`. `sums`: how they came about."""

    total: int
    weights: int = 0
    activations: int = 0
    reserve: int = 0
    sums: tuple[str, ...] = field(default=(), compare=False)

    @property
    def cache(self) -> int:
        return max(0, self.total - self.weights - self.activations - self.reserve)

    def lines(self) -> tuple[str, ...]:
        """The subtraction, for a person to check."""
        taken = f"{self.weights:,} weights - {self.activations:,} activations - {self.reserve:,} reserve"
        rest = self.total - self.weights - self.activations - self.reserve
        return (*self.sums, f"for the cache: {self.total:,} - {taken} = {rest:,} B" + (", nothing" if rest < 0 else ""))


def device_memory(name: str) -> int:
    """Bytes of a device of `GPUS`, upper and lower case and spaces aside. Raises ValueError with the close names."""
    spelled = {_plain(known): size for known, size in GPUS.items()}
    wanted = _plain(name)
    if wanted in spelled:
        return spelled[wanted]
    starts = [known for known in GPUS if _plain(known).startswith(wanted)] if wanted else []
    if len(starts) == 1:
        return GPUS[starts[0]]
    near = starts or [
        known for known in GPUS if _plain(known) in difflib.get_close_matches(wanted, spelled, n=3, cutoff=0.5)
    ]
    raise ValueError(f"unknown GPU {name}: choose one of {', '.join(near or GPUS)}, or give the budget in bytes")


def weights_bytes(parameters: int, kind: str) -> int:
    """Bytes of `parameters` weights of a kind of `WEIGHT_BITS`. Raises ValueError for another kind."""
    if kind not in WEIGHT_BITS:
        raise ValueError(f"unknown dtype of weights {kind}: choose one of {', '.join(WEIGHT_BITS)}")
    return math.ceil(parameters * WEIGHT_BITS[kind] / 8)


def _plain(name: str) -> str:
    return "".join(name.lower().replace("nvidia", "").replace("-", "").split())
