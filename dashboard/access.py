"""Who may change things from the pages: start and stop jobs, edit, delete, generate.

Without an allow list everybody at this machine may, and nobody else: the server has to listen on this machine alone,
and the visitor has to come to it directly. With an allow list (`serve --allow`) those on it may, from anywhere, once
they have logged in. What cannot be known counts as a no.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import streamlit as st

from bottleneck_core.cli.server import ALLOW_VARIABLE, READ_ONLY_VARIABLE, is_local
from dashboard.account import email, logged_in, login_configured

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via")


def may_change() -> bool:
    """Whether this visitor may start, stop, edit and delete."""
    return _refusal() is None


def why_not() -> str:
    """One sentence for a visitor who may not."""
    return _refusal() or "This dashboard is read-only."


def allowed_emails() -> frozenset[str]:
    """The allow list, in lower case."""
    return frozenset(os.environ.get(ALLOW_VARIABLE, "").lower().replace(",", " ").split())


def _refusal() -> str | None:
    if allowed_emails():
        return _refusal_of_account()
    if os.environ.get(READ_ONLY_VARIABLE, "0") not in ("", "0"):
        return "This dashboard is read-only: start it without --read-only to change things."
    if not is_local(st.get_option("server.address")):
        return (
            "This dashboard is read-only because other machines reach it: start it on 127.0.0.1, or with a login "
            "and --allow, to change things."
        )
    if not _comes_directly():
        return (
            "This dashboard is read-only through a proxy or under another name: open it on 127.0.0.1 to change things."
        )
    return None


def _refusal_of_account() -> str | None:
    if not login_configured():
        return "This dashboard is read-only: its allow list needs a login, and none is configured in secrets.toml."
    if not logged_in():
        return "This dashboard is read-only for visitors: log in to change things."
    if email() not in allowed_emails():
        return "This dashboard is read-only for you: ask whoever runs it to start it with --allow and your address."
    return None


def _comes_directly() -> bool:
    """Whether the browser itself asked this machine for this page.

    A proxy passes strangers on from a local address. And a page elsewhere whose name is made to point here (DNS
    rebinding), or one on another local port, would speak for the reader. Programs that are no browser send what they
    like, but they run on this machine already.
    """
    headers = st.context.headers
    if any(name in headers for name in _FORWARDED):
        return False
    host, origin = headers.get("Host"), headers.get("Origin")
    if host is None:  # every browser says it
        return origin is None
    try:
        name = urlsplit(f"//{host}").hostname
        return is_local(name) and origin in (None, f"http://{host}", f"https://{host}")
    except ValueError:
        return False
