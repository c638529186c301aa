"""What a run runs on: device, precision, compilation. Decided once, recorded in the manifest."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bottleneck_core.config import RunConfig
from bottleneck_core.errors import UserError

# Dense bf16 matrix throughput by the vendors' datasheets, FLOP/s, by a part of the device's name.
_PEAK_BF16 = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "B200": 2250e12}


@dataclass(frozen=True)
class Runtime:
    """Device and how it is used. `describe()` is the manifest's `runtime`."""

    device: torch.device
    amp_dtype: torch.dtype | None
    compile_mode: str | None
    matmul_precision: str
    threads: int
    cuda_graph: bool = False  # whether the step is captured and replayed

    @classmethod
    def choose(cls, config: RunConfig) -> Runtime:
        """Device and precision for `config`.

        `--speed auto` means bf16 and compilation on CUDA, unless `--[no-]amp` or `--[no-]compile` were given. Raises
        UserError for a device that is not there.
        """
        device = _device(config.device)
        fast = config.speed == "auto" and device.type == "cuda"
        amp = config.amp or (fast and "amp" not in config.given)
        compiled = config.compile or (fast and "compile" not in config.given)
        if compiled and device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "cl"))):
            raise UserError("--compile needs a C++ compiler on the CPU: install g++ or leave --compile out")
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[config.amp_dtype] if amp else None
        precision = "high" if fast else torch.get_float32_matmul_precision()
        return cls(
            device,
            dtype,
            config.compile_mode if compiled else None,
            precision,
            torch.get_num_threads(),
            cuda_graph=compiled and device.type == "cuda" and _processes() == 1 and _can_be_captured(config),
        )

    def prepare(self) -> None:
        """Set what PyTorch keeps globally."""
        torch.set_float32_matmul_precision(self.matmul_precision)

    def autocast(self) -> AbstractContextManager[Any]:
        if self.amp_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.amp_dtype)

    def compile(self, model: nn.Module) -> None:
        """Compile in place, so that the names in its state dict stay as they are."""
        if self.compile_mode is not None:
            model.compile(mode=self.compile_mode, dynamic=False)

    def synchronize(self) -> None:
        """Wait for the device: before a clock is read."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    @property
    def peak_flops(self) -> float | None:
        """Peak FLOP/s of the matrix units in the dtype in use, where the device is known; for `mfu`."""
        if self.device.type != "cuda" or self.amp_dtype is None:
            return None
        name = torch.cuda.get_device_name(self.device)
        return next((peak for part, peak in _PEAK_BF16.items() if part in name), None)

    @property
    def peak_memory(self) -> int | None:
        """Most bytes that tensors held on the device since the start; None where PyTorch does not count them."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None

    @property
    def device_name(self) -> str:
        if self.device.type == "cuda":
            return f"{self.device} ({torch.cuda.get_device_name(self.device)})"
        return str(self.device)

    def describe(self) -> dict[str, Any]:
        return {
            "device": self.device_name,
            "amp": None if self.amp_dtype is None else str(self.amp_dtype).removeprefix("torch."),
            "compile": self.compile_mode,
            "cuda_graph": self.cuda_graph,
            "float32_matmul_precision": self.matmul_precision,
            "threads": self.threads,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "world_size": _processes(),
        }

    def environment(self) -> dict[str, Any]:
        """The `env` of the meta event."""
        return {
            "python": sys.version.split()[0],
            "platform": platform.platform(),
            "torch": torch.__version__,
            "device": self.device_name,
            "cuda": torch.version.cuda,
        }


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _can_be_captured(config: RunConfig) -> bool:
    """Whether a step has nothing that a CUDA graph cannot hold: random numbers, decisions on the host, other graphs."""
    drawn = config.dropout > 0
    scaled = config.amp_dtype == "fp16"
    other = config.compile_mode == "reduce-overhead" or config.grad_checkpoint
    return config.cuda_graph and not (drawn or scaled or other)


def _device(name: str | None) -> torch.device:
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name} is no device: use cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda":
        index = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise UserError(f"--device {name} is not available: this machine has {torch.cuda.device_count()} GPUs")
        return torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps is not available: this machine has no Metal device")
    return device
