"""What the Generate page asks: run and checkpoint, prompt, sampling, cache policies. All of it is in the address."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

import bottleneck_core as bc
from bottleneck_core.memory import PACKABLE
from bottleneck_core.memory.policy_text import parse_policy, policy_label
from bottleneck_core.store.layout import RunPaths
from dashboard.compare.runs import tokens_of
from dashboard.markdown import escaped
from dashboard.state import Row

RUN = "run"
MOST_TOKENS = 2_000  # of one column: each update sends all of them
MOST_CHARACTERS = 20_000
_COLUMNS = ("cache", "cache2", "cache3")
_DEFAULTS = ("fp16", "q4_0,residual=0", None)
# Without a window of fp16 rows, which hides what a format costs a short text.
_PLAIN = ("fp16", "q8_0,residual=0", "q4_0,residual=0", "fp8,residual=0", "q5_0,residual=0", "nf4,residual=0")
_SPLIT = ("k=q8_0,v=q4_0,residual=0", "k=q4_0,v=q8_0,residual=0")
_SPLIT_DECOUPLED = ("k_sem=q4_0,k_geo=q8_0,v=q8_0,residual=0", "k_sem=q8_0,k_geo=q8_0,v=q4_0,residual=0")
_WINDOWED = ("q4_0,residual=0,hadamard", "q4_0,residual=32", "q4_0")


def checkpoints(row: Row) -> dict[str, Path]:
    """The checkpoints that a run has: `best`, `last`."""
    paths = RunPaths(row["path"])
    return {name: path for name, path in (("best", paths.best), ("last", paths.last)) if path.is_file()}


def choose_run(rows: Sequence[Row], usable: Sequence[Row]) -> Row | None:
    """The run, of those that have a checkpoint; None until one is chosen."""
    tokens = dict(zip(tokens_of(usable, rows), usable, strict=True))
    asked = st.query_params.get(RUN)
    if asked is not None and asked not in tokens:
        named = asked in tokens_of(rows, rows)
        why = "has no checkpoint (best.pt or last.pt)" if named else "is not in the folders that are looked at"
        st.warning(f"The run {escaped(asked)} {why}: choose another.")
    chosen = st.selectbox(
        "Run",
        list(tokens),
        index=0 if len(tokens) == 1 else None,
        key=RUN,
        bind="query-params",
        placeholder="Choose a run",
        help="Runs with a checkpoint: best.pt or last.pt.",
    )
    return tokens.get(chosen) if chosen else None


def choose_checkpoint(row: Row) -> Path:
    """The best checkpoint unless the last one is asked for."""
    found = checkpoints(row)
    names = list(found)
    picked = st.segmented_control(
        "Checkpoint",
        names,
        default=names[0],
        required=True,
        key="checkpoint",
        bind="query-params",
        help="best: at the least validation loss; last: where training stands.",
    )
    return found.get(picked or names[0], found[names[0]])


def prompt_box() -> str:
    return (
        st.text_area("Prompt", "The ", key="prompt", bind="query-params", max_chars=MOST_CHARACTERS, height=148) or ""
    )


def sampling() -> dict[str, Any]:
    """The fields of a request that say how many tokens are drawn, and how."""
    number: dict[str, Any] = {"bind": "query-params"}
    one, two, three, four, five = st.columns(5)
    with one:
        tokens = st.number_input("Tokens", 1, MOST_TOKENS, 200, 50, key="tokens", help="New tokens a column.", **number)
    with two:
        temperature = st.number_input(
            "Temperature", 0.0, 10.0, 0.8, 0.1, key="temperature", help="0 takes the most likely token.", **number
        )
    with three:
        top_k = st.number_input(
            "Top-k", 1, None, None, 1, key="top_k", placeholder="all", help="Keep the k most likely tokens.", **number
        )
    with four:
        top_p = st.number_input(
            "Top-p", 0.01, 1.0, 1.0, 0.05, key="top_p", help="Then keep the likely ones up to this share.", **number
        )
    with five:
        seed = st.number_input(
            "Seed", 0, 2**31, 1337, 1, key="seed", help="The same for all columns: only their caches differ.", **number
        )
    return {
        "tokens": int(tokens),
        "temperature": float(temperature),
        "top_k": None if top_k is None else int(top_k),
        "top_p": float(top_p),
        "seed": int(seed),
    }


def policies(row: Row) -> tuple[str, ...] | None:
    """One to three policies as their texts; None where one is no policy, which is said below its box."""
    choices = policy_choices(row)
    found, right = [], True
    labels = ("Cache", "Second cache", "Third cache")
    for column, key, label, default in zip(st.columns(3), _COLUMNS, labels, _DEFAULTS, strict=True):
        own = st.session_state.get(key) or st.query_params.get(key)
        with column:
            text = st.selectbox(
                label,
                choices if own is None or own in choices else [*choices, own],
                index=None if default is None else choices.index(default),
                key=key,
                bind="query-params",
                accept_new_options=True,
                placeholder="none",
                help="Choose or write a policy: q4_0, or k=q8_0,v=q4_0,residual=64. The newest `residual` tokens (128 "
                "unless said) stay in fp16 as well, so a text shorter than that shows no difference.",
            )
            if text:
                try:
                    found.append(read_policy(text))
                except bc.UserError as error:
                    st.error(escaped(str(error)))
                    right = False
    if right and not found:
        st.error("No cache policy is chosen: choose fp16, or another one.")
    return tuple(found) if right and found else None


def read_policy(text: str) -> str:
    """The policy in its own spelling; `k q8_0 v q4_0` is `k=q8_0,v=q4_0`. Raises UserError."""
    spelled = re.sub(r"\b(k_sem|k_geo|k|v)\s+(?=\w)", r"\1=", text.strip().lower())
    spelled = re.sub(r"(?<=\w)\s+(?=\w)", ",", spelled)
    policy = parse_policy(spelled)
    kinds = (policy.kind, policy.edge_kind, *policy.kinds.values())
    if sized := [kind for kind in kinds if kind not in PACKABLE]:
        raise bc.UserError(f"{sized[0]} is sized but not stored: use one of {', '.join(PACKABLE)}")
    return policy_label(policy)


def policy_choices(row: Row) -> list[str]:
    """Policies worth a look for the tensors that the run caches."""
    return [*_PLAIN, *(_SPLIT_DECOUPLED if row.get("attn_mode") == "decoupled" else _SPLIT), *_WINDOWED]
