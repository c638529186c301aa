"""Which runs are compared: their order is in the address, `/compare?runs=a,b`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from urllib.parse import unquote

import streamlit as st

from dashboard.state import Row, root_of

# In the address, and where the page keeps its own while the reader looks at a run.
RUNS = "runs"
_KEPT = "compare_address"


def token_of(row: Row, rows: Sequence[Row]) -> str:
    """How the address names a run: its id, followed by `@root` where several folders have a run of that id."""
    return tokens_of([row], rows)[0]


def tokens_of(named: Sequence[Row], rows: Sequence[Row]) -> list[str]:
    """How the address names each of `named`, which are among all `rows`; for ten thousand at once."""
    count = Counter(row["id"] for row in rows)
    return [_escaped(row["id"]) + (f"@{_escaped(root_of(row))}" if count[row["id"]] > 1 else "") for row in named]


def runs_text(chosen: Sequence[Row], rows: Sequence[Row]) -> str:
    """The value of `runs` in the address."""
    return ",".join(tokens_of(chosen, rows))


def ids_in(*texts: str | None) -> list[str]:
    """The ids that such texts of an address name, folders left out."""
    parts = (part for text in texts for part in (text or "").split(",") if part)
    return [unquote(part.partition("@")[0]) for part in parts]


def chosen_rows(text: str | None, rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """The rows that an address names, each once and in its order, and the names of those that are not there."""
    by_token = dict(zip(tokens_of(rows, rows), rows, strict=True))
    # A link made before a second root came still opens: the first run of that id is meant.
    by_id: dict[str, Row] = {}
    for row in rows:
        by_id.setdefault(_escaped(row["id"]), row)
    found: dict[str, Row] = {}
    missing = []
    for token in dict.fromkeys(part for part in (text or "").split(",") if part):
        row = by_token.get(token) or by_id.get(token)
        if row is None:
            missing.append(unquote(token))
        else:
            found[row["path"]] = row
    return list(found.values()), missing


def set_runs(text: str) -> None:
    """Puts the runs into the address; none takes them out of it."""
    if text:
        st.query_params[RUNS] = text
    else:
        st.session_state.pop(_KEPT, None)
        if RUNS in st.query_params:
            del st.query_params[RUNS]


def remember_address() -> None:
    """To be called before leaving the page."""
    st.session_state[_KEPT] = st.query_params.to_dict()


def remembered_address() -> dict[str, str]:
    """The address when the page was left; empty if it was not."""
    return st.session_state.get(_KEPT, {})


def _escaped(text: str) -> str:
    """Text without the signs that the address gives a meaning to."""
    return text.replace("%", "%25").replace(",", "%2C").replace("@", "%40")
