"""Login through OpenID Connect, where `[auth]` of secrets.toml configures it: who it is, and the control for it."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from dashboard.markdown import escaped

_DEFAULT = "default"


def login_configured() -> bool:
    """Whether anybody can log in."""
    return bool(providers())


def providers() -> list[str]:
    """The configured providers: `default` for the unnamed one, which `[auth]` itself describes."""
    try:
        section = st.secrets.get("auth", {})
    except FileNotFoundError:  # no secrets.toml, or one that is no TOML
        return []
    if not isinstance(section, Mapping):
        return []
    named = [str(name) for name, value in section.items() if isinstance(value, Mapping) and "client_id" in value]
    return ([_DEFAULT] if "client_id" in section else []) + named


def logged_in() -> bool:
    """Whether a provider vouched for this visitor. `st.user` alone does not say so: proxies' headers fill it too."""
    return st.user.get("is_logged_in") is True


def email() -> str | None:
    """The visitor's address in lower case; None where the provider names none, or says that it was not verified."""
    address, verified = st.user.get("email"), st.user.get("email_verified", True)
    if not isinstance(address, str) or str(verified).lower() != "true":
        return None
    return address.strip().lower() or None


def account(note: str) -> None:
    """The control: who is logged in, with `note` on what they may, or the way to log in; nothing without providers."""
    found = providers()
    if not found:
        return
    if not logged_in():
        for name in found:
            st.button(
                "Log in" if len(found) == 1 else f"Log in with {escaped(name)}",
                icon=":material/login:",
                type="tertiary",
                key=f"login/{name}",
                on_click=_log_in,
                args=(name,),
            )
        return
    with st.popover(escaped(_name()), icon=":material/account_circle:", type="tertiary"):
        st.caption(escaped(note))
        st.button("Log out", icon=":material/logout:", key="logout", on_click=st.logout)


def _name() -> str:
    said = (st.user.get(field) for field in ("email", "preferred_username", "name", "sub"))
    return next((text for text in said if isinstance(text, str) and text.strip()), "logged in")


def _log_in(provider: str) -> None:
    st.login(None if provider == _DEFAULT else provider)
