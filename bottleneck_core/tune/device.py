"""Measuring on the device at hand: candidates that it refuses are unrunnable, not the end of the search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from bottleneck_core.errors import UserError
from bottleneck_core.generate import Plan
from bottleneck_core.memory import CachePolicy
from bottleneck_core.model import GPT
from bottleneck_core.store.manifest import hardware, package_versions
from bottleneck_core.tune.guard import Guard, Part, Quality
from bottleneck_core.tune.race import Unrunnable
from bottleneck_core.tune.timing import DecodeTimer, Timing

T = TypeVar("T")


class DeviceMeasure:
    """Measures policies under the base plan with a timer and, where there is one, the quality guard."""

    def __init__(self, timer: DecodeTimer, guard: Guard | None, plan: Plan, *, warmup: int, runs: int) -> None:
        self.timer = timer
        self.guard = guard
        self.plan = plan
        self.warmup = warmup
        self.runs = runs

    def seconds(self, policy: CachePolicy) -> tuple[float, ...]:
        """Seconds a token, run by run. Raises Unrunnable."""
        return self.timing(policy, self.plan, warmup=self.warmup, runs=self.runs).seconds

    def timing(self, policy: CachePolicy, plan: Plan, *, warmup: int, runs: int) -> Timing:
        return attempt(lambda: self.timer.time(policy, plan, warmup=warmup, runs=runs))

    def quality(self, policy: CachePolicy, part: Part) -> Quality:
        """What the guard says of a policy. Raises Unrunnable."""
        guard = self.guard
        assert guard is not None, "quality is asked for where nothing is guarded"
        return attempt(lambda: guard.measure(policy, part))


def attempt(measure: Callable[[], T]) -> T:
    """`measure()`. Raises Unrunnable where memory is short, a kernel does not compile or values cannot be stored."""
    try:
        return measure()
    except torch.OutOfMemoryError:
        raise Unrunnable("out of memory") from None
    except UserError as error:
        raise Unrunnable(str(error)) from None
    except Exception as error:
        # Triton's own exceptions share no public class, and it must not be imported to name them.
        if not type(error).__module__.startswith("triton"):
            raise
        raise Unrunnable(f"the kernel does not compile: {str(error).splitlines()[0][:120]}") from None


def machine(model: GPT) -> dict[str, Any]:
    """What of the machine and its programs a measurement depends on."""
    weight = model.embed.weight
    device = weight.device
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else hardware()["cpu"],
        "kind": device.type,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "dtype": str(weight.dtype).removeprefix("torch."),
        "versions": package_versions(("bottleneck-core", "torch", "triton")) | {"torch build": torch.__version__},
    }
