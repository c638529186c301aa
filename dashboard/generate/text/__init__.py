"""Text coloured by the probability of its tokens, growing as they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamlit.components.v2 import component

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class TokenText:
    """A token as it is shown. What is None is left out of its tooltip.

    `top`: the most likely tokens' texts and probabilities. `delta_log_prob` and `kl` are to the fp16 cache, nats.
    """

    text: str
    probability: float
    rank: int | None = None
    top: Sequence[tuple[str, float]] = ()
    delta_log_prob: float | None = None
    kl: float | None = None


def token_text(
    tokens: Sequence[TokenText],
    *,
    key: str,
    prompt: str = "",
    rest: str = "",
    differs_at: int | None = None,
    running: bool = False,
) -> None:
    """Shows `prompt`, then `tokens` in their colours, then `rest`. `differs_at` marks one token; all is plain text.

    With the same `key`, prompt and first tokens, only what is new is drawn.
    """
    data = {
        "prompt": prompt,
        "tokens": [
            [
                token.text,
                round(token.probability, 5),
                token.rank,
                [part for text, share in token.top for part in (text, round(share, 5))],
                token.delta_log_prob and round(token.delta_log_prob, 5),
                None if token.kl is None else float(f"{token.kl:.3g}"),
            ]
            for token in tokens
        ],
        "rest": rest,
        "differs": differs_at,
        "running": running,
    }
    _mount(key, data)


def probability_legend(key: str, *, difference: bool = False) -> None:
    """What the colours mean; `difference`: and the mark of the first difference."""
    _mount(key, {"legend": True, "difference": difference})


def _mount(key: str, data: dict[str, Any]) -> None:
    _component()(key=key, data=data, height="content")


@cache
def _component() -> ComponentRenderer:
    return component(
        "bottleneck_token_text",
        js=(_HERE / "tokens.js").read_text(encoding="utf-8"),
        css=(_HERE / "tokens.css").read_text(encoding="utf-8"),
    )
