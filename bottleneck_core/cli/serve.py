"""`serve`: the dashboard on this machine, for the run folders of one or more parents."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from bottleneck_core.cli.server import (
    ALLOW_VARIABLE,
    DEFAULT_ADDRESS,
    DEFAULT_PORT,
    READ_ONLY_VARIABLE,
    check_port,
    has_display,
    is_local,
    server_command,
    server_environment,
)
from bottleneck_core.cli.words import read_words
from bottleneck_core.errors import UserError

HELP = "Open the dashboard in the browser."


@dataclass(frozen=True, kw_only=True)
class Words:
    """Open the dashboard in the browser. Ctrl-C ends it; background jobs go on."""

    runs: tuple[Path, ...] = ()
    """parents of run folders; unset: BOTTLENECK_RUNS, else runs"""
    port: int = DEFAULT_PORT
    """port to listen on"""
    address: Annotated[str, tyro.conf.arg(aliases=["--host"])] = DEFAULT_ADDRESS
    """address to listen on; 0.0.0.0 shows the runs to the whole network, read-only"""
    read_only: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """nobody starts, stops, edits, deletes or generates, but who is on the allow list"""
    allow: tuple[str, ...] = ()
    """e-mail addresses of those who may change things once they log in; docs/serving.md sets up the login"""
    open: bool = field(default_factory=has_display)
    """open a browser window; by default where there is a display"""


def main(argv: list[str]) -> int:
    """Becomes the server. Raises UserError for a port, an address or a folder that cannot be used."""
    words = read_words(Words, argv, prog="python -m bottleneck_core serve")
    check_port(words.address, words.port)
    environment = server_environment(words.runs, read_only=words.read_only, allow=words.allow)
    if words.allow and importlib.util.find_spec("authlib") is None:
        raise UserError('--allow needs a login, and logins need a package: pip install "bottleneck-core[auth]"')
    local, logins = is_local(words.address), bool(environment.get(ALLOW_VARIABLE))
    # A page elsewhere whose name is made to point to this machine gets nothing. Whoever sets up a proxy says one of
    # the two flags, and any name has to do.
    closed = local and not logins and environment.get(READ_ONLY_VARIABLE, "0") in ("", "0")
    hosts = dict.fromkeys(("127.0.0.1", "localhost", words.address)) if closed else ()
    command = server_command(words.address, words.port, open_browser=words.open, hosts=tuple(hosts))
    if not local and not logins:
        print(f"read-only, because other machines reach {words.address}: docs/serving.md has logins", file=sys.stderr)
    # Ctrl-C while Python imports would print a traceback; the server sets its own handler once it is up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.flush()
    os.execve(command[0], command, environment)
