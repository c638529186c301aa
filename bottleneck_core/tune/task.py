"""What is to be tuned, and for what: settings with their defaults filled in, and the candidates that they make."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from bottleneck_core.config import GROUPS
from bottleneck_core.errors import UserError
from bottleneck_core.generate import Plan
from bottleneck_core.memory import FORMATS, CachePolicy, cached_widths
from bottleneck_core.model import GPT
from bottleneck_core.tune import space
from bottleneck_core.tune.device import machine
from bottleneck_core.tune.guard import Guard
from bottleneck_core.tune.memo import model_sha256

METHOD = 1  # counts up when the search changes, so that older memos are not taken for its result
_NO_INFLUENCE = {"self_opt", "self_opt_cache", "self_opt_verbose", "self_opt_interval", "self_opt_calib_tokens"}


class Task:
    """One tuning of `model` under `settings` (the `kv_*` and `self_opt_*` names of a RunConfig).

    `context`: tokens a request that the memory is counted for; None: `prompt` tokens and `max_new_tokens`, in whole
    pages, or the block size where there is no prompt. `prefix`: cached tokens at which decoding is timed; by default
    the prompt in whole pages, else the context. `sized` and `plans` are the candidates, the base first; `rejected` are
    those that are out without a measurement. Raises UserError for settings that make no sense.
    """

    def __init__(self, model: GPT, settings: Any, prompt: int | None, context: int | None, batch: int) -> None:
        for name, value in (("context", context), ("batch", batch), ("prompt", prompt)):
            if value is not None and value < 1:
                raise UserError(f"the {name} to tune for must be at least 1, got {value}")
        self.model = model
        self.settings = settings
        self.page: int = settings.kv_page
        self.batch = batch
        if context is None and prompt is not None:
            context = self._pages(prompt + settings.max_new_tokens)
        self.context: int = context or model.config.block_size
        known = self.context if prompt is None else min(self._pages(prompt), self.context)
        self.prefix: int = settings.self_opt_policy_prefix_len or known
        self.tensors = list(cached_widths(model.config))
        self.base = CachePolicy.of(settings)
        self.base_plan = Plan(block=settings.kv_decode_block, fused=settings.kv_fused)
        self.machine = machine(model)
        self.budget = space.budget_bytes(model.config, settings, self.base, self.context, batch, self.page)

        self.searches_policies: bool = settings.self_opt_scope != "decode"
        self.searches_plans: bool = settings.self_opt_scope != "cache"
        self.guarded: bool = self.searches_policies and settings.self_opt_policy_quality
        self.verified: bool = self.searches_plans and settings.self_opt_verify
        self.rejected: list[space.Rejected] = []
        self.candidates = 0  # policies and plans, those rejected without a measurement included
        self.sized = self._sized() if self.searches_policies else []
        self.plans = self._plans() if self.searches_plans else [self.base_plan]

    @property
    def checked(self) -> bool:
        """Whether all that is searched is also checked."""
        return self.guarded == self.searches_policies and self.verified == self.searches_plans

    @property
    def sized_base(self) -> space.Sized | None:
        """The base policy, where it fits the budget."""
        return next((each for each in self.sized if each.policy == self.base), None)

    def bytes(self, policy: CachePolicy) -> int:
        """What a policy takes at this context and batch."""
        return space.cache_bytes(self.model.config, policy, self.context, self.batch, self.page)

    def guard(self, calibration: Any) -> Guard | None:
        """The quality guard, None where nothing is guarded. Its prefix is longer than every fp16 window, so that what
        is packed is read. Raises UserError without calibration text."""
        if not self.guarded:
            return None
        if calibration is None:
            raise UserError("the quality guard has no calibration text: give a token file as --self-opt-calib-tokens")
        packed = [
            each.policy
            for each in self.sized
            if any(FORMATS[each.policy.kind_of(tensor)].quantised for tensor in self.tensors)
        ]
        longest = max((policy.residual for policy in packed), default=0)
        settings = self.settings
        return Guard(
            self.model,
            calibration,
            prefix=settings.self_opt_calib_prefill + longest,
            scored=settings.self_opt_calib_decode,
            page=self.page,
            plan=self.base_plan,
        )

    def key(self, calibration: Any) -> dict[str, Any]:
        """Everything that the choice depends on."""
        names = (*GROUPS["KV cache"].model_fields, *GROUPS["self-optimiser"].model_fields)
        text = np.asarray(calibration if self.guarded else [], dtype=np.int64).tobytes()
        return {
            "method": METHOD,
            "machine": self.machine,
            "model": model_sha256(self.model),
            "context": self.context,
            "batch": self.batch,
            "prefix": self.prefix,
            "budget": self.budget,
            "settings": {name: getattr(self.settings, name) for name in names if name not in _NO_INFLUENCE},
            "calibration": hashlib.sha256(text).hexdigest(),
        }

    def _sized(self) -> list[space.Sized]:
        config = self.model.config
        candidates, unstorable = space.policies(config, self.settings, self.base)
        sized, beyond = space.within(config, candidates, self.budget, self.context, self.batch, self.page)
        self.rejected += [*unstorable, *beyond]
        self.candidates += len(candidates) + len(unstorable)
        return sized

    def _plans(self) -> list[Plan]:
        cuda = self.machine["kind"] == "cuda"
        plans, same = space.decode_plans(self.settings, self.base_plan, self.prefix, cuda)
        self.rejected += same
        self.candidates += len(plans) + len(same)
        return plans

    def _pages(self, tokens: int) -> int:
        return -(-tokens // self.page) * self.page
