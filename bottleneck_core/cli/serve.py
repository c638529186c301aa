"""`serve`: the dashboard on this machine, for the run folders of one or more parents."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

from bottleneck_core.cli.server import (
    DEFAULT_ADDRESS,
    DEFAULT_PORT,
    check_port,
    has_display,
    server_command,
    server_environment,
)
from bottleneck_core.cli.words import read_words

HELP = "Open the dashboard in the browser."


@dataclass(frozen=True, kw_only=True)
class Words:
    """Open the dashboard in the browser. Ctrl-C ends it; background jobs go on."""

    runs: tuple[Path, ...] = ()
    """parents of run folders; unset: BOTTLENECK_RUNS, else runs"""
    port: int = DEFAULT_PORT
    """port to listen on"""
    address: str = DEFAULT_ADDRESS
    """address to listen on; 0.0.0.0 shows the runs to the whole network"""
    open: bool = field(default_factory=has_display)
    """open a browser window; by default where there is a display"""


def main(argv: list[str]) -> int:
    """Becomes the server. Raises UserError for a port, an address or a folder that cannot be used."""
    words = read_words(Words, argv, prog="python -m bottleneck_core serve")
    check_port(words.address, words.port)
    environment = server_environment(words.runs)
    command = server_command(words.address, words.port, open_browser=words.open)
    # Ctrl-C while Python imports would print a traceback; the server sets its own handler once it is up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.flush()
    os.execve(command[0], command, environment)
