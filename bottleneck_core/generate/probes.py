"""What a language model without instructions can still find in its cache: a planted needle, and a repeated sequence.

Needle: a random key of `KEY_TOKENS` tokens and a random value token after it are planted at some depth of real held-out
text; the text ends with the key again, and the probability of the value is read from the last prediction. The control
is the same ending without the needle: where the two are alike, the model retrieves nothing and its cache cannot lose
anything. (A completion form of the needle-in-a-haystack and passkey tests; Mohtashami and Jaggi, arXiv:2305.16300.)

Induction: a sequence of random tokens is given twice. Score: mean NLL of its tokens in the second copy minus that of
the same tokens in the first, nats a token; a model whose heads complete [A][B] ... [A] with [B] has a clearly negative
one. The first token of each copy does not count: nothing before tells it. (Olsson et al. 2022, "In-context Learning and
Induction Heads", arXiv:2209.11895, who find such heads by repeated sequences of random tokens.)

Random tokens are drawn evenly from those that occur in the held-out text, by the seed alone.

Legend: B prompts or sequences, T tokens, L tokens of one copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bottleneck_core.errors import UserError
from bottleneck_core.generate.engine import Engine
from bottleneck_core.generate.heldout import EAGER, check_ids, log_probs, logits_chunk, reading_up_to, spread
from bottleneck_core.generate.quality import FP16, Policy, check_policy, label_of
from bottleneck_core.model import GPT

KEY_TOKENS = 4
DEPTHS = (0.1, 0.5, 0.9)
_NEEDLE, _INDUCTION = 1, 2  # streams of one seed
_BATCH = 4
_ALPHABET_FROM = 1 << 20  # tokens of the text: a mapped file is not read whole


@dataclass(frozen=True, kw_only=True)
class NeedleScore:
    """Retrieval at one depth (0: start of the text, 1: its end), means over `trials` prompts of `context` tokens.

    `log_prob` (nats) and `prob` of the value token, `top1` the share of prompts where it is the most likely one,
    `rank` its mean place (1: most likely). `control_log_prob`: by the baseline's cache, without the needle.
    """

    policy: str
    context: int
    depth: float
    trials: int
    log_prob: float
    prob: float
    top1: float
    rank: float
    control_log_prob: float


@dataclass(frozen=True, kw_only=True)
class InductionScore:
    """A repeated sequence of `context` tokens in all: mean NLL of each copy in nats a token, `score` = second - first.

    `top1`: share of the second copy's tokens that were predicted as the most likely ones.
    """

    policy: str
    context: int
    trials: int
    nll_first: float
    nll_second: float
    score: float
    top1: float


def needle_retrieval(
    model: GPT,
    ids: np.ndarray,
    policies: Sequence[Policy],
    *,
    context: int,
    depths: Sequence[float] = DEPTHS,
    trials: int = 8,
    seed: int = 1337,
    baseline: Policy = FP16,
    tick: Callable[[], None] = lambda: None,
) -> list[NeedleScore]:
    """Retrieval under each policy and at each depth, the baseline first. `tick` is called after each policy.

    Every policy reads the same prompts. Raises UserError for text or contexts that are too short.
    """
    chosen = _chosen(model, policies, baseline)
    prompts, values = needle_prompts(ids, context, depths, trials, seed)  # (depths + control, trials, context)
    check_ids(model, prompts)
    scores: list[NeedleScore] = []
    with reading_up_to(model, context):
        control = float(_at(_last_log_probs(model, baseline, prompts[-1]), values).mean())
        for policy in chosen:
            for depth, batch in zip(depths, prompts[:-1], strict=True):
                distribution = _last_log_probs(model, policy, batch)  # (B, N)
                value = _at(distribution, values)  # (B,)
                rank = 1 + (distribution > value[:, None]).sum(-1)
                scores.append(
                    NeedleScore(
                        policy=label_of(policy),
                        context=context,
                        depth=float(depth),
                        trials=len(values),
                        log_prob=float(value.mean()),
                        prob=float(value.exp().mean()),
                        top1=float((rank == 1).double().mean()),
                        rank=float(rank.double().mean()),
                        control_log_prob=control,
                    )
                )
            tick()
    return scores


def needle_prompts(
    ids: np.ndarray, context: int, depths: Sequence[float], trials: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Prompts (depths + 1, B, context) int64, those of the control last, and the value tokens (B,)."""
    if not all(0 <= depth <= 1 for depth in depths):
        raise UserError(f"depths of a needle lie from 0 to 1, got {', '.join(map(str, depths))}")
    text = context - 2 * KEY_TOKENS - 1
    if text < 1:
        raise UserError(f"a needle needs a context of at least {2 * KEY_TOKENS + 2} tokens, got {context}")
    haystacks = spread(ids, context - KEY_TOKENS, trials)
    draw, alphabet = np.random.Philox([seed, _NEEDLE, context]), _alphabet(ids)
    prompts = np.empty((len(depths) + 1, len(haystacks), context), dtype=np.int64)
    values = np.empty(len(haystacks), dtype=np.int64)
    for trial, haystack in enumerate(haystacks):
        key = _drawn(draw, alphabet, KEY_TOKENS)
        values[trial] = _drawn(draw, np.setdiff1d(alphabet, key), 1)[0]  # copying the key earns nothing
        for row, depth in enumerate(depths):
            at = round(depth * text)
            needle = (haystack[:at], key, values[trial : trial + 1], haystack[at:text], key)
            prompts[row, trial] = np.concatenate(needle)
        prompts[-1, trial] = np.concatenate((haystack, key))
    return prompts, values


def induction(
    model: GPT,
    ids: np.ndarray,
    policies: Sequence[Policy],
    *,
    context: int,
    trials: int = 8,
    seed: int = 1337,
    baseline: Policy = FP16,
    tick: Callable[[], None] = lambda: None,
) -> list[InductionScore]:
    """Scores of each policy on the same sequences, the baseline first. `tick` is called after each policy.

    A copy is half the context long. Raises UserError for contexts below 4 tokens.
    """
    chosen = _chosen(model, policies, baseline)
    sequences = induction_sequences(ids, context, trials, seed)
    check_ids(model, sequences)
    half = sequences.shape[1] // 2
    scores: list[InductionScore] = []
    with reading_up_to(model, context):
        for policy in chosen:
            parts = [_predicted(model, policy, part) for part in torch.from_numpy(sequences).split(_BATCH)]
            nll, best = (torch.cat(part) for part in zip(*parts, strict=True))  # (B, 2 L - 1) each, of tokens 1, 2, ...
            first, second = nll[:, : half - 1].mean(), nll[:, half:].mean()
            scores.append(
                InductionScore(
                    policy=label_of(policy),
                    context=context,
                    trials=len(sequences),
                    nll_first=float(first),
                    nll_second=float(second),
                    score=float(second - first),
                    top1=float(best[:, half:].double().mean()),
                )
            )
            tick()
    return scores


def induction_sequences(ids: np.ndarray, context: int, trials: int, seed: int) -> np.ndarray:
    """Random tokens, each sequence given twice: (B, 2 L) int64 with L half the context."""
    if context < 4:
        raise UserError(f"a repeated sequence needs a context of at least 4 tokens, got {context}")
    draw, half = np.random.Philox([seed, _INDUCTION, context]), context // 2
    return np.tile(_drawn(draw, _alphabet(ids), trials * half).reshape(trials, half), 2)


def _chosen(model: GPT, policies: Sequence[Policy], baseline: Policy) -> list[Policy]:
    chosen = [baseline, *(policy for policy in policies if policy != baseline)]
    for policy in chosen:
        check_policy(model, policy)
    return chosen


def _alphabet(ids: np.ndarray) -> np.ndarray:
    """The tokens to draw from, int64."""
    alphabet = np.unique(ids[:_ALPHABET_FROM]).astype(np.int64)
    if len(alphabet) <= KEY_TOKENS:
        raise UserError(f"the held-out text has {len(alphabet)} different tokens: give text with more of them")
    return alphabet


def _drawn(source: np.random.Philox, alphabet: np.ndarray, count: int) -> np.ndarray:
    """`count` tokens, with repetition. Raw words: NumPy keeps a bit generator's stream, but not that of `choice`."""
    return alphabet[source.random_raw(count) % np.uint64(len(alphabet))]


def _last_log_probs(model: GPT, policy: Policy, prompts: np.ndarray) -> Tensor:
    """(B, N) float64 on the CPU: what follows each prompt (B, context)."""
    parts = [prompts[at : at + _BATCH].tolist() for at in range(0, len(prompts), _BATCH)]
    return torch.cat([log_probs(Engine(model, policy, plan=EAGER).prefill(part)).cpu() for part in parts])


def _predicted(model: GPT, policy: Policy, sequences: Tensor) -> tuple[Tensor, Tensor]:
    """NLL of tokens 1 .. T - 1 of sequences (B, T), and whether each was the most likely one: (B, T - 1) each."""
    engine = Engine(model, policy, plan=EAGER)
    nll: list[Tensor] = []
    best: list[Tensor] = []
    targets = sequences[:, 1:].split(logits_chunk(model, len(sequences)), dim=1)
    for idx, target in zip(sequences[:, :-1].split(targets[0].size(1), dim=1), targets, strict=True):
        found = log_probs(engine.feed(idx.to(engine.device)))  # (B, chunk, N)
        target = target.to(found.device)
        nll.append(-found.gather(-1, target[..., None])[..., 0].cpu())
        best.append((found.argmax(-1) == target).cpu())
    return torch.cat(nll, dim=1), torch.cat(best, dim=1)


def _at(distribution: Tensor, tokens: np.ndarray) -> Tensor:
    """(B, N) at tokens (B,) -> (B,)."""
    return distribution.gather(-1, torch.from_numpy(tokens)[:, None])[:, 0]
