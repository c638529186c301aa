"""FineWeb-Edu on a fake `datasets` module in sys.modules, because tests have no network.

Tested is what becomes of the stream, also when the process is killed in the middle of it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import fake_datasets
import numpy as np
import pytest

from bottleneck_core.data import prepare as module
from bottleneck_core.data.prepare import prepare
from bottleneck_core.data.sidecar import read_sidecar
from bottleneck_core.data.tokenfile import open_tokens
from bottleneck_core.data.tokenizers import WordTokenizer, get_tokenizer
from bottleneck_core.errors import UserError

TEXTS = [fake_datasets.text_of(number) for number in range(fake_datasets.N_DOCUMENTS)]


@pytest.fixture(autouse=True)
def rows_read(monkeypatch) -> list[int]:
    """The fake module is in place, states are saved often; the rows that get read."""
    fake, read = fake_datasets.install()
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setattr(module, "SAVE_EVERY_TOKENS", 100)
    monkeypatch.setattr(module, "FIT_DOCUMENTS", 5)
    return read


def kill_at(document: int, tokenizer: str, tokens: int, out: Path, stateful: str) -> None:
    """Start a preparation of its own, and SIGKILL it when it asks for `document`."""
    process = subprocess.Popen(
        [sys.executable, fake_datasets.__file__, str(document), tokenizer, str(tokens), str(out), stateful],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "blocked\n"
        process.kill()
        assert process.wait() == -signal.SIGKILL


def expected_ids(tokenizer: str) -> np.ndarray:
    """All documents by the definition, in plain Python."""
    fitted = WordTokenizer.fit(TEXTS[:5]) if tokenizer == "word" else get_tokenizer(tokenizer)
    if fitted.end_token is None:
        return np.array(fitted.encode("\n".join(TEXTS)))
    return np.array([token for text in TEXTS for token in [*fitted.encode(text), fitted.end_token]])


@pytest.mark.parametrize("tokenizer", ["byte", "word", "gpt2"])
def test_the_stream_gives_exactly_the_tokens_asked_for(tokenizer: str, tmp_path: Path, rows_read: list[int]) -> None:
    path = prepare("fineweb-edu", tokenizer=tokenizer, tokens="0.6k", out=tmp_path / "f.bin")
    opened = open_tokens(path)
    assert opened.tokens.tolist() == expected_ids(tokenizer)[:600].tolist()
    assert opened.sidecar is not None
    assert opened.sidecar["documents"] == rows_read[-1] + 1 < fake_datasets.N_DOCUMENTS  # no more than needed
    assert opened.sidecar["source"] == {
        "kind": "fineweb-edu",
        "dataset": "HuggingFaceFW/fineweb-edu",
        "name": "sample-10BT",
        "split": "train",
        "tokens_asked": 600,
    }


def test_a_stream_that_ends_early_gives_what_it_has(tmp_path: Path) -> None:
    path = prepare("fineweb-edu", tokenizer="gpt2", tokens="1M", out=tmp_path / "f.bin")
    assert open_tokens(path).tokens.tolist() == expected_ids("gpt2").tolist()


@pytest.mark.parametrize(
    ("tokenizer", "tokens", "stateful", "kills"),
    [("byte", 3000, "stateful", [0, 9, 9, 31]), ("word", 900, "counting", [14, 40])],
    ids=["byte", "word"],
)
def test_killed_and_restarted_it_writes_the_same_bytes(
    tokenizer: str, tokens: int, stateful: str, kills: list[int], tmp_path: Path, monkeypatch
) -> None:
    whole = prepare("fineweb-edu", tokenizer=tokenizer, tokens=tokens, out=tmp_path / "whole.bin")
    out = tmp_path / "killed.bin"
    for document in kills:
        kill_at(document, tokenizer, tokens, out, stateful)
        assert not out.exists()
    fake, read = fake_datasets.install(stateful=stateful == "stateful")
    monkeypatch.setitem(sys.modules, "datasets", fake)
    assert prepare("fineweb-edu", tokenizer=tokenizer, tokens=tokens, out=out) == out
    assert out.read_bytes() == whole.read_bytes()
    killed, uninterrupted = read_sidecar(out), read_sidecar(whole)
    assert killed is not None and uninterrupted is not None
    assert {**killed, "created": None} == {**uninterrupted, "created": None}
    if stateful == "stateful":
        assert 20 < min(read) <= 31  # it went on near where it was, not from the beginning
    assert sorted(p.name for p in tmp_path.glob("killed.bin*")) == ["killed.bin", "killed.bin.json"]


@pytest.mark.parametrize("older", [False, True])
def test_a_kill_before_the_last_rename_is_recovered(older: bool, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "f.bin"
    if older:  # a shorter file of the same name stays in place until the new one is complete
        prepare("fineweb-edu", tokenizer="byte", tokens=300, out=out)
    with monkeypatch.context() as context:
        context.setattr(module.PartialTokens, "remove", lambda partial: None)
        original = module.os.replace

        def killed_here(source: Path, target: Path) -> None:
            if str(source).endswith(".partial"):
                raise SystemExit
            original(source, target)

        context.setattr(module.os, "replace", killed_here)
        with pytest.raises(SystemExit):
            prepare("fineweb-edu", tokenizer="byte", tokens=700, out=out)
    if older:
        with pytest.raises(UserError, match="prepare the file again"):
            open_tokens(out)
    assert prepare("fineweb-edu", tokenizer="byte", tokens=700, out=out) == out
    assert open_tokens(out).tokens.tolist() == expected_ids("byte")[:700].tolist()


def test_a_finished_file_is_not_streamed_again(tmp_path: Path, rows_read: list[int]) -> None:
    out = tmp_path / "f.bin"
    prepare("fineweb-edu", tokenizer="byte", tokens=300, out=out)
    rows_read.clear()
    prepare("fineweb-edu", tokenizer="byte", tokens=300, out=out)
    assert rows_read == []
    prepare("fineweb-edu", tokenizer="byte", tokens=301, out=out)
    assert len(open_tokens(out)) == 301


def break_at(document: int, monkeypatch) -> None:
    def fail(number: int) -> None:
        if number == document:
            raise ConnectionError("the line is dead")

    monkeypatch.setitem(sys.modules, "datasets", fake_datasets.install(fail)[0])


def test_a_broken_stream_says_how_to_go_on_and_goes_on_to_more_tokens(tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "f.bin"
    with monkeypatch.context() as context:
        break_at(20, context)
        with pytest.raises(UserError, match=r"after 20 documents .*the line is dead.*same command again"):
            prepare("fineweb-edu", tokenizer="byte", tokens=2500, out=out)
    with pytest.raises(UserError, match="more than the 200 asked for"):
        prepare("fineweb-edu", tokenizer="byte", tokens=200, out=out)
    fake, read = fake_datasets.install()
    monkeypatch.setitem(sys.modules, "datasets", fake)
    prepare("fineweb-edu", tokenizer="byte", tokens=2700, out=out)
    assert open_tokens(out).tokens.tolist() == expected_ids("byte")[:2700].tolist()
    assert 10 < min(read) <= 20


@pytest.mark.parametrize("damage", ["other tokenizer", "half a state", "ids lost"])
def test_a_partial_file_that_does_not_fit_is_begun_again(damage: str, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "f.bin"
    with monkeypatch.context() as context:
        break_at(20, context)
        with pytest.raises(UserError):
            prepare(
                "fineweb-edu",
                tokenizer="gpt2" if damage == "other tokenizer" else "byte",
                tokens=2500,
                out=out,
            )
    state, ids = tmp_path / "f.bin.partial.json", tmp_path / "f.bin.partial"
    if damage == "half a state":
        state.write_bytes(state.read_bytes()[:40])
    if damage == "ids lost":
        ids.write_bytes(ids.read_bytes()[:40])
    prepare("fineweb-edu", tokenizer="byte", tokens=2500, out=out)
    assert open_tokens(out).tokens.tolist() == expected_ids("byte")[:2500].tolist()


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"bottleneck-core\[data\]"):
        prepare("fineweb-edu", tokenizer="byte", tokens=10, out=tmp_path / "f.bin")
