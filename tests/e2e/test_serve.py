"""`serve` from any folder, its end, and what it says when it cannot listen."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from bottleneck_core.cli import main
from tests.e2e.commands import Command, free_port

pytestmark = pytest.mark.e2e


def health(port: int) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/_stcore/health")
        return connection.getresponse().read()
    finally:
        connection.close()


def test_it_serves_from_any_folder_and_ends_on_ctrl_c(command: Callable[..., Command], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    port = free_port()
    server = command("serve", "--port", str(port), "--runs", "mine")
    server.until_says("You can now view")
    assert health(port) == b"ok"
    assert server.interrupt() in (0, 130)
    assert "Traceback" not in server.output and not server.left_behind()


@pytest.mark.parametrize("words", [("serve",), ("demo",)])
def test_a_busy_port_is_one_sentence(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert main([*words, "--port", str(port)]) == 2
    out, err = capfd.readouterr()
    sentence = f"error: port {port} on 127.0.0.1 is in use: stop what uses it, or give --port "
    assert out == "" and err.startswith(sentence) and err.removeprefix(sentence).strip().isdigit()
    assert not list(tmp_path.iterdir())  # said before anything was prepared


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--port", "70000"], "--port must be between 1 and 65535, got 70000"),
        (["--port", "x"], "--port"),
        (["--address", "192.0.2.1"], "--address 192.0.2.1 is no address of this machine"),
        (["--runs", "nowhere"], "--runs nowhere is no folder"),
        (["--prt", "1"], "--prt"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if "--port" not in words:
        words = [*words, "--port", str(free_port())]
    assert main(["serve", *words]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("error: ") and sentence in err and err.count("\n") == 1
