"""Token files: opening one of any format, and refusing early what would fail or mislead late.

Ids are never loaded whole for bin and npy, nor for text after its first parse: `tokens` is a mapped array.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bottleneck_core.data.formats import check_format, format_by_suffix, id_chunks
from bottleneck_core.data.sidecar import file_sha256, read_sidecar
from bottleneck_core.data.textids import map_text_ids
from bottleneck_core.data.tokenizers import BYTE_VOCAB_SIZE, GPT2_VOCAB_SIZE, canonical_name
from bottleneck_core.errors import UserError


@dataclass(frozen=True)
class TokenFile:
    """An open token file. `tokens`: (N,) integers, mapped; `vocab_size`, `tokenizer`: None where unknown."""

    path: Path
    tokens: np.ndarray
    format: str
    sidecar: dict[str, Any] | None = None
    vocab_size: int | None = None
    tokenizer: str | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of the file: the sidecar's, else computed now."""
        return (self.sidecar or {}).get("sha256") or file_sha256(self.path)


def open_tokens(
    path: str | Path, format: str = "auto", dtype: str = "uint16", vocab_size: int | None = None
) -> TokenFile:
    """Open a token file. `format` auto goes by the suffix; `dtype` is that of a bin file without a sidecar.

    `vocab_size`, where given, takes the place of the sidecar's. Raises UserError when the file is missing,
    empty, or not what its format says.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a token file" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}: make a token file with 'prepare' and give its path as --data")
    if check_format(format) == "auto":
        format = format_by_suffix(path)
    try:
        sidecar = read_sidecar(path)
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty: prepare the token file again")
        tokens = _read(path, format, str((sidecar or {}).get("dtype", dtype)))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): check its permissions") from None
    if len(tokens) == 0:
        raise UserError(f"{path} holds no token ids: prepare the token file again")
    known = sidecar or {}
    return TokenFile(path, tokens, format, sidecar, vocab_size or known.get("vocab_size"), known.get("tokenizer"))


def _read(path: Path, format: str, dtype: str) -> np.ndarray:
    if format == "bin":
        return _map_bin(path, dtype)
    if format == "npy":
        return _map_npy(path)
    return _load_pt(path) if format == "pt" else map_text_ids(path)


def _map_bin(path: Path, name: str) -> np.ndarray:
    try:
        dtype = np.dtype(name)
    except TypeError:
        dtype = None
    if dtype is None or dtype.kind not in "iu":
        raise UserError(
            f"the ids of {path} must be of an integer type, got {name!r}: give --data-dtype uint16 or uint32"
        )
    size = path.stat().st_size
    if size % dtype.itemsize:
        raise UserError(
            f"{path} has {size} bytes, no multiple of the {dtype.itemsize} bytes of {dtype.name}, so the "
            f"last token, at position {size // dtype.itemsize}, is cut: give its real type as --data-dtype"
        )
    return np.memmap(path, dtype=dtype, mode="r")


def _map_npy(path: Path) -> np.ndarray:
    try:
        tokens = np.lib.format.open_memmap(path, mode="r")
    except ValueError:
        raise UserError(
            f"{path} is no readable npy file of numbers: write it with np.save, or give its --data-format"
        ) from None
    return _one_dimensional_integers(path, tokens, str(tokens.dtype), "np.save(path, ids.astype('uint16').ravel())")


def _load_pt(path: Path) -> np.ndarray:
    import torch

    try:
        try:
            loaded = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
        except RuntimeError:  # the file format of torch before 1.6 cannot be mapped
            loaded = torch.load(path, weights_only=True, map_location="cpu")
    except OSError:
        raise
    except Exception as error:  # a broken pickle raises what its bytes happen to spell
        raise UserError(
            f"{path} is no tensor that torch can load safely ({type(error).__name__}): "
            "write it with torch.save(ids, path)"
        ) from None
    fix = "torch.save(ids.to(torch.int32).flatten(), path)"
    if not isinstance(loaded, torch.Tensor):
        raise UserError(f"{path} holds a {type(loaded).__name__}, not a 1-D integer tensor: write it with {fix}")
    if loaded.layout is not torch.strided or loaded.is_quantized:
        raise UserError(f"{path} holds a {loaded.layout} tensor, not a plain one: write it with {fix}")
    if loaded.is_floating_point() or loaded.is_complex():  # bfloat16 among them, which NumPy does not know
        raise UserError(f"{path} holds {loaded.dtype} values where token ids are integers: write it with {fix}")
    return _one_dimensional_integers(path, loaded.detach().numpy(), str(loaded.dtype), fix)


def _one_dimensional_integers(path: Path, tokens: np.ndarray, dtype: str, fix: str) -> np.ndarray:
    if tokens.dtype.kind not in "iu":
        raise UserError(f"{path} holds {dtype} values where token ids are integers: write it with {fix}")
    if tokens.ndim != 1:
        shape = " x ".join(map(str, tokens.shape)) or "a single number"
        raise UserError(f"{path} has the shape {shape} where token ids are one row: write it with {fix}")
    return tokens


def split_sizes(n_tokens: int, val_frac: float) -> tuple[int, int]:
    """Tokens for training (the head) and for validation (the tail, a share of `val_frac`)."""
    n_train = int(n_tokens * (1 - val_frac))
    return n_train, n_tokens - n_train


def check_splits(n_tokens: int, block_size: int, val_frac: float, name: str) -> None:
    """Raise UserError unless both splits hold one block and the token after it."""
    if not 0 < val_frac < 1:
        raise UserError(f"--val-frac must lie between 0 and 1, got {val_frac:g}")
    needed = block_size + 1
    enough = math.ceil(needed / min(val_frac, 1 - val_frac))
    for split, size in zip(("training", "validation"), split_sizes(n_tokens, val_frac), strict=True):
        if size < needed:
            raise UserError(
                f"{name} has {n_tokens} tokens, which leaves {size} for {split} (--val-frac {val_frac:g}) "
                f"where one block of {block_size} needs {needed}: "
                f"give at least {enough} tokens, or a smaller --block"
            )


def check(tokens: TokenFile, block_size: int, vocab_size: int, val_frac: float) -> None:
    """Raise UserError for a file too short for a block in each split, or an id not in 0 .. vocab_size - 1."""
    check_splits(len(tokens), block_size, val_frac, str(tokens.path))
    for start, ids in id_chunks(tokens.tokens):
        if ids.max() < vocab_size and ids.min() >= 0:
            continue
        index = int(np.argmax((ids >= vocab_size) | (ids < 0)))
        where = f"{tokens.path}: token id {int(ids[index])} at position {start + index}"
        if ids[index] < 0:
            raise UserError(f"{where} is negative: token ids count from 0, is --data-dtype the type it was written in?")
        raise UserError(
            f"{where} is outside the vocabulary of {vocab_size} (0 to {vocab_size - 1}): "
            "give the --vocab-size it was made with, and for a bin file without sidecar its --data-dtype"
        )


class Vocabulary(NamedTuple):
    """`size` in ids, the `tokenizer`'s name where known, and a `warning` where the size was guessed."""

    size: int
    tokenizer: str | None
    warning: str | None = None


def resolve_vocab(config_vocab: int | None, tokenfile: TokenFile, tokenizer_flag: str | None) -> Vocabulary:
    """The vocabulary to train with.

    `config_vocab` (--vocab-size), else the sidecar's, else 50,257 for gpt2 and 256 for byte, else the largest
    id of the file + 1, with a warning. `tokenizer_flag`: the flag where it was given explicitly, else None;
    the sidecar's tokenizer wins over its absence. Raises UserError where the two contradict each other.
    """
    flag = None if tokenizer_flag is None else canonical_name(tokenizer_flag)
    known = tokenfile.tokenizer
    if flag is not None and known is not None and flag != known:
        raise UserError(
            f"--tokenizer {tokenizer_flag} contradicts {tokenfile.path}, which was prepared with {known}: "
            f"leave the flag out, or prepare the text again with --tokenizer {flag}"
        )
    tokenizer = known or flag
    fixed = {"gpt2": GPT2_VOCAB_SIZE, "byte": BYTE_VOCAB_SIZE}.get(tokenizer or "")
    if size := config_vocab or tokenfile.vocab_size or fixed:
        return Vocabulary(size, tokenizer)
    size = max(int(ids.max()) for _, ids in id_chunks(tokenfile.tokens)) + 1
    return Vocabulary(
        size,
        tokenizer,
        f"{tokenfile.path} has no sidecar: taking its largest id + 1 = {size} as the vocabulary, "
        "say --vocab-size where that is wrong",
    )
