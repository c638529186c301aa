"""Hadamard rotation of queries and keys before the keys are stored (QuaRot, arXiv:2404.00456).

An orthogonal matrix leaves every product q.k as it is and spreads a value that stands out over its whole head, so that
a block's scale is set by many values instead of one. Queries, keys and the null key are turned; nothing is turned back.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def rotate(x: Tensor, parts: tuple[int, ...]) -> Tensor:
    """Heads (..., D) turned part by part: `parts` are the widths of the stored tensors that D is made of."""
    return torch.cat([_turned(part) for part in x.split(parts, dim=-1)], dim=-1)


def _turned(x: Tensor) -> Tensor:
    # Walsh-Hadamard matrices exist in powers of two: a head dim of 12 is turned as three groups of 4.
    size = x.size(-1) & -x.size(-1)
    groups = x.unflatten(-1, (-1, size))
    return (groups @ _hadamard(size, x.dtype, x.device)).flatten(-2)


@lru_cache(maxsize=32)
def _hadamard(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Sylvester's matrix (size, size), scaled to be orthogonal. Made once: each layer of each token needs it."""
    with torch.inference_mode(False):  # else training on from it later would be refused
        matrix = torch.ones(1, 1, dtype=dtype, device=device)
        while matrix.size(0) < size:
            matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
        return matrix * size**-0.5
