"""samples.jsonl: what is written comes back, and nothing that lies there stops the reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bottleneck_core.store import samples
from bottleneck_core.store.samples import append_sample, read_samples, sample_record

START = {
    "checkpoint": "best.pt",
    "step": 600,
    "seed": 7,
    "device": "cpu",
    "sampling": {"temperature": 0.8, "top_k": None, "top_p": 1.0},
    "policies": ["fp16", "q8_0,residual=0"],
    "prompt": "The ",
    "prompt_tokens": [84],
}


def token(text: str, probability: float = 0.25, column: int = 1) -> dict[str, Any]:
    return {
        "column": column,
        "token": 65,
        "text": text,
        "probability": probability,
        "seconds": 0.5,
        "cache_bytes": 4096,
    }


def record(*texts: str) -> dict[str, Any]:
    return sample_record(START, [token(text) for text in texts], {"reason": "length", "rest": "!"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples.jsonl"


def test_what_is_kept_comes_back(path: Path) -> None:
    append_sample(path, record("é\n", "<b>"))
    append_sample(path, record("two"))
    kept, faults = read_samples(path)
    assert faults == [] and [sample.text for sample in kept] == ["é\n<b>!", "two!"]
    first = kept[0]
    assert (first.prompt, first.policy, first.checkpoint, first.step) == ("The ", "q8_0,residual=0", "best.pt", 600)
    assert (first.seed, first.temperature, first.cache_bytes, first.seconds) == (7, 0.8, 4096, 0.5)
    assert first.pieces == ("é\n", "<b>") and first.probabilities == (0.25, 0.25)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2


def test_a_column_that_was_stopped_is_kept_as_far_as_it_came() -> None:
    line = sample_record(START, [token("a")], None)
    assert line["reason"] == "interrupted" and line["samples"][0]["text"] == "The a"
    with pytest.raises(ValueError, match="no sample"):
        sample_record(START, [], None)


def test_the_writer_is_strict(path: Path) -> None:
    with pytest.raises(ValueError, match="policy"):
        append_sample(path, {key: value for key, value in record("a").items() if key != "policy"})
    with pytest.raises(ValueError, match="JSON"):
        append_sample(path, record("a") | {"seconds": float("nan")})
    assert not path.exists() or path.read_bytes() == b""


def test_a_half_written_line_harms_no_other(path: Path) -> None:
    append_sample(path, record("one"))
    with open(path, "ab") as file:
        file.write(b'{"samples": [{"te')
    append_sample(path, record("two"))
    kept, faults = read_samples(path)
    assert [sample.text for sample in kept] == ["one!", "two!"]
    assert faults == ["samples.jsonl line 2: is not JSON, left out"]


def test_what_is_no_sample_is_said_and_left_out(path: Path) -> None:
    path.write_bytes(b'\xff\xfe\n[1]\n{"samples": 3}\n\n{"samples": [1, {"text": 5}, {}]}\n{"a": NaN}\n')
    kept, faults = read_samples(path)
    assert len(kept) == 2 and all((sample.text, sample.prompt, sample.pieces) == ("", "", None) for sample in kept)
    assert faults == [
        "samples.jsonl line 1: is not JSON, left out",
        "samples.jsonl lines 2 to 6 (3 times): has no samples, left out",
    ]
    assert read_samples(path.parent / "absent.jsonl") == ([], [])
    assert read_samples(path.parent)[1] == ["samples.jsonl cannot be read: Is a directory"]


@pytest.mark.parametrize("value", [float("inf"), "text", True, None, [1], {"a": 1}, 10**400, -5])
def test_no_value_stops_the_reader(path: Path, value: Any) -> None:
    names = ("time", "checkpoint", "step", "seed", "sampling", "policy", "seconds", "cache")
    texts = [{name: value for name in ("prompt", "text", "pieces", "probabilities")}]
    texts.append({"text": "x", "pieces": [value, "a"], "probabilities": ["no", value]})
    path.write_text(json.dumps(dict.fromkeys(names, value) | {"samples": texts}) + "\n")
    kept, faults = read_samples(path)
    assert len(kept) == 2 and faults == []
    assert kept[1].probabilities is not None and all(0 <= share <= 1 for share in kept[1].probabilities)


def test_half_characters_become_question_marks(path: Path) -> None:
    """JSON can spell half of a surrogate pair, which no browser can be sent."""
    path.write_text('{"samples": [{"prompt": "\\ud800", "text": "\\ud800a\\udfff"}]}\n')
    assert read_samples(path)[0][0].text == "a?"
    append_sample(path, record("\ud800"))
    assert read_samples(path)[0][1].text == "?!"


def test_of_a_long_file_the_end_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in "abcdef":
        append_sample(path, record(text))
    monkeypatch.setattr(samples, "_MOST_BYTES", int(path.stat().st_size * 0.6))
    kept, faults = read_samples(path)
    assert [sample.text for sample in kept] == ["d!", "e!", "f!"]
    assert len(faults) == 1 and "only its last" in faults[0]
