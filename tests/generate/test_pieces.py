"""Text of growing token sequences: joined pieces are the text, and no piece ends within a character."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bottleneck_core.data.tokenizers import ByteTokenizer, WordTokenizer
from bottleneck_core.generate.pieces import Pieces

BYTES = ByteTokenizer()


def test_a_character_comes_with_its_last_byte() -> None:
    pieces = Pieces(BYTES.decode)
    assert [pieces.add(token) for token in "aé€".encode()] == ["a", "", "é", "", "", "€"]
    assert pieces.rest() == ""


def test_what_is_left_unfinished_is_given_at_the_end() -> None:
    pieces = Pieces(BYTES.decode)
    assert [pieces.add(token) for token in (97, 0xE2, 0x82)] == ["a", "", ""]
    assert pieces.rest() == "\N{REPLACEMENT CHARACTER}" and pieces.rest() == ""


@given(st.binary(max_size=60))
def test_joined_pieces_are_the_text(raw: bytes) -> None:
    """Of any bytes, also those that are no text at all."""
    pieces = Pieces(BYTES.decode)
    joined = "".join([pieces.add(token) for token in raw]) + pieces.rest()
    assert joined == BYTES.decode(raw)


@given(st.text(max_size=30))
def test_text_comes_back(text: str) -> None:
    pieces = Pieces(BYTES.decode)
    ids = BYTES.encode(text)
    assert pieces.extend(ids[:5]) + pieces.extend(ids[5:]) + pieces.rest() == BYTES.decode(ids)


def test_only_what_is_not_whole_is_decoded_again() -> None:
    longest = 0

    def decode(ids) -> str:
        nonlocal longest
        longest = max(longest, len(list(ids)))
        return BYTES.decode(ids)

    Pieces(decode).extend(BYTES.encode("plain é text " * 50))
    assert longest == 2


def test_words_and_ids() -> None:
    words = WordTokenizer(["a", " ", "b"])
    pieces = Pieces(words.decode)
    assert [pieces.add(token) for token in words.encode("a b")] == ["a", " ", "b"]
    assert Pieces(None).extend([3, 14, 15]) == "3 14 15"
