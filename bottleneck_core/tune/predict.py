"""A guess at policies that were not measured, from a few that were: one tensor at a time, one window at a time.

Each kind and block of each tensor is measured alone, the other tensors in fp16, with the smallest residual window; and
one policy with all tensors quantised at every residual window. Losses and extra times of the tensors are added up, and
what the window changed for that one policy is taken for all. It serves to choose what is measured, and nothing else:
the largest differences of several tensors seldom meet in one logit, so that the sum is mostly too large.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bottleneck_core.memory import FORMATS, CachePolicy
from bottleneck_core.tune.spelling import policy_name


@dataclass(frozen=True, kw_only=True)
class Guess:
    """Seconds a token and largest logit difference, measured or expected."""

    seconds: float
    loss: float


class Probes:
    """What to measure for a prediction of `policies`, which share edges and rotation with each other."""

    def __init__(self, tensors: Iterable[str], policies: Sequence[CachePolicy]) -> None:
        self.tensors = list(tensors)
        self.least = min(policy.residual for policy in policies)
        plain_kinds = dict.fromkeys(self.tensors, "fp16")
        self.plain = replace(policies[0], residual=self.least, kinds=plain_kinds)
        self.singles: dict[tuple[str, str, int], CachePolicy] = {}  # by tensor, kind and block
        for policy in policies:
            for tensor in self.tensors:
                kind, block = policy.kind_of(tensor), policy.qblock_of(tensor)
                if kind != "fp16":
                    kinds = plain_kinds | {tensor: kind}
                    self.singles[tensor, kind, block] = replace(self.plain, kinds=kinds, qblock=block)
        quantised = [p for p in policies if all(FORMATS[p.kind_of(tensor)].quantised for tensor in self.tensors)]
        residuals = sorted({policy.residual for policy in policies})
        self.windows = {residual: replace(quantised[0], residual=residual) for residual in residuals if quantised}

    @property
    def policies(self) -> dict[str, CachePolicy]:
        """All probes by name, each once."""
        return {self.name(policy): policy for policy in (self.plain, *self.singles.values(), *self.windows.values())}

    def name(self, policy: CachePolicy) -> str:
        return policy_name(policy, self.tensors)

    def guess(self, policy: CachePolicy, measured: Mapping[str, Guess]) -> Guess:
        """What to expect of a policy. A probe without a measurement counts as if it changed nothing."""
        plain = measured.get(self.name(self.plain), Guess(seconds=0.0, loss=0.0))
        seconds, loss = plain.seconds, 0.0
        for tensor in self.tensors:
            probe = self.singles.get((tensor, policy.kind_of(tensor), policy.qblock_of(tensor)))
            single = None if probe is None else measured.get(self.name(probe))
            if single is not None:
                seconds += single.seconds - plain.seconds
                loss += single.loss
        here, least = (self._window(residual, measured) for residual in (policy.residual, self.least))
        if here is not None and least is not None:
            seconds += here.seconds - least.seconds
            loss *= here.loss / least.loss if 0 < least.loss < math.inf else 1.0
        # Differences of noisy times add up to less than nothing now and then.
        return Guess(seconds=max(seconds, 0.0), loss=math.inf if math.isnan(loss) else loss)

    def _window(self, residual: int, measured: Mapping[str, Guess]) -> Guess | None:
        probe = self.windows.get(residual)
        return None if probe is None else measured.get(self.name(probe))
