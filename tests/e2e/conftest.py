"""Commands as real processes, and a real browser where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.commands import Command, free_port


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """`command(word, ...)` starts `python -m bottleneck_core word ...` in the test's folder."""
    started: list[Command] = []

    def start(*words: str) -> Command:
        started.append(Command(tmp_path, *words))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def dashboard(command: Callable[..., Command]) -> Callable[..., str]:
    """`dashboard(root, ...)` serves these parents of run folders and returns the address, ready to be opened."""

    def serve(*roots: Path) -> str:
        port = free_port()
        server = command("serve", "--port", str(port), "--runs", *map(str, roots))
        server.until_says("You can now view")
        return f"http://127.0.0.1:{port}"

    return serve
