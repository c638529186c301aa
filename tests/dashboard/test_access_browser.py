"""Who may start a run, against the real server: with a login, by an address that others reach, by another name."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import TimeoutError

from tests.browser import scripts_page

from .oidc import Provider
from .server import ROOT, wait_for_health

pytestmark = pytest.mark.e2e

page = scripts_page  # a fixture: these servers end while a page is open

ADA = {"email": "Ada@Example.org", "email_verified": True, "name": "Ada"}
EVE = {"email": "eve@example.org", "email_verified": True, "name": "<b>Eve</b>"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """`start(words, port)` runs a server over an empty folder; its address."""
    (tmp_path / "runs").mkdir()
    processes: list[subprocess.Popen] = []

    def started(words: list[str], port: int, **variables: str) -> str:
        environment = {**os.environ, "BOTTLENECK_RUNS": str(tmp_path / "runs"), "PYTHONPATH": str(ROOT), **variables}
        log_path = tmp_path / f"{port}.log"
        with open(log_path, "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *words], cwd=tmp_path, env=environment, stdout=log, stderr=log
            )
        processes.append(process)
        wait_for_health(f"http://127.0.0.1:{port}/_stcore/health", process, log_path)
        return f"http://127.0.0.1:{port}"

    yield started
    for process in processes:
        process.kill()
        process.wait()


def streamlit(port: int, *words: str) -> list[str]:
    return ["streamlit", "run", str(ROOT / "app.py"), "--server.port", str(port), *words]


def start_button(page: Any, address: str) -> Any:
    page.goto(f"{address}/train")
    button = page.get_by_role("button", name="Start", exact=True)
    button.wait_for()
    return button


def assert_off(page: Any, address: str, sentence: str) -> None:
    button = start_button(page, address)
    assert button.is_disabled()
    said = page.get_by_role("tooltip").get_by_text(sentence)
    for _ in range(20):  # what is drawn above it may still move it away from under the mouse
        page.mouse.move(0, 0)
        button.hover(force=True)
        try:
            return said.wait_for(timeout=3_000)
        except TimeoutError:
            continue
    said.wait_for()


def log_in(page: Any, provider: Provider, claims: dict[str, Any]) -> None:
    provider.claims = claims
    before = provider.logins
    page.get_by_role("button", name="Log in", exact=True).click()
    page.get_by_test_id("stPopover").get_by_text(claims["email"]).wait_for()
    assert provider.logins == before + 1


def log_out(page: Any, claims: dict[str, Any]) -> None:
    page.get_by_test_id("stPopover").get_by_text(claims["email"]).click()
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("button", name="Log in", exact=True).wait_for()


def handshake(port: int, host: str) -> int:
    """The server's answer to a page of that host which wants to talk to it."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.putrequest("GET", "/_stcore/stream", skip_host=True)
    for name, value in {
        "Host": host,
        "Origin": f"http://{host}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    }.items():
        connection.putheader(name, value)
    connection.endheaders()
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def test_only_who_is_logged_in_and_on_the_list_may_start(start, page, tmp_path):
    port = free_port()
    with Provider() as provider:
        (tmp_path / ".streamlit").mkdir()
        (tmp_path / ".streamlit" / "secrets.toml").write_text(provider.secrets_toml(f"http://127.0.0.1:{port}"))
        address = start(
            ["bottleneck_core", "serve", "--port", str(port), "--no-open", "--read-only", "--allow", "ada@example.org"],
            port,
        )
        assert_off(page, address, "read-only for visitors: log in")

        log_in(page, provider, ADA)
        assert start_button(page, address).is_enabled()
        page.goto(f"{address}/kv")
        assert page.get_by_role("button", name="Measure").is_enabled()
        log_out(page, ADA)
        assert_off(page, address, "read-only for visitors: log in")

        log_in(page, provider, EVE)
        assert_off(page, address, "read-only for you")
        page.goto(f"{address}/kv")
        assert page.get_by_role("button", name="Measure").is_disabled()
        log_out(page, EVE)

        # An address that anybody can claim at the provider is nobody's.
        log_in_unverified = ADA | {"email_verified": False}
        log_in(page, provider, log_in_unverified)
        assert_off(page, address, "read-only for you")

        # Nobody else can write the cookie that says who it is.
        forged = [c for c in page.context.cookies() if c["name"].startswith("_streamlit_user")]
        assert forged
        page.context.clear_cookies()
        page.context.add_cookies([c | {"value": c["value"][:-4] + "AAAA"} for c in forged])
        assert_off(page, address, "read-only for visitors: log in")


def test_another_address_is_read_only_without_serve_too(start, page):
    port = free_port()
    address = start(streamlit(port, "--server.address", "0.0.0.0"), port)
    assert_off(page, address, "because other machines reach it")
    assert page.get_by_role("button", name="Log in").count() == 0


def test_a_name_that_is_made_to_point_here_gets_nothing(start, page):
    port = free_port()
    address = start(streamlit(port), port)  # on this machine alone: .streamlit/config.toml
    assert start_button(page, address).is_enabled()
    assert_off(page, f"http://a.rebound.example:{port}", "under another name")
    assert start_button(page, f"http://localhost:{port}").is_enabled()

    port = free_port()
    start(["bottleneck_core", "serve", "--port", str(port), "--no-open"], port)
    assert handshake(port, f"b.rebound.example:{port}") == 403
    assert handshake(port, f"127.0.0.1:{port}") == handshake(port, f"localhost:{port}") == 101
    assert start_button(page, f"http://127.0.0.1:{port}").is_enabled()
