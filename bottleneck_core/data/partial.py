"""A token file in the making: ids appended to `<file>.partial`, and a state to go on from after a kill.

`<file>.partial.json` says how many documents and tokens of `<file>.partial` are surely on disk. The order
makes it true at any moment: ids are synced first, then the state is replaced. What a killed writer left
behind the recorded tokens is cut off, and the same documents give the same bytes again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from bottleneck_core.errors import UserError
from bottleneck_core.store.atomic import atomic_write_text


class PartialTokens:
    """Append-only ids on disk, at most `limit` of them. Use as a context manager: leaving it closes the file.

    `request` identifies what is being written (source, tokenizer): only a state of the same request is gone
    on from.
    """

    def __init__(self, token_file: Path, request: Mapping[str, Any], limit: int | None) -> None:
        self.path = token_file.with_name(token_file.name + ".partial")
        self.state_path = token_file.with_name(token_file.name + ".partial.json")
        self.request = dict(request)
        self.limit = limit
        self.tokens = 0
        self.documents = 0
        self.position: dict[str, Any] | None = None  # the source's own note of where it stands
        self.vocabulary: dict[str, Any] | None = None  # set once, by `start`, or read from the state
        self._saved_tokens = 0
        self._file: BinaryIO | None = None
        self._dtype = np.dtype(np.uint16)

    def restore(self) -> bool:
        """Take up a killed writer's state of this request, if there is one. UserError beyond the limit."""
        try:
            state = json.loads(self.state_path.read_bytes())
            itemsize = np.dtype(state["dtype"]).itemsize
            whole = self.path.stat().st_size >= state["tokens"] * itemsize
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if not whole or state.get("request") != self.request:
            return False
        if self.limit is not None and state["tokens"] > self.limit:
            raise UserError(
                f"{self.path} already holds {state['tokens']:,} tokens, more than the {self.limit:,} "
                "asked for: ask for at least as many, or delete it to begin again"
            )
        self.tokens = self._saved_tokens = state["tokens"]
        self.documents = state["documents"]
        self.position = state["position"]
        self.vocabulary = state["vocabulary"]
        return True

    def start(self, vocabulary: Mapping[str, Any], dtype: np.dtype) -> PartialTokens:
        """Open the file behind the restored tokens, or empty. `vocabulary`: sidecar keys of the tokenizer."""
        self.vocabulary, self._dtype = dict(vocabulary), dtype
        if self.tokens == 0:
            self.state_path.unlink(missing_ok=True)  # of another request: it must not outlive its ids
        self._file = open(self.path, "r+b" if self.tokens else "wb")  # noqa: SIM115  (__exit__ closes it)
        self._file.truncate(self.tokens * dtype.itemsize)
        self._file.seek(0, os.SEEK_END)
        return self

    def __enter__(self) -> PartialTokens:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return self.limit is not None and self.tokens >= self.limit

    @property
    def unsaved_tokens(self) -> int:
        """Tokens that a kill at this moment would cost."""
        return self.tokens - self._saved_tokens

    def append(self, ids: np.ndarray) -> None:
        """Write ids behind the others; what goes beyond the limit is dropped."""
        assert self._file is not None, "start first"
        if self.limit is not None:
            ids = ids[: self.limit - self.tokens]
        self._file.write(ids.astype(self._dtype, copy=False).tobytes())
        self.tokens += len(ids)

    def save(self, position: dict[str, Any] | None) -> None:
        """Record that all documents counted so far are on disk. `position`: where the source stands now."""
        self.sync()
        state = {
            "request": self.request,
            "tokens": self.tokens,
            "documents": self.documents,
            "position": position,
            "dtype": self._dtype.name,
            "vocabulary": self.vocabulary,
        }
        atomic_write_text(self.state_path, json.dumps(state))
        self._saved_tokens = self.tokens

    def sync(self) -> None:
        """Force the ids written so far to the disk."""
        assert self._file is not None, "start first"
        self._file.flush()
        os.fsync(self._file.fileno())

    def mapped(self) -> np.ndarray:
        """All ids as an array mapped from the file."""
        return np.memmap(self.path, dtype=self._dtype, mode="r")

    def remove(self) -> None:
        """Delete the file, where it was not renamed away, and the state."""
        self.path.unlink(missing_ok=True)
        self.state_path.unlink(missing_ok=True)
