"""What `serve` tells the server and its pages about who may reach and change them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import pytest

from bottleneck_core.cli import main, serve
from bottleneck_core.cli.server import ALLOW_VARIABLE, READ_ONLY_VARIABLE, Server, is_local


class Became(Exception):
    """The server that the process would have become."""


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[str], dict[str, str]]]:
    """`served(*words)`: the command and the environment of the server."""
    for variable in (ALLOW_VARIABLE, READ_ONLY_VARIABLE):
        monkeypatch.delenv(variable, raising=False)

    def become(program: str, command: list[str], environment: dict[str, str]) -> None:
        raise Became(command, environment)

    monkeypatch.setattr(os, "execve", become)
    monkeypatch.setattr(serve, "check_port", lambda address, port: None)
    monkeypatch.setattr(serve.signal, "signal", lambda *args: None)

    def run(*words: str) -> tuple[list[str], dict[str, str]]:
        with pytest.raises(Became) as became:
            serve.main([*words, "--no-open"])
        return became.value.args  # pyright: ignore[reportReturnType]

    return run


def values(command: list[str], flag: str) -> list[str]:
    return [command[i + 1] for i, word in enumerate(command) if word == flag]


def test_it_listens_on_this_machine_and_answers_to_its_names(served: Any, capsys: Any) -> None:
    command, environment = served()
    assert values(command, "--server.address") == ["127.0.0.1"]
    assert values(command, "--server.allowedHosts") == ["127.0.0.1", "localhost"]
    assert not {ALLOW_VARIABLE, READ_ONLY_VARIABLE} & environment.keys()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("flag", ["--address", "--host"])
def test_on_another_address_it_says_that_it_is_read_only(served: Any, capsys: Any, flag: str) -> None:
    command, _ = served(flag, "0.0.0.0")
    assert values(command, "--server.address") == ["0.0.0.0"] and not values(command, "--server.allowedHosts")
    assert "read-only, because other machines reach 0.0.0.0" in capsys.readouterr().err


def test_read_only_and_the_list_reach_the_pages_through_the_environment(served: Any, capsys: Any) -> None:
    words = ("--read-only", "--address", "0.0.0.0", "--allow", "ada@example.org", "bob@example.org")
    command, environment = served(*words)
    assert environment[READ_ONLY_VARIABLE] == "1"
    assert environment[ALLOW_VARIABLE].split() == ["ada@example.org", "bob@example.org"]
    assert not values(command, "--server.allowedHosts")  # a proxy brings names of its own
    assert not any("example.org" in word for word in command) and capsys.readouterr().err == ""
    command, environment = served("--read-only")
    assert environment[READ_ONLY_VARIABLE] == "1" and ALLOW_VARIABLE not in environment


def test_the_flag_only_adds_to_the_environment(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(READ_ONLY_VARIABLE, "1")
    command, environment = served()
    assert environment[READ_ONLY_VARIABLE] == "1" and not values(command, "--server.allowedHosts")


@pytest.mark.parametrize("address", ["ada", "@", "a b@c", "", "ada@example.org bob@example.org", "a@b@c"])
def test_what_is_no_address_is_one_sentence(served: Any, capfd: Any, address: str) -> None:
    assert main(["serve", "--allow", address]) == 2
    assert capfd.readouterr().err.startswith(f"error: --allow {address} is no e-mail address")


def test_a_list_without_the_package_for_logins_is_one_sentence(
    served: Any, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["serve", "--allow", "ada@example.org"]) == 2
    assert "bottleneck-core[auth]" in capfd.readouterr().err


def test_the_demo_answers_to_names_of_this_machine() -> None:
    assert values(Server("127.0.0.1", 8501, [])._command, "--server.allowedHosts") == ["127.0.0.1", "localhost"]


@pytest.mark.parametrize(
    ("address", "local"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("::", False), (None, False)]
)
def test_local_addresses(address: str | None, local: bool) -> None:
    assert is_local(address) is local
