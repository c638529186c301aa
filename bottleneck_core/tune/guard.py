"""The quality guard: what a policy changes in the model's predictions, against the fp16 cache, on calibration text.

Windows of the text are read up to a prefix, then decoded token by token with teacher forcing; each scored token
compares all logits. The prefix is `calib_prefill` tokens longer than the longest residual window of the policies to be
compared: in a shorter one every token would still stand in the fp16 window, and any format would pass.

The largest difference of a few windows says little about the next text. The largest values of the windows are
therefore taken as draws of a Gumbel distribution, the limit law of maxima (Fisher and Tippett 1928), fitted by its
moments: the largest of OTHER_WINDOWS windows of such text stays below its quantile with a probability of CONFIDENCE.
Text of another kind lies beyond that now and then, so that MARGIN times the quantile, `expected_worst`, has to meet the
tolerance. A third of the windows serves the search, all of them confirm its choice.

Legend: W windows, L tokens of one, P prefix, D scored tokens, N vocabulary.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bottleneck_core.errors import UserError
from bottleneck_core.generate import Engine, Plan
from bottleneck_core.generate.heldout import check_ids, spread
from bottleneck_core.memory import CachePolicy
from bottleneck_core.model import GPT

MOST_WINDOWS = 24
LEAST_WINDOWS = 6  # two to search with, four to confirm
OTHER_WINDOWS = 64
CONFIDENCE = 0.95
MARGIN = 2.0
REFERENCE = CachePolicy(kind="fp16", residual=0)
Part = Literal["search", "all"]


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What a policy changes, over `windows` windows with `scored` tokens together.

    `largest`: largest absolute difference of a logit; `expected_worst`: see the module; `mean_kl`: mean divergence
    KL(fp16 || policy) of the next token, in nats; `delta_nll`: mean negative log-likelihood of the text less that of
    the fp16 cache, in nats a token; `same_top1`: share of tokens whose most likely successor stays.
    """

    windows: int
    scored: int
    largest: float
    expected_worst: float
    mean_kl: float
    delta_nll: float
    same_top1: float

    def meets(self, tolerance: float) -> bool:
        return self.largest <= tolerance and self.expected_worst <= tolerance


class Guard:
    """Compares policies with the fp16 cache on windows of `tokens` (N,) ids, any integer sequence or array.

    Raises UserError where fewer than two tokens a window would be scored, the text holds fewer than LEAST_WINDOWS
    windows, or an id is not in the model's vocabulary.
    """

    def __init__(
        self, model: GPT, tokens: Any, *, prefix: int, scored: int, page: int = 256, plan: Plan | None = None
    ) -> None:
        if scored < 2:
            raise UserError(
                f"the quality guard needs at least two scored tokens, got {scored}: give --self-opt-calib-decode 8"
            )
        self.model = model
        self.prefix = prefix
        self.scored = scored
        self.page = page
        self.plan = plan
        self.windows = _windows(model, tokens, prefix + scored)  # (W, L), L = P + D

    def measure(self, policy: CachePolicy, part: Part = "search") -> Quality:
        """The quality of a policy, on the windows of the search or on all."""
        windows, reference = self._of(part)
        return compare(reference, self._logits(policy, windows, self.plan), windows[:, self.prefix :])

    def _of(self, part: Part) -> tuple[Tensor, Tensor]:
        chosen = slice(0, None, 3) if part == "search" else slice(None)
        return self.windows[chosen], self._reference[chosen]

    @cached_property
    def _reference(self) -> Tensor:
        # Read block by block: a fused kernel under test must not be its own judge.
        return self._logits(REFERENCE, self.windows, Plan(fused="none"))

    @torch.inference_mode()
    def _logits(self, policy: CachePolicy, windows: Tensor, plan: Plan | None) -> Tensor:
        """(W, D, N) float32: what is predicted for each scored token."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # windows beyond the trained context are beyond it for both sides
            engine = Engine(self.model, policy, plan=plan, page=self.page)
            rows = windows[:, : self.prefix].tolist()
            steps = [engine.prefill(rows)]
            idx = windows.to(engine.device)
            steps += [engine.feed(idx[:, at : at + 1])[:, -1] for at in range(self.prefix, idx.size(1) - 1)]
        return torch.stack(steps, dim=1).float()


def compare(reference: Tensor, logits: Tensor, targets: Tensor) -> Quality:
    """The quality of logits (W, D, N) against reference ones for the tokens (W, D) that the text goes on with."""
    worst = (logits - reference).abs().amax(dim=(1, 2)).tolist()  # a window
    logp, logq = reference.double().log_softmax(-1), logits.double().log_softmax(-1)
    wanted = targets.to(logits.device)[..., None]
    return Quality(
        windows=len(worst),
        scored=targets.numel(),
        # An undefined logit is infinitely wrong.
        largest=max(value if math.isfinite(value) else math.inf for value in worst),
        expected_worst=expected_worst(worst),
        mean_kl=float((logp.exp() * (logp - logq)).sum(-1).mean()),
        delta_nll=float((logp.gather(-1, wanted) - logq.gather(-1, wanted)).mean()),
        same_top1=float((reference.argmax(-1) == logits.argmax(-1)).double().mean()),
    )


def expected_worst(maxima: Sequence[float]) -> float:
    """MARGIN times what the largest of OTHER_WINDOWS further maxima stays below with CONFIDENCE; from two or more."""
    if not all(map(math.isfinite, maxima)):
        return math.inf
    mean = math.fsum(maxima) / len(maxima)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in maxima) / (len(maxima) - 1))
    scale = deviation * math.sqrt(6) / math.pi
    location = mean - scale * 0.5772156649015329  # Euler's constant
    return MARGIN * (location + scale * (math.log(OTHER_WINDOWS) - math.log(-math.log(CONFIDENCE))))


def _windows(model: GPT, tokens: Any, length: int) -> Tensor:
    """(W, L) windows spread evenly over the text, none of them sharing a token."""
    if len(tokens) // length < LEAST_WINDOWS:
        raise UserError(
            f"the quality guard needs {LEAST_WINDOWS} windows of {length:,} tokens, and the calibration text has "
            f"{len(tokens):,} tokens: give a longer text, or a smaller --self-opt-calib-prefill"
        )
    windows = spread(np.asarray(tokens), length, MOST_WINDOWS, stride=length)
    check_ids(model, windows)
    return torch.from_numpy(windows)
