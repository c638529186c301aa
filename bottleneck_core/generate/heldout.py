"""Held-out text for measuring a model: windows of it, the way they are read, and the distributions that come out.

Legend: M tokens of the text, W windows, N vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from torch import Tensor

from bottleneck_core.errors import UserError
from bottleneck_core.generate.layer import Plan
from bottleneck_core.model import GPT

# What is measured is the format. Whether a kernel reads it rightly is a test's question, not one of quality.
EAGER = Plan(fused="none")
_LOGITS_AT_ONCE = 1 << 23  # 64 MiB in float64
_LARGEST_CHUNK = 512


def window_count(ids: np.ndarray, length: int, count: int, stride: int = 1) -> int:
    """How many of `count` windows of `length` tokens there are in ids (M,), at least `stride` tokens apart.

    Raises UserError where the text has no such window.
    """
    if count < 1:
        raise UserError(f"windows must be at least 1, got {count}: give --windows 1 or more")
    if len(ids) < length:
        raise UserError(
            f"the held-out text has {len(ids):,} tokens where a window needs {length:,}: give a longer text, or "
            "smaller --contexts"
        )
    return min(count, (len(ids) - length) // stride + 1)


def spread(ids: np.ndarray, length: int, count: int, stride: int = 1) -> np.ndarray:
    """These windows, (W, length) int64, spread evenly from the text's start to its end."""
    count = window_count(ids, length, count, stride)
    starts = np.arange(count) * (len(ids) - length) // max(count - 1, 1)
    return np.stack([np.asarray(ids[start : start + length], dtype=np.int64) for start in starts])


def check_ids(model: GPT, texts: np.ndarray) -> None:
    """Raise UserError for an id outside the model's vocabulary."""
    vocab = model.embed.num_embeddings
    if texts.min() < 0 or texts.max() >= vocab:
        wrong = int(texts.max() if texts.max() >= vocab else texts.min())
        raise UserError(f"the held-out text has the token id {wrong}, this model knows 0 to {vocab - 1}: give its text")


@contextmanager
def reading_up_to(model: GPT, context: int) -> Iterator[None]:
    """Warn once where `context` is beyond the block size, instead of each engine doing so."""
    block_size = model.config.block_size
    if context > block_size:
        warnings.warn(
            f"{context:,} tokens are beyond {block_size:,}, the context this model was trained with: what is measured "
            "there is mostly the model's own loss of quality",
            stacklevel=4,
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the text grows beyond")
        yield


def log_probs(logits: Tensor) -> Tensor:
    """Logits (..., N) -> ln of probabilities, float64. Raises UserError for undefined ones.

    Float64, because the divergence of two nearly equal distributions is a small difference of large numbers.
    """
    precise = logits.cpu().double() if logits.device.type == "mps" else logits.double()
    if not bool(precise.isfinite().all()):
        raise UserError("the model's logits are not finite: its weights are broken, or its dtype is too narrow")
    return precise.log_softmax(-1)


def logits_chunk(model: GPT, batch: int = 1) -> int:
    """Tokens that may be read at once: logits of a large vocabulary outgrow everything else."""
    return max(1, min(_LARGEST_CHUNK, _LOGITS_AT_ONCE // (batch * model.embed.num_embeddings)))
