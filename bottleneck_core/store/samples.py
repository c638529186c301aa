"""samples.jsonl: texts that were sampled from a run, one JSON object a line; docs/formats.md lists its keys.

`sample` appends to it, and so does the dashboard where its reader keeps a text. The writer is strict; the reader takes
what it finds and says what is wrong with the rest.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bottleneck_core.store.faults import Faults

_MOST_BYTES = 8 << 20  # that are read, from the end
_KEYS = ("time", "checkpoint", "step", "seed", "sampling", "policy", "samples")


@dataclass(frozen=True, kw_only=True)
class KeptSample:
    """One text of the file. What the line does not say is None; `time` is ISO 8601.

    `pieces` are the tokens' texts and `probabilities` theirs, equally many, where the line has both; `text` goes on
    after `prompt`.
    """

    time: str | None
    checkpoint: str | None
    step: int | None
    policy: str | None
    seed: int | None
    temperature: float | None
    seconds: float | None
    cache_bytes: int | None
    prompt: str
    text: str
    pieces: tuple[str, ...] | None
    probabilities: tuple[float, ...] | None


def sample_record(
    start: Mapping[str, Any], tokens: Sequence[Mapping[str, Any]], end: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The line of one column of `sample --json-lines`, from its events; without an end it was stopped before.

    Raises ValueError without a token: there is nothing to keep.
    """
    if not tokens:
        raise ValueError("a column without tokens is no sample")
    last = tokens[-1]
    pieces = [str(token["text"]) for token in tokens]
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        **{key: start[key] for key in ("checkpoint", "step", "seed", "sampling", "device")},
        "policy": start["policies"][last["column"]],
        "new_tokens": len(tokens),
        "seconds": round(last["seconds"], 3),
        "cache": {"allocated_bytes": last["cache_bytes"]},
        "reason": end["reason"] if end else "interrupted",
        "samples": [
            {
                "prompt": start["prompt"],
                "prompt_tokens": start["prompt_tokens"],
                "tokens": [token["token"] for token in tokens],
                "text": "".join([start["prompt"], *pieces, end["rest"] if end else ""]),
                "pieces": pieces,
                "probabilities": [round(token["probability"], 6) for token in tokens],
            }
        ],
    }


def append_sample(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Add one line, in one write. A half-written last line stays a line of its own.

    Raises ValueError for a record that lacks a key or is not strict JSON, OSError where the file cannot be written.
    """
    if missing := [key for key in _KEYS if key not in record]:
        raise ValueError(f"a sample needs {missing[0]}")
    line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8", errors="replace") + b"\n"
    with open(path, "ab+", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = b"\n" + line
        file.write(line)


def read_samples(path: str | os.PathLike[str]) -> tuple[list[KeptSample], list[str]]:
    """The texts in the file's order, of a very long file the last ones; and a sentence for each thing wrong."""
    path, faults = Path(path), Faults("samples.jsonl")
    try:
        with open(path, "rb") as file:
            skipped = max(file.seek(0, os.SEEK_END) - _MOST_BYTES, 0)
            file.seek(skipped)
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"samples.jsonl cannot be read: {error.strerror}"]
    found: list[KeptSample] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (skipped and number == 1):
            continue
        try:
            record = json.loads(line.decode("utf-8", errors="replace"))
        except (ValueError, RecursionError):
            faults.add("is not JSON, left out", number)
            continue
        texts = record.get("samples") if isinstance(record, dict) else None
        if not isinstance(texts, list):
            faults.add("has no samples, left out", number)
            continue
        found += [_kept(record, text) for text in texts if isinstance(text, dict)]
    sentences = faults.sentences()
    if skipped:  # lines then have no numbers that mean anything to a reader
        sentences = [f"samples.jsonl: only its last {_MOST_BYTES >> 20} MiB are shown"]
    return found, sentences


def _kept(record: Mapping[str, Any], sample: Mapping[str, Any]) -> KeptSample:
    prompt, whole = _text(sample.get("prompt")) or "", _text(sample.get("text")) or ""
    pieces, probabilities = sample.get("pieces"), sample.get("probabilities")
    coloured = isinstance(pieces, list) and isinstance(probabilities, list) and len(pieces) == len(probabilities)
    sampling, cache = record.get("sampling"), record.get("cache")
    return KeptSample(
        time=_text(record.get("time")),
        checkpoint=_text(record.get("checkpoint")),
        step=_whole(record.get("step")),
        policy=_text(record.get("policy")),
        seed=_whole(record.get("seed")),
        temperature=_number(sampling.get("temperature") if isinstance(sampling, dict) else None),
        seconds=_number(record.get("seconds")),
        cache_bytes=_whole(cache.get("allocated_bytes") if isinstance(cache, dict) else None),
        prompt=prompt,
        text=whole.removeprefix(prompt),
        pieces=tuple(_text(piece) or "" for piece in pieces or ()) if coloured else None,
        probabilities=tuple(map(_probability, probabilities or ())) if coloured else None,
    )


def _text(value: Any) -> str | None:
    """Text that can be sent on: JSON can spell half of a surrogate pair."""
    return value.encode("utf-8", errors="replace").decode() if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def _probability(value: Any) -> float:
    return min(max(_number(value) or 0.0, 0.0), 1.0)


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None or abs(number) > 2**53 else int(number)
