"""Who may change things: at this machine, with a login, and nobody else; asked when drawn and when pressed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.runtime.context import StreamlitHeaders
from streamlit.testing.v1 import AppTest

from bottleneck_core.cli.server import ALLOW_VARIABLE, READ_ONLY_VARIABLE
from dashboard import access, account

HERE = {"Host": "127.0.0.1:8501", "Origin": "http://127.0.0.1:8501"}
ADA = {"is_logged_in": True, "email": "Ada@Example.org", "email_verified": True}
LOGIN = {"auth": {"client_id": "x", "redirect_uri": "http://localhost:8501/oauth2callback"}}


class Visit:
    """A visitor of a server: what the server listens on, what the browser says, who logged in, what is configured."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.address: str | None = "127.0.0.1"
        self.headers: Mapping[str, str] = HERE
        self.user: Mapping[str, Any] = {}
        self.secrets: Mapping[str, Any] = {}
        for variable in (ALLOW_VARIABLE, READ_ONLY_VARIABLE):
            patch.delenv(variable, raising=False)
        visit = self

        class Context:
            @property
            def headers(self) -> StreamlitHeaders:
                return StreamlitHeaders(visit.headers.items())

        class Secrets:
            def get(self, name: str, default: Any) -> Any:
                return visit.secrets.get(name, default)

        class User:
            def get(self, name: str, default: Any = None) -> Any:
                return visit.user.get(name, default)

        patch.setattr(access.st, "get_option", lambda name: {"server.address": visit.address}[name])
        patch.setattr(access.st, "context", Context())
        patch.setattr(account.st, "secrets", Secrets())
        patch.setattr(account.st, "user", User())

    def comes(self, address: str | None = "127.0.0.1", headers: Mapping[str, str] = HERE) -> bool:
        self.address, self.headers = address, headers
        assert "read-only" in access.why_not()
        return access.may_change()


@pytest.fixture
def visit(monkeypatch: pytest.MonkeyPatch) -> Visit:
    return Visit(monkeypatch)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_this_machine_may(visit: Visit, address: str) -> None:
    assert visit.comes(address)


@pytest.mark.parametrize(
    "address", [None, "", "0.0.0.0", "::", "192.168.1.5", "example.org", "unix:///run/a.sock", "localhost.evil", "127"]
)
def test_other_machines_may_not(visit: Visit, address: str | None) -> None:
    assert not visit.comes(address)
    assert "other machines reach it" in access.why_not()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:8501", "Origin": "http://evil.example:8501"},  # its name points here
        {"Host": "127.0.0.1:8501", "Origin": "http://evil.example"},
        {"Host": "127.0.0.1:8501", "Origin": "http://127.0.0.1:3000"},  # another page of this machine
        {"Host": "127.0.0.1:8501", "Origin": "null"},
        {"Origin": "http://127.0.0.1:8501"},
        {"Host": "[::1", "Origin": "http://[::1"},
        {"Host": "127.0.0.1.evil.example"},
        HERE | {"X-Forwarded-For": "203.0.113.9"},
        HERE | {"x-forwarded-host": "dashboard.example.org"},
        HERE | {"Forwarded": "for=203.0.113.9"},
        HERE | {"X-Real-IP": "203.0.113.9"},
        HERE | {"Via": "1.1 proxy"},
    ],
)
def test_who_comes_through_something_else_may_not(visit: Visit, headers: dict[str, str]) -> None:
    assert not visit.comes(headers=headers)
    assert "through a proxy or under another name" in access.why_not()


@pytest.mark.parametrize("headers", [HERE, {"Host": "localhost:9000", "Origin": "http://localhost:9000"}, {}])
def test_a_tunnel_and_a_program_without_headers_may(visit: Visit, headers: dict[str, str]) -> None:
    assert visit.comes(headers=headers)


@pytest.mark.parametrize(("value", "allowed"), [("1", False), ("yes", False), ("0", True), ("", True)])
def test_read_only_is_for_everybody(visit: Visit, monkeypatch: pytest.MonkeyPatch, value: str, allowed: bool) -> None:
    monkeypatch.setenv(READ_ONLY_VARIABLE, value)
    assert visit.comes() is allowed
    visit.secrets, visit.user = LOGIN, ADA  # who is logged in, but no list says that they may
    assert visit.comes() is allowed


@pytest.mark.parametrize(
    ("user", "sentence"),
    [
        (ADA, None),
        (ADA | {"email": " ada@example.org "}, None),
        ({key: ADA[key] for key in ("is_logged_in", "email")}, None),  # providers need not say that they verified it
        ({}, "log in"),
        ({"email": "ada@example.org"}, "log in"),  # a header of a proxy
        (ADA | {"is_logged_in": False}, "log in"),
        (ADA | {"is_logged_in": "true"}, "log in"),
        (ADA | {"email": "eve@example.org"}, "for you"),
        (ADA | {"email": "ada@example.org.evil"}, "for you"),
        (ADA | {"email": "ada@example.org bob@example.org"}, "for you"),
        (ADA | {"email": ""}, "for you"),
        (ADA | {"email": None}, "for you"),
        (ADA | {"email": ["ada@example.org"]}, "for you"),
        (ADA | {"email_verified": False}, "for you"),
        (ADA | {"email_verified": "false"}, "for you"),
        (ADA | {"email_verified": None}, "for you"),
    ],
)
def test_a_list_is_for_those_on_it(
    visit: Visit, monkeypatch: pytest.MonkeyPatch, user: dict[str, Any], sentence: str | None
) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, "bob@example.org,eric@example.org  ADA@example.org")
    visit.secrets, visit.user = LOGIN, user
    for address, headers in (("0.0.0.0", {"Host": "dashboard.example.org"}), ("127.0.0.1", HERE)):
        assert visit.comes(address, headers) is (sentence is None)
        assert sentence is None or sentence in access.why_not()


@pytest.mark.parametrize("secrets", [{}, {"auth": {}}, {"auth": "x"}, {"auth": {"redirect_uri": "x"}}])
def test_a_list_without_a_login_allows_nobody(
    visit: Visit, monkeypatch: pytest.MonkeyPatch, secrets: dict[str, Any]
) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, "ada@example.org")
    visit.secrets, visit.user = secrets, ADA
    assert not visit.comes() and "none is configured" in access.why_not()


def test_providers_are_named(visit: Visit) -> None:
    assert account.providers() == []
    visit.secrets = LOGIN
    assert account.providers() == ["default"]
    visit.secrets = {"auth": {"redirect_uri": "x", "okta": {"client_id": "y"}, "client_kwargs": {"prompt": "login"}}}
    assert account.providers() == ["okta"]


# On the pages


def _account(user: dict[str, Any]) -> AppTest:
    def script() -> None:
        from dashboard.account import account

        account("what *you* may")

    return AppTest.from_function(script).run()


def test_the_page_shows_who_is_logged_in_as_text(visit: Visit) -> None:
    assert not _account({}).button
    visit.secrets = LOGIN
    assert [button.label for button in _account({}).button] == ["Log in"]
    visit.user = ADA | {"email": "<b>*eve*</b>@example.org"}
    test = _account({})
    assert [button.label for button in test.button] == ["Log out"]
    assert test.get("popover")[0].proto.popover.label.startswith(r"\<b\>\*eve\*\</b\>")  # pyright: ignore
    assert test.caption[0].value == r"what \*you\* may"


def test_every_control_that_changes_something_is_off(
    app: Callable[..., Any], make_run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("one")
    run.train(30)
    run.finish()
    (run.path / "best.pt").touch()
    (run.path / "last.pt").touch()
    monkeypatch.setenv(READ_ONLY_VARIABLE, "1")
    controls = {
        "train": {"resume": "one"},
        "generate": {"run": "one", "prompt": "a"},
        "kv": {"a.preset": "nano.paper_bottleneck", "context": "10"},
    }
    seen: list[str] = []
    for page, query in controls.items():
        test = app(tmp_path)._open(f"dashboard/pages/{page}.py", query)
        assert not test.exception
        for widget in (*test.button, *test.number_input):
            if re.search(r"(?i)^(start|resume|prepare|generate|stop|keep|measure|cpu|cuda)", widget.label):
                assert widget.disabled and "read-only" in widget.help, widget.label
                seen.append(widget.label)
    assert {"Start", "Resume", "Generate", "Stop", "Measure", "cpu"} <= set(seen)


def test_a_measurement_that_is_pressed_all_the_same_starts_nothing(
    app: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dashboard.kv import measure as kv_measure

    started: list[str] = []
    monkeypatch.setattr(kv_measure, "_allocate", lambda request: started.append(request) or 1)
    kv_measure.measured().clear()

    def press(*, while_allowed: bool) -> AppTest:
        test = app(tmp_path)._open("dashboard/pages/kv.py", {"a.preset": "nano.paper_bottleneck", "context": "11"})
        button = next(button for button in test.button if button.label == "Measure").click()
        if not while_allowed:
            monkeypatch.setenv(READ_ONLY_VARIABLE, "1")
        test.run()
        assert not test.exception and button.label == "Measure"
        return test

    press(while_allowed=False)
    assert not started
    monkeypatch.delenv(READ_ONLY_VARIABLE)
    press(while_allowed=True)
    assert len(started) == 1
    kv_measure.measured().clear()


def test_the_configuration_keeps_to_this_machine() -> None:
    assert st.get_option("server.address") == "127.0.0.1"
    for name in ("server.enableCORS", "server.enableXsrfProtection"):
        assert st.get_option(name) is True
    for name in ("server.enableStaticServing", "server.enableAgentApi", "browser.gatherUsageStats"):
        assert st.get_option(name) is False
    assert st.get_option("server.maxUploadSize") == 1
