"""One prompt continued through caches of several policies at once, token by token, and how far they are from fp16.

All columns draw with the same seed, so that one uniform number decides the i-th token of each: what differs comes from
the cache. Each token is drawn as `Sampling` says; what is told of it is of the model's own distribution, the softmax of
the logits at temperature 1 with nothing left out, p for the fp16 cache and q for the column's:

- probability: q of the drawn token. rank: 1 + the number of tokens that are more likely.
- kl: KL(p || q) = sum of p (ln p - ln q), nats. delta_log_prob: ln q - ln p of the drawn token. Both where the column's
  text before this token is the fp16 cache's own, else None: distributions after different texts say nothing of a cache.

The fp16 cache is one of the columns, or runs beside them unseen for as long as one of them agrees with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bottleneck_core.generate.engine import Engine
from bottleneck_core.generate.heldout import log_probs
from bottleneck_core.generate.layer import Plan
from bottleneck_core.generate.quality import FP16, check_policy
from bottleneck_core.generate.sampling import Sampler, Sampling
from bottleneck_core.kvcache.cache import PAGE
from bottleneck_core.memory import CachePolicy
from bottleneck_core.model import GPT

ALTERNATIVES = 5


@dataclass(frozen=True, kw_only=True)
class DrawnToken:
    """The token `index` (from 0) of a column; the module's docstring defines the numbers.

    `top`: the most likely tokens with their probabilities, most likely first. `agrees`: whether all tokens so far are
    those of the first column; None for that one itself. `seconds`: of decoding so far, the prompt and these statistics
    taken out. `cache_bytes`: allocated for the cache.
    """

    column: int
    index: int
    token: int
    probability: float
    rank: int
    top: tuple[tuple[int, float], ...]
    kl: float | None
    delta_log_prob: float | None
    agrees: bool | None
    seconds: float
    cache_bytes: int


@dataclass(frozen=True, kw_only=True)
class ColumnEnd:
    """Why a column ended: `length` (all tokens were made) or `stop` (a stop token was drawn), and what it took.

    `tok_s` counts decoding steps: the first token comes from the prompt. None where there was no step.
    """

    column: int
    reason: str
    tokens: int
    prompt_seconds: float
    seconds: float
    tok_s: float | None
    cache_tokens: int
    cache_bytes: int


def side_by_side(
    model: GPT,
    prompt: Sequence[int],
    policies: Sequence[CachePolicy],
    *,
    max_new_tokens: int,
    sampling: Sampling,
    seed: int = 1337,
    stop: Sequence[int] = (),
    plan: Plan | None = None,
    page: int = PAGE,
) -> Iterator[DrawnToken | ColumnEnd]:
    """Continue `prompt` (token ids) through a cache of each policy; the columns take turns, a token each.

    A column draws what `Engine.generate` would with its policy and this seed. Raises UserError for a policy that is not
    the model's, an empty prompt, ids outside the vocabulary and logits that are not finite.
    """
    for policy in policies:
        check_policy(model, policy)
    shown = [_Column(Engine(model, policy, plan=plan, page=page), sampling, seed) for policy in policies]
    beside = [] if FP16 in policies else [_Column(Engine(model, FP16, plan=plan, page=page), sampling, seed)]
    baseline = beside[0] if beside else shown[list(policies).index(FP16)]
    ended: set[int] = set()
    for index in range(max_new_tokens):
        running = [column for number, column in enumerate(shown) if number not in ended]
        if any(column.follows(baseline, index) for column in running):
            running += beside
        for column in running:
            column.draw(prompt)
        for number, column in enumerate(shown):
            if number in ended:
                continue
            yield _told(number, column, shown[0], baseline)
            if column.tokens[-1] in stop or index + 1 == max_new_tokens:
                ended.add(number)
                yield column.end(number, "stop" if column.tokens[-1] in stop else "length")
        if len(ended) == len(shown):
            return


class _Column:
    def __init__(self, engine: Engine, sampling: Sampling, seed: int) -> None:
        self.engine = engine
        self.sampler = Sampler(sampling, seed, batch=1)
        self.tokens: list[int] = []
        self.log_probs = torch.empty(0)  # (N,), that the last token was drawn from
        self.prompt_seconds = 0.0
        self.seconds = 0.0

    def draw(self, prompt: Sequence[int]) -> None:
        """One more token: the first one after the prompt, any other after the one before it."""
        began = time.perf_counter()
        if not self.tokens:
            logits = self.engine.prefill([prompt])  # (1, N)
        else:
            logits = self.engine.feed(torch.tensor([self.tokens[-1:]], device=self.engine.device))[:, -1]
        token = int(self.sampler.draw(logits))  # waits for the device
        took = time.perf_counter() - began
        if self.tokens:
            self.seconds += took
        else:
            self.prompt_seconds = took
        self.tokens.append(token)
        self.log_probs = log_probs(logits)[0]

    def follows(self, other: _Column, count: int) -> bool:
        """Whether the first `count` tokens of both are there and the same."""
        return len(other.tokens) >= count and self.tokens[:count] == other.tokens[:count]

    def end(self, number: int, reason: str) -> ColumnEnd:
        steps, cache = len(self.tokens) - 1, self.engine.cache
        return ColumnEnd(
            column=number,
            reason=reason,
            tokens=len(self.tokens),
            prompt_seconds=self.prompt_seconds,
            seconds=self.seconds,
            tok_s=steps / self.seconds if steps else None,
            cache_tokens=cache.length,
            cache_bytes=cache.allocated_bytes,
        )


def _told(number: int, column: _Column, first: _Column, baseline: _Column) -> DrawnToken:
    tokens, found = column.tokens, column.log_probs
    index, token = len(tokens) - 1, tokens[-1]
    kl = delta = None
    if len(baseline.tokens) == len(tokens) and column.follows(baseline, index):
        kl, delta = _distance(found, baseline.log_probs, token)
    likely = found.topk(min(ALTERNATIVES, found.numel()))
    return DrawnToken(
        column=number,
        index=index,
        token=token,
        probability=float(found[token].exp()),
        rank=1 + int((found > found[token]).sum()),
        top=tuple(zip(likely.indices.tolist(), likely.values.exp().tolist(), strict=True)),
        kl=kl,
        delta_log_prob=delta,
        agrees=None if number == 0 else column.follows(first, len(tokens)),
        seconds=column.seconds,
        cache_bytes=column.engine.cache.allocated_bytes,
    )


def _distance(found: Tensor, expected: Tensor, token: int) -> tuple[float, float]:
    kl = (expected.exp() * (expected - found)).sum().clamp_min(0)  # rounding leaves -1e-17
    return float(kl), float(found[token] - expected[token])
