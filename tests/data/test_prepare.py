from __future__ import annotations

import hashlib
import json
import threading
from datetime import datetime
from pathlib import Path

import filelock
import numpy as np
import pytest

from bottleneck_core.data import prepare as module
from bottleneck_core.data import sources
from bottleneck_core.data.prepare import Progress, default_corpus, parse_count, prepare
from bottleneck_core.data.tokenfile import open_tokens
from bottleneck_core.data.tokenizers import load_tokenizer
from bottleneck_core.errors import UserError

TEXTS = {"a.txt": "first text\n", "b.txt": "zweiter Text: é日", "c.md": "third, third", "empty.txt": ""}


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch) -> list[str]:
    """Three texts below the current folder; their contents in the order of the corpus."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for name, text in TEXTS.items():
        (tmp_path / "in" / name).write_text(text)
    return [document.text for document in sources.files(["in/*"]).documents()]


def read(path: Path) -> str:
    opened = open_tokens(path)
    assert opened.sidecar is not None
    return load_tokenizer(opened.sidecar).decode(opened.tokens.tolist())


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("100M", 10**8),
        ("1.5B", 15 * 10**8),
        ("20k", 20_000),
        ("2T", 2 * 10**12),
        ("1_000", 1000),
        (7, 7),
        ("3m", 3 * 10**6),
    ],
)
def test_counts(text: str | int, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "0", "-5", "1.5", "0.0001k", "ten", "5G", "1e6", "١٢", "1 2"])
def test_what_is_no_count_is_named(text: str) -> None:
    with pytest.raises(UserError, match="positive whole number"):
        parse_count(text)


def test_bytes_have_a_newline_between_documents(corpus: list[str]) -> None:
    path = prepare("files", tokenizer="byte", globs=["in/*"])
    assert path == Path("data/files.byte.bin")
    assert read(path) == "\n".join(corpus)


@pytest.mark.parametrize(("tokenizer", "end"), [("word", "<end>"), ("tiktoken", "<|endoftext|>")])
def test_other_tokenizers_have_the_end_token_after_each_document(tokenizer: str, end: str, corpus: list[str]) -> None:
    path = prepare("files", tokenizer=tokenizer, globs=["in/*"])
    assert read(path) == "".join(text + end for text in corpus)


def test_the_sidecar_tells_all_about_the_file(corpus: list[str]) -> None:
    path = prepare("files", tokenizer="gpt2", globs=["in/*"])
    sidecar = json.loads(Path(f"{path}.json").read_text())
    assert datetime.fromisoformat(sidecar.pop("created")).tzinfo is not None
    assert sidecar == {
        "tokens": path.stat().st_size // 2,
        "documents": 3,
        "tokenizer": "gpt2",
        "vocab_size": 50257,
        "end_token": 50256,
        "format": "bin",
        "dtype": "uint16",
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "source": {
            "kind": "files",
            "globs": ["in/*"],
            "files": 4,
            "n_skipped": 0,
            "skipped": [],
            "tokens_asked": None,
        },
    }
    assert {p.name for p in path.parent.iterdir()} == {path.name, f"{path.name}.json", f".{path.name}.lock"}


@pytest.mark.parametrize("tokens", range(1, 46))
def test_it_stops_at_exactly_the_number_asked_for(tokens: int, corpus: list[str]) -> None:
    whole = "\n".join(corpus).encode()
    path = prepare("files", tokenizer="byte", globs=["in/*"], tokens=tokens)
    assert open_tokens(path).tokens.tolist() == list(whole[:tokens])


@pytest.mark.parametrize("format", ["bin", "npy", "text", "pt"])
def test_all_formats_hold_the_same_ids(format: str, corpus: list[str]) -> None:
    expected = open_tokens(prepare("files", tokenizer="gpt2", globs=["in/*"], out="x/expected.bin"))
    path = prepare("files", tokenizer="gpt2", globs=["in/*"], format=format)
    assert path.suffix == {"bin": ".bin", "npy": ".npy", "text": ".txt", "pt": ".pt"}[format]
    opened = open_tokens(path)
    assert opened.tokens.tolist() == expected.tokens.tolist()
    assert opened.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (opened.vocab_size, opened.tokenizer, opened.format) == (50257, "gpt2", format)
    assert not list(path.parent.glob("*.partial*"))


def test_the_suffix_of_out_decides_where_no_format_is_given(corpus: list[str]) -> None:
    assert open_tokens(prepare("files", tokenizer="byte", globs=["in/*"], out="deep/er/x.npy")).format == "npy"


def test_a_wide_vocabulary_takes_four_bytes(tmp_path: Path, monkeypatch) -> None:
    words = [f"w{k}" for k in range(70_000)]
    (tmp_path / "many.txt").write_text(" ".join(words))
    whole_vocabulary = module.WordTokenizer.fit
    monkeypatch.setattr(module.WordTokenizer, "fit", lambda texts: whole_vocabulary(texts, max_vocab=80_000))
    path = prepare("files", tokenizer="word", globs=[str(tmp_path / "many.txt")], out=tmp_path / "many.bin")
    assert open_tokens(path).tokens.dtype == np.uint32
    assert read(path) == " ".join(words) + "<end>"


def test_progress_is_told_after_each_document(corpus: list[str]) -> None:
    told: list[Progress] = []
    prepare("files", tokenizer="byte", globs=["in/*"], tokens="1k", progress=told.append)
    tokens = np.cumsum([len(text.encode()) for text in corpus]) + np.arange(3)
    assert told == [Progress(k + 1, 4, int(tokens[k]), 1000) for k in range(3)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"source": "web"}, "python-stdlib, files, fineweb-edu, got 'web'"),
        ({"source": "files", "globs": ["no/*.txt"]}, "no/"),
        ({"source": "python-stdlib", "globs": ["in/*"]}, "takes no file patterns"),
        ({"source": "fineweb-edu"}, "--tokens 100M"),
        ({"source": "files", "globs": ["in/*"], "tokenizer": "bpe"}, "--tokenizer"),
        ({"source": "files", "globs": ["in/*"], "format": "csv"}, "'csv'"),
        ({"source": "files", "globs": ["in/*"], "out": "x.npy", "format": "bin"}, "name it x.bin"),
        ({"source": "files", "globs": ["in/*"], "out": "in"}, "is a folder"),
        ({"source": "files", "globs": ["in/*"], "out": "in/a.txt/x.bin"}, "cannot be written"),
        ({"source": "files", "globs": ["in/empty.txt"]}, "no text at all"),
    ],
)
def test_mistakes_are_sentences_and_leave_nothing(
    arguments: dict, said: str, corpus: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        prepare(**{"tokenizer": "byte", **arguments})
    assert not [p for p in tmp_path.rglob("*.*") if "partial" in p.name or p.suffix in (".bin", ".npy", ".json")]


def test_an_interrupted_preparation_leaves_the_old_file(corpus: list[str]) -> None:
    path = prepare("files", tokenizer="byte", globs=["in/*"])
    before = path.read_bytes(), Path(f"{path}.json").read_bytes()

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("files", tokenizer="gpt2", globs=["in/*"], out=path, progress=interrupt)
    assert (path.read_bytes(), Path(f"{path}.json").read_bytes()) == before
    assert not list(path.parent.glob("*.partial*"))


def test_two_preparations_of_one_file_do_not_mix(corpus: list[str]) -> None:
    Path("data").mkdir()
    with filelock.FileLock("data/.files.byte.bin.lock"), pytest.raises(UserError, match="another process"):
        prepare("files", tokenizer="byte", globs=["in/*"])
    assert prepare("files", tokenizer="byte", globs=["in/*"]).is_file()


def test_the_default_corpus_is_made_once(tmp_path: Path, monkeypatch) -> None:
    path = default_corpus("byte", root=tmp_path / "data")
    assert path == tmp_path / "data" / "python-stdlib.byte.bin"
    opened = open_tokens(path)
    assert opened.sidecar is not None and opened.sidecar["source"]["kind"] == "python-stdlib"
    assert opened.sidecar["documents"] > 300 and len(opened) > 3_000_000
    assert "def " in load_tokenizer(opened.sidecar).decode(opened.tokens[:20_000].tolist())
    monkeypatch.setattr(sources, "python_stdlib", lambda: pytest.fail("prepared again"))
    assert default_corpus("byte", root=tmp_path / "data") == path


def test_of_two_that_need_the_default_corpus_one_prepares(tmp_path: Path, monkeypatch) -> None:
    """The first is held inside its preparation until the second is at the lock: both saw no file."""
    both_at_the_lock, at_the_lock, prepared = threading.Event(), [], []
    original_lock = module._lock

    def lock(path: Path, timeout: float) -> filelock.FileLock:
        at_the_lock.append(path)
        if len(at_the_lock) == 2:
            both_at_the_lock.set()
        return original_lock(path, timeout)

    def small_library() -> sources.FileSource:
        assert both_at_the_lock.wait(30)
        prepared.append(1)
        (tmp_path / "one.py").write_text("pass")
        return sources.FileSource("python-stdlib", {tmp_path / "one.py": "one.py"}, {})

    monkeypatch.setattr(module, "_lock", lock)
    monkeypatch.setattr(sources, "python_stdlib", small_library)
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(default_corpus("byte", root=tmp_path / "data"))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(paths) == 2 and prepared == [1]
    assert read(paths[0]) == "pass"
