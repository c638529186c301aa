"""Token ids as text, piece by piece: a token may end within a character."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class Pieces:
    """The text of a growing sequence of ids; joined, the pieces are the text of all of them.

    `decode` is a tokenizer's; None where the vocabulary is not at hand: the text is then the ids. What a token leaves
    unfinished comes with the token that finishes it, or with `rest`.
    """

    def __init__(self, decode: Callable[[Iterable[int]], str] | None) -> None:
        self._decode = decode
        self._pending: list[int] = []  # since the text was last whole, so that a long text is not decoded again
        self._given = 0  # characters of the pending ones
        self._first = True

    def add(self, token: int) -> str:
        """The text that `token` makes known; empty where it ends within a character."""
        if self._decode is None:
            piece = str(token) if self._first else f" {token}"
            self._first = False
            return piece
        self._pending.append(token)
        text = self._decode(self._pending)
        whole = text.rstrip(_INCOMPLETE)
        piece = whole[self._given :]
        self._given += len(piece)
        if whole == text:
            self._pending, self._given = [], 0
        return piece

    def extend(self, tokens: Sequence[int]) -> str:
        """The text that these tokens make known."""
        return "".join([self.add(token) for token in tokens])

    def rest(self) -> str:
        """What is left unfinished at the end, as replacement characters."""
        text = self._decode(self._pending)[self._given :] if self._decode and self._pending else ""
        self._pending, self._given = [], 0
        return text
