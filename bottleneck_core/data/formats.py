"""The four formats of a token file, and writing them.

`bin`: the ids one after the other, nothing else. `npy`: the same behind NumPy's header.
`text`: decimal ids between white space. `pt`: a 1-D integer tensor by torch.save.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bottleneck_core.errors import UserError

SUFFIXES = {"bin": ".bin", "npy": ".npy", "text": ".txt", "pt": ".pt"}
_CHUNK = 1 << 22  # ids read from disk at a time: 8 to 32 MB
_IDS_PER_LINE = 1024


def format_by_suffix(path: Path) -> str:
    """.bin, .npy and .pt stand for themselves; every other suffix (.txt, .tokens, none) is text."""
    return next((name for name, suffix in SUFFIXES.items() if path.suffix.lower() == suffix), "text")


def check_format(format: str) -> str:
    """`format` itself, or UserError when there is no such format."""
    if format not in ("auto", *SUFFIXES):
        raise UserError(f"the token file's format must be one of auto, text, npy, bin, pt, got {format!r}")
    return format


def token_dtype(vocab_size: int) -> np.dtype:
    """uint16 where every id fits, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def id_chunks(tokens: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(position of the first id, ids) of consecutive stretches: a mapped file is read piece by piece."""
    for start in range(0, len(tokens), _CHUNK):
        yield start, np.asarray(tokens[start : start + _CHUNK])


def export(tokens: np.ndarray, path: Path, format: str) -> None:
    """Write the ids of a mapped array to `path`: npy and text piece by piece, pt from one array in memory."""
    if format == "npy":
        target = np.lib.format.open_memmap(path, mode="w+", dtype=tokens.dtype, shape=tokens.shape)
        for start, ids in id_chunks(tokens):
            target[start : start + len(ids)] = ids
        target.flush()
    elif format == "text":
        with open(path, "w", encoding="ascii") as file:
            for start in range(0, len(tokens), _IDS_PER_LINE):
                file.write(" ".join(map(str, tokens[start : start + _IDS_PER_LINE].tolist())) + "\n")
    else:
        assert format == "pt", format
        import torch

        # int32 is the smallest type that holds every id and that all of torch's operators know.
        torch.save(torch.from_numpy(tokens.astype(np.int32)), path)
