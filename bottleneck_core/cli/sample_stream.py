"""`sample --json-lines`: a prompt continued through several caches at once, told as it happens.

One strict JSON object a line on stdout, flushed at once, in this order: a `start`; `token`s, the columns taking turns;
an `end` after each column's last token; `warning`s in between. docs/formats.md lists their keys. A mistake is one
sentence on stderr and exit code 2, as with every command; a reader that leaves ends the command with the next line.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bottleneck_core.cli.trained import Trained
from bottleneck_core.config import RunConfig
from bottleneck_core.errors import UserError
from bottleneck_core.memory import CachePolicy
from bottleneck_core.memory.policy_text import parse_policy, policy_label

if TYPE_CHECKING:
    from bottleneck_core.generate.sampling import Sampling
    from bottleneck_core.generate.side_by_side import ColumnEnd, DrawnToken

Event = dict[str, Any]
_READING = ("kv_page", "kv_decode_block", "kv_fused")  # they say how a cache is kept and read, not its formats


def policies_asked(text: str | None, settings: RunConfig) -> list[CachePolicy]:
    """The policies of `--policies`, divided by semicolons, else the one of the `--kv-*` flags. Raises UserError."""
    if text is None:
        return [CachePolicy.of(settings)]
    if said := [name for name in settings.given if name.startswith("kv_") and name not in _READING]:
        raise UserError(f"give --policies or --{said[0].replace('_', '-')}, not both")
    return [parse_policy(part) for part in text.split(";")]


def stream(
    trained: Trained,
    prompt: Sequence[int],
    policies: Sequence[CachePolicy],
    settings: RunConfig,
    *,
    sampling: Sampling,
    seed: int,
    stop: Sequence[int],
) -> list[tuple[Event, list[Event], Event]]:
    """Print the events; (start, tokens, end) of each column, for the run's samples. Raises as `side_by_side`."""
    from bottleneck_core.generate import Plan
    from bottleneck_core.generate.pieces import Pieces
    from bottleneck_core.generate.side_by_side import side_by_side

    decode = None if trained.tokenizer is None else trained.tokenizer.decode
    before = [Pieces(decode) for _ in policies]
    shown = [pieces.extend(prompt) for pieces in before]
    start: Event = {
        "type": "start",
        "checkpoint": trained.checkpoint.name,
        "step": trained.step,
        "device": str(trained.device),
        "seed": seed,
        "sampling": asdict(sampling),
        "max_new_tokens": settings.max_new_tokens,
        "policies": [policy_label(policy) for policy in policies],
        "prompt": shown[0],
        "prompt_tokens": list(prompt),
    }
    steps = side_by_side(
        trained.model,
        prompt,
        policies,
        max_new_tokens=settings.max_new_tokens,
        sampling=sampling,
        seed=seed,
        stop=stop,
        plan=Plan(block=settings.kv_decode_block, fused=settings.kv_fused),
        page=settings.kv_page,
    )
    drawn: list[list[Event]] = [[] for _ in policies]
    ends: list[Event] = [{} for _ in policies]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = lambda message, *_, **__: _print({"type": "warning", "message": str(message)})
        _print(start)
        for event in _events(steps, trained, before):
            _print(event)
            if event["type"] == "token":
                drawn[event["column"]].append(event)
            else:
                ends[event["column"]] = event
    return [(start, tokens, end) for tokens, end in zip(drawn, ends, strict=True)]


def _events(steps: Iterator[DrawnToken | ColumnEnd], trained: Trained, columns: Sequence[Any]) -> Iterator[Event]:
    from bottleneck_core.generate.pieces import Pieces
    from bottleneck_core.generate.side_by_side import ColumnEnd

    decode = None if trained.tokenizer is None else trained.tokenizer.decode
    try:
        for step in steps:
            pieces = columns[step.column]
            if isinstance(step, ColumnEnd):
                yield {"type": "end", **asdict(step), "rest": pieces.rest()}
                continue
            top = []
            for token, probability in step.top:
                alone = Pieces(decode)
                text = alone.add(token) + alone.rest()
                top.append({"token": token, "text": text, "probability": probability})
            yield {"type": "token", **asdict(step), "text": pieces.add(step.token), "top": top}
    except ValueError as error:  # a block size that a format cannot have
        raise UserError(str(error)) from None


def _print(event: Event) -> None:
    print(json.dumps(event, allow_nan=False), flush=True)
