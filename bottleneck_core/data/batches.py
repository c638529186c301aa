"""Batches: windows of a token file, drawn from nothing but the seed and the step.

No state is kept between calls. A batch is the same whatever was asked before, so resuming, evaluating,
probing and the number of processes cannot change the order of the data, and every attention variant sees the
same one.

Legend: N tokens of a split, T block size, B sequences of one process and micro step.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from bottleneck_core.data.tokenfile import check_splits, split_sizes
from bottleneck_core.errors import UserError

_TRAIN_STREAM = 0  # second half of the generator's key: another number would be an independent stream of the same seed
_UINT64 = (1 << 64) - 1


class Batches:
    """Training, evaluation and probe windows over one array of token ids.

    `tokens`: (N,) integers, usually mapped; the last `val_frac` of them are the validation split.
    `batch_size`: the sequences of one micro step over all `world_size` processes, which must divide it.
    `grad_accum`: micro steps a step. Everything returned lies on `device` as int64. Raises UserError for a
    batch that does not divide, and for splits shorter than one block.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        *,
        block_size: int,
        val_frac: float,
        batch_size: int,
        grad_accum: int,
        seed: int,
        eval_iters: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        if batch_size % world_size:
            raise UserError(
                f"--batch-size {batch_size} does not divide among {world_size} processes: "
                f"take a multiple of {world_size}"
            )
        check_splits(len(tokens), block_size, val_frac, "the token file")
        self.tokens = np.asarray(tokens)  # a plain view of the mapping: a slice of it costs 0.6 us, of np.memmap 6
        self.block_size = block_size
        self.batch_size = batch_size
        self.grad_accum = grad_accum
        self.eval_iters = eval_iters
        self.seed = seed
        self.device = torch.device(device)
        self.split_sizes = split_sizes(len(tokens), val_frac)
        local = batch_size // world_size
        self._mine = slice(rank * local, (rank + 1) * local)

    def train_batch(self, step: int, micro: int = 0) -> tuple[Tensor, Tensor]:
        """(x, y), each (B, T), of one micro step of optimiser step `step`; y is x moved on by one token."""
        if not 0 <= micro < self.grad_accum:
            raise ValueError(f"micro step {micro} of {self.grad_accum}")
        # Philox counts: its key and counter alone name the numbers, and no earlier draw is needed for them.
        # The step takes the highest word, which leaves 2^192 blocks to each. Raw words, because NumPy keeps a
        # bit generator's stream between versions but not `integers`; the modulo's bias is N / 2^64.
        key = np.array([self.seed & _UINT64, _TRAIN_STREAM], dtype=np.uint64)
        counter = np.array([0, 0, 0, step], dtype=np.uint64)
        draws = np.random.Philox(key=key, counter=counter).random_raw(self.batch_size * self.grad_accum)
        n_starts = self.split_sizes[0] - self.block_size  # the last start has T + 1 tokens before the split's end
        starts = (draws % np.uint64(n_starts)).astype(np.int64).reshape(self.grad_accum, self.batch_size)
        return self._inputs_and_targets(starts[micro, self._mine])

    def eval_batches(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """`eval_iters` fixed batches (x, y), each (B, T): windows evenly spread over `split` (train or val).

        All processes get equally many windows in each batch, so the mean of their means is the mean over all.
        """
        first, size = self._split(split)
        windows = self.eval_iters * self.batch_size
        starts = _evenly_spread(first, size - self.block_size, windows).reshape(self.eval_iters, self.batch_size)
        for batch in starts:
            yield self._inputs_and_targets(batch[self._mine])

    def probe_windows(self, n: int = 8, length: int | None = None) -> tuple[Tensor, list[int]]:
        """x (n, length), fixed windows spread over the validation split, and where each starts in the file.

        `length`: tokens a window, at most the split's; the block size where not given. The same on all
        processes.
        """
        first, size = self._split("val")
        length = self.block_size if length is None else min(length, size)
        starts = _evenly_spread(first, size - length + 1, n)
        return self._to_device(self._windows(starts, length)), starts.tolist()

    def _split(self, split: str) -> tuple[int, int]:
        n_train, n_val = self.split_sizes
        if split not in ("train", "val"):
            raise ValueError(f"split must be 'train' or 'val', got {split!r}")
        return (0, n_train) if split == "train" else (n_train, n_val)

    def _windows(self, starts: np.ndarray, length: int) -> Tensor:
        windows = np.empty((len(starts), length), dtype=np.int64)  # (B, length)
        for row, start in enumerate(starts):
            windows[row] = self.tokens[start : start + length]
        return torch.from_numpy(windows)

    def _inputs_and_targets(self, starts: np.ndarray) -> tuple[Tensor, Tensor]:
        window = self._to_device(self._windows(starts, self.block_size + 1))  # (B, T + 1)
        return window[:, :-1].contiguous(), window[:, 1:].contiguous()

    def _to_device(self, windows: Tensor) -> Tensor:
        if self.device.type == "cuda":
            # Only a copy from pinned memory may be asynchronous: from pageable memory the source can be gone
            # before it is read. PyTorch keeps the pinned block until the copy is done.
            return windows.pin_memory().to(self.device, non_blocking=True)
        return windows.to(self.device)


def _evenly_spread(first: int, n_starts: int, count: int) -> np.ndarray:
    """`count` starts from `first` to `first + n_starts - 1`, both included; repeated if there are fewer."""
    return first + np.arange(count) * (n_starts - 1) // max(count - 1, 1)
