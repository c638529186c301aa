"""What a generation has drawn: a column for each policy, speed and size above its text."""

from __future__ import annotations

import streamlit as st

from bottleneck_core.figures import numbers
from dashboard.generate.text import TokenText, probability_legend, token_text
from dashboard.generate.worker import Column, Generation
from dashboard.markdown import escaped

_KL = (
    "Mean KL divergence from the fp16 cache's prediction to this one's, nats a token, over the tokens before which "
    "both texts are the same. 0: the cache changes nothing."
)


def columns(generation: Generation) -> None:
    """Draws all columns as they are now."""
    # A place of their own: one that comes late must not move the texts, which would be drawn anew.
    with st.container():
        if generation.error:
            st.error(escaped(generation.error))
        for warning in generation.warnings:
            st.warning(escaped(f"{warning[:1].upper()}{warning[1:]}."))
    if generation.start is None:
        if generation.running:
            st.info("Loading the checkpoint.", icon=":material/hourglass_top:")
        return
    start = generation.start
    count = len(generation.columns)
    probability_legend("generate/legend", difference=count > 1)
    for number, (column, place) in enumerate(zip(generation.columns, st.columns(count, gap="medium"), strict=True)):
        with place:
            st.markdown(f"**{escaped(column.policy)}**")
            with st.container(horizontal=True, gap="medium"):
                for label, value, hint in measures(column, number):
                    st.metric(label, value, help=hint, width="content")
            token_text(
                shown(column),
                key=f"generate/text/{number}",
                prompt=start["prompt"],
                rest=column.end["rest"] if column.end else "",
                differs_at=column.differs_at,
                running=generation.running and column.end is None,
            )
            st.caption(ended(column, generation))


def measures(column: Column, number: int) -> list[tuple[str, str, str]]:
    """(label, value, hint) of a column; the first one has nothing to differ from."""
    size = column.tokens[-1]["cache_bytes"] if column.tokens else None
    found = [
        ("tok/s", numbers.rate(column.tok_s), "Decoding steps a second, the prompt and the statistics taken out."),
        ("KV cache", numbers.size(size), f"Allocated, in whole pages: {numbers.exact_size(size)}."),
    ]
    if number:
        at = column.differs_at
        value = "nowhere" if at is None else f"token {at + 1:,}"
        found.append(("first differs", value, "The first token that is not the first column's, counted from 1."))
    if column.policy != "fp16":
        kl = column.kl
        found.append(("KL to fp16", numbers.scalar(sum(kl) / len(kl) if kl else None), _KL))
    return found


def shown(column: Column) -> list[TokenText]:
    """The tokens as the browser gets them."""
    return [
        TokenText(
            text=token["text"],
            probability=token["probability"],
            rank=token["rank"],
            top=[(other["text"], other["probability"]) for other in token["top"]],
            delta_log_prob=token["delta_log_prob"] if column.policy != "fp16" else None,
            kl=token["kl"] if column.policy != "fp16" else None,
        )
        for token in list(column.tokens)
    ]


def ended(column: Column, generation: Generation) -> str:
    """How far the column is, in words."""
    count = f"{len(column.tokens):,} of {generation.request.tokens:,} tokens"
    start = generation.start or {}
    prompt = f"prompt of {len(start.get('prompt_tokens', ())):,} tokens"
    if column.end:
        why = "ended by the text's end token" if column.end["reason"] == "stop" else None
        return " · ".join(filter(None, (count, why, prompt, f"read in {column.end['prompt_seconds']:.2f} s")))
    return " · ".join((count, prompt, "going on" if generation.running else "stopped"))
