from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bottleneck_core.data import formats, textids
from bottleneck_core.data.tokenfile import TokenFile, check, open_tokens, resolve_vocab, split_sizes
from bottleneck_core.errors import UserError

IDS = np.array([5, 0, 65535, 7, 50256], dtype=np.uint16)


def write(path: Path, ids: np.ndarray = IDS) -> Path:
    if path.suffix == ".npy":
        np.save(path, ids)
    elif path.suffix == ".pt":
        torch.save(torch.from_numpy(ids), path)
    elif path.suffix == ".bin":
        ids.tofile(path)
    else:
        path.write_text(" ".join(map(str, ids.tolist())))
    return path


def refusal(path: Path, **options) -> str:
    """The sentence with which opening and checking a file fails: one line, naming the file."""
    with pytest.raises(UserError) as caught:
        check(open_tokens(path, **options), block_size=1, vocab_size=65536, val_frac=0.5)
    sentence = str(caught.value)
    assert str(path) in sentence and "\n" not in sentence
    return sentence


@pytest.mark.parametrize("name", ["a.bin", "a.npy", "a.pt", "a.txt", "a.tokens", "noending"])
def test_every_format_opens_by_its_suffix(name: str, tmp_path: Path) -> None:
    opened = open_tokens(write(tmp_path / name))
    assert opened.tokens.tolist() == IDS.tolist() and len(opened) == 5
    assert (opened.sidecar, opened.vocab_size, opened.tokenizer) == (None, None, None)
    assert opened.tokens.ndim == 1
    if not name.endswith(".pt"):
        assert isinstance(opened.tokens, np.memmap)


def test_a_format_given_explicitly_beats_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "ids.dat").write_bytes(IDS.astype(np.uint32).tobytes())
    assert open_tokens(tmp_path / "ids.dat", format="bin", dtype="uint32").tokens.tolist() == IDS.tolist()
    assert "auto, text, npy, bin, pt" in _error(lambda: open_tokens(tmp_path / "ids.dat", format="csv"))


def test_a_file_larger_than_memory_opens(tmp_path: Path) -> None:
    path = tmp_path / "huge.bin"
    path.touch()
    os.truncate(path, 200 << 30)  # 200 GiB without a block on disk
    opened = open_tokens(path)
    assert len(opened) == 100 << 30
    assert opened.tokens[-3:].tolist() == [0, 0, 0]


def test_the_hash_is_the_sidecars_else_computed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.bin")
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert open_tokens(path).sha256 == expected
    _sidecar(path, sha256="told")
    assert open_tokens(path).sha256 == "told"


# Text files

moments = itertools.count()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=60),
    st.integers(1, 40),
    st.randoms(use_true_random=False),
)
def test_text_parses_whatever_the_white_space_and_the_chunks(ids: list[int], chunk: int, random: random.Random) -> None:
    def gap() -> str:
        return "".join(random.choice(" \n\t\r\v\f") for _ in range(random.randint(1, 6)))

    text = gap() + "".join(str(token) + gap() for token in ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textids, "_CHUNK_BYTES", chunk)
        path = Path(os.environ["XDG_CACHE_HOME"]) / "ids.txt"
        for content in (text, text.strip()):
            path.write_text(content, newline="")
            os.utime(path, ns=(0, next(moments)))  # one path and size, never one time: never the cached copy
            assert open_tokens(path).tokens.tolist() == ids


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("position", [0, 1, 25, 49])
@pytest.mark.parametrize("bad", ["abc", "1.5", "7,8", "-4", "4294967296", "99999999999999999999999", "1_0", "+1", "é"])
def test_a_bad_token_is_named_with_its_place(bad: str, position: int, chunk: int, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(textids, "_CHUNK_BYTES", chunk)
    tokens = [str(k) for k in range(50)]
    tokens[position] = bad
    path = tmp_path / "ids.txt"
    path.write_text("\n".join(" ".join(tokens[k : k + 10]) for k in range(0, 50, 10)))
    sentence = refusal(path)
    assert f"{bad!r} at position {position} (line {position // 10 + 1})" in sentence
    assert ("negative" if bad == "-4" else "no token id") in sentence


def test_text_itself_points_to_prepare(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("It was a dark night.")
    assert "'It' at position 0 (line 1)" in (sentence := refusal(tmp_path / "book.txt"))
    assert f"prepare files {tmp_path / 'book.txt'}" in sentence


def test_endless_characters_without_white_space_do_not_pile_up(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(textids, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(textids, "_LONGEST_TOKEN", 1000)
    (tmp_path / "one.txt").write_text("1 2\n" + "7" * 100_000)
    refuse, held = textids._refuse, []
    monkeypatch.setattr(
        textids, "_refuse", lambda path, chunk, *place: held.append(len(chunk)) or refuse(path, chunk, *place)
    )
    sentence = refusal(tmp_path / "one.txt")
    assert f"'{'7' * 40}…' at position 2 (line 2)" in sentence
    assert held[0] < 3000  # of the 100,000 bytes that a larger file would have more of


def test_text_is_parsed_once_and_again_when_it_changes(tmp_path: Path, private_cache: Path, monkeypatch) -> None:
    path = write(tmp_path / "a.txt")
    parse, parsed = textids._parse, []
    monkeypatch.setattr(textids, "_parse", lambda path: parsed.append(path) or parse(path))
    for _ in range(3):
        assert open_tokens(path).tokens.tolist() == IDS.tolist()
    assert len(parsed) == 1
    path.write_text("1 2 3 4 5")
    assert open_tokens(path).tokens.tolist() == [1, 2, 3, 4, 5]
    path.write_text("1 2 3 4 6")
    os.utime(path, ns=(0, 12345))  # the same size, another time
    assert open_tokens(path).tokens.tolist() == [1, 2, 3, 4, 6]
    assert len(parsed) == 3
    assert len(list((private_cache / "bottleneck_core" / "tokens").glob("*.bin"))) == 1  # older copies are dropped


def test_a_refused_text_leaves_no_half_parsed_copy(tmp_path: Path, private_cache: Path, monkeypatch) -> None:
    monkeypatch.setattr(textids, "_CHUNK_BYTES", 4)
    (tmp_path / "a.txt").write_text("1 2 3 4 5 6 7 x")
    for _ in range(2):
        assert "'x' at position 7" in refusal(tmp_path / "a.txt")
    assert not list((private_cache / "bottleneck_core" / "tokens").glob("*bin*"))


# What is refused


def test_a_missing_file_or_a_folder_is_named(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "no.bin")
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["a.bin", "a.npy", "a.pt", "a.txt"])
def test_an_empty_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    assert "is empty" in refusal(tmp_path / name)
    if name != "a.bin":
        assert "no token ids" in refusal(write(tmp_path / name, np.array([], dtype=np.int64))) or name == "a.txt"
    (tmp_path / "blank.txt").write_text(" \n ")
    assert "no token ids" in refusal(tmp_path / "blank.txt")


def test_a_bin_file_of_another_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"12345")
    sentence = refusal(path)
    assert "5 bytes" in sentence and "uint16" in sentence and "position 2" in sentence and "--data-dtype" in sentence
    assert "'float32'" in refusal(path, dtype="float32")
    assert "'nonsense'" in refusal(path, dtype="nonsense")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros(4, np.float32), "float32"),
        (np.zeros(4, bool), "bool"),
        (np.zeros((2, 3), np.int64), "2 x 3"),
        (np.array(3), "a single number"),
        (np.array([{}, 1]), "no readable npy"),
    ],
)
def test_an_npy_that_is_no_row_of_integers_is_refused(array: np.ndarray, said: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    assert said in refusal(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (torch.zeros(4), "torch.float32"),
        (torch.zeros(4, dtype=torch.bfloat16), "torch.bfloat16"),
        (torch.zeros(4, dtype=torch.bool), "torch.bool"),
        (torch.zeros(2, 3, dtype=torch.int64), "2 x 3"),
        ({"tokens": torch.zeros(4, dtype=torch.int64)}, "a dict"),
        (torch.zeros(4, dtype=torch.int64).to_sparse(), "sparse"),
        (Path("code"), "load safely"),
    ],
    ids=str,
)
def test_a_pt_that_is_no_row_of_integers_is_refused(thing, said: str, tmp_path: Path) -> None:
    torch.save(thing, tmp_path / "a.pt")
    assert said in refusal(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["a.npy", "a.pt"])
@pytest.mark.parametrize("content", [b"plain text", b"PK\x03\x04 half a zip", b"\x93NUMPY\x01\x00", b"\x80\x04K\x01."])
def test_broken_content_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    refusal(tmp_path / name)


def test_pt_files_of_all_kinds_load(tmp_path: Path) -> None:
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64, torch.uint16):
        torch.save(torch.arange(9).to(dtype), tmp_path / "a.pt")
        assert open_tokens(tmp_path / "a.pt").tokens.tolist() == list(range(9))
    torch.save(torch.arange(9), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert open_tokens(tmp_path / "old.pt").tokens.tolist() == list(range(9))


@pytest.mark.parametrize("name", ["a.bin", "a.npy", "a.pt", "a.txt"])
def test_an_id_outside_the_vocabulary_is_named(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(formats, "_CHUNK", 8)
    ids = np.arange(100, dtype=np.uint16)
    ids[61], ids[70] = 300, 400
    opened = open_tokens(write(tmp_path / name, ids))
    sentence = _error(lambda: check(opened, block_size=4, vocab_size=256, val_frac=0.1))
    assert f"{tmp_path / name}: token id 300 at position 61 is outside the vocabulary of 256" in sentence
    assert "--vocab-size" in sentence
    check(opened, block_size=4, vocab_size=401, val_frac=0.1)
    assert "400 at position 70" in _error(lambda: check(opened, block_size=4, vocab_size=400, val_frac=0.1))


@pytest.mark.parametrize("name", ["a.npy", "a.pt"])
def test_a_negative_id_is_named(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, np.array([3, 2, -7, 1]))
    assert "token id -7 at position 2 is negative" in refusal(path)


@pytest.mark.parametrize(("n", "val_frac"), [(100_002_129, 0.1), (100_000_000, 0.1), (10, 0.5), (7, 0.3)])
def test_splits_are_the_head_and_the_tail(n: int, val_frac: float) -> None:
    train, val = split_sizes(n, val_frac)
    assert train + val == n and abs(val - n * val_frac) <= 1
    if n == 100_002_129:
        assert (train, val) == (90_001_916, 10_000_213)  # as older runs recorded it


@pytest.mark.parametrize(("n", "split"), [(80, "validation"), (16, "validation"), (1, "training")])
def test_a_file_too_short_for_one_block_says_what_is_needed(n: int, split: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.bin", np.zeros(n, np.uint16))
    sentence = _error(lambda: check(open_tokens(path), block_size=8, vocab_size=1, val_frac=0.1))
    assert f"{path} has {n} tokens" in sentence and f"for {split}" in sentence and "needs 9" in sentence
    assert "at least 90 tokens" in sentence
    check(open_tokens(write(path, np.zeros(90, np.uint16))), block_size=8, vocab_size=1, val_frac=0.1)
    sentence = _error(lambda: check(open_tokens(path), block_size=50, vocab_size=1, val_frac=0.6))
    assert "for training" in sentence and "at least 128" in sentence


# Sidecar and vocabulary


def test_the_sidecar_says_what_the_ids_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.bin", IDS.astype(np.uint32))
    _sidecar(path, dtype="uint32", tokenizer="gpt2", vocab_size=50257)
    opened = open_tokens(path)
    assert opened.tokens.tolist() == IDS.tolist()  # and not as uint16, the default for a file without one
    assert (opened.tokenizer, opened.vocab_size) == ("gpt2", 50257)
    assert open_tokens(path, vocab_size=60000).vocab_size == 60000


def test_a_sidecar_of_another_file_is_refused_and_another_json_ignored(tmp_path: Path) -> None:
    path = write(tmp_path / "a.bin")
    _sidecar(path, bytes=8)
    assert "10 bytes" in refusal(path)
    Path(f"{path}.json").write_text("[1, 2]")
    assert open_tokens(path).sidecar is None
    Path(f"{path}.json").write_text("{half")
    assert "a.bin.json" in refusal(path)


def _opened(vocab_size: int | None = None, tokenizer: str | None = None) -> TokenFile:
    return TokenFile(Path("x.bin"), np.array([4, 99, 7]), "bin", None, vocab_size, tokenizer)


@pytest.mark.parametrize(
    ("config", "opened", "flag", "size", "tokenizer"),
    [
        (60000, _opened(50257, "gpt2"), None, 60000, "gpt2"),
        (None, _opened(1234, "word"), None, 1234, "word"),
        (None, _opened(1234, "word"), "word", 1234, "word"),
        (None, _opened(50257, "gpt2"), "tiktoken", 50257, "gpt2"),
        (None, _opened(), "tiktoken", 50257, "gpt2"),
        (None, _opened(), "byte", 256, "byte"),
        (128, _opened(), None, 128, None),
    ],
)
def test_where_the_vocabulary_comes_from(config, opened: TokenFile, flag, size: int, tokenizer) -> None:
    assert resolve_vocab(config, opened, flag) == (size, tokenizer, None)


@pytest.mark.parametrize("flag", [None, "word"])
def test_without_any_hint_it_is_guessed_with_a_warning(flag: str | None) -> None:
    size, tokenizer, warning = resolve_vocab(None, _opened(), flag)
    assert (size, tokenizer) == (100, flag)
    assert warning is not None and "100" in warning and "--vocab-size" in warning


def test_a_tokenizer_that_contradicts_the_sidecar_is_refused() -> None:
    sentence = _error(lambda: resolve_vocab(None, _opened(256, "byte"), "tiktoken"))
    assert "--tokenizer tiktoken" in sentence and "byte" in sentence and "x.bin" in sentence


def _error(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


def _sidecar(path: Path, **entries) -> None:
    Path(f"{path}.json").write_text(json.dumps({"tokens": 5, "tokenizer": "byte", **entries}))
