"""The dashboard's server: its command, what it listens on, and a process that ends with its starter."""

from __future__ import annotations

import errno
import http.client
import ipaddress
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import bottleneck_core
from bottleneck_core.errors import UserError

RUNS_VARIABLE = "BOTTLENECK_RUNS"
READ_ONLY_VARIABLE = "BOTTLENECK_READ_ONLY"
ALLOW_VARIABLE = "BOTTLENECK_ALLOW"  # addresses, separated by white space or commas
DEFAULT_PORT = 8501
DEFAULT_ADDRESS = "127.0.0.1"
_HEALTH_TIMEOUT_S = 2.0
_STOP_S = 5.0
_LOG_LINES = 15


class Server:
    """A server beside this process, for the length of a `with`. Its output stays out of the terminal."""

    def __init__(self, address: str, port: int, runs: Sequence[Path]) -> None:
        self.address, self.port = address, port
        self._command = server_command(address, port, open_browser=False, hosts=(address, "localhost"))
        self._environment = server_environment(runs)

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{self.address}:{self.port}"

    def __enter__(self) -> Server:
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal is ours to handle
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:  # a page that computes keeps its thread
            self._process.kill()
            self._process.wait()
        self._log.close()

    def is_ready(self) -> bool:
        """Whether it answers. Raises UserError when it has ended."""
        self.check()
        connection = http.client.HTTPConnection(self.address, self.port, timeout=_HEALTH_TIMEOUT_S)
        try:
            connection.request("GET", "/_stcore/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def check(self) -> None:
        """Raises UserError when the server has ended by itself, with the last lines it printed."""
        if self._process.poll() is not None:
            self._log.seek(0)
            lines = self._log.read().decode(errors="replace").splitlines()[-_LOG_LINES:]
            raise UserError("\n".join([f"the dashboard ended (exit code {self._process.returncode}):", *lines]))


def has_display() -> bool:
    """Whether a browser window can appear on this machine."""
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def is_local(address: str | None) -> bool:
    """Whether only this machine reaches a server that listens on `address`; None means every address."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:  # a name, which may mean any machine, or a socket file behind a proxy
        return False


def server_command(address: str, port: int, *, open_browser: bool, hosts: Sequence[str] = ()) -> list[str]:
    """The command of the dashboard's server; `hosts` are the only names that browsers may know it by, none means any.

    Raises UserError where the package came without `app.py`.
    """
    app = Path(bottleneck_core.__path__[0]).parent / "app.py"
    if not app.is_file():
        raise UserError(f"{app} is missing: the dashboard needs a checkout, run the command from one")
    return [
        *(sys.executable, "-m", "streamlit", "run", str(app)),
        *("--server.address", address, "--server.port", str(port)),
        *("--server.headless", "false" if open_browser else "true", "--server.showEmailPrompt", "false"),
        *("--server.fileWatcherType", "none", "--browser.gatherUsageStats", "false"),
        *(word for host in hosts for word in ("--server.allowedHosts", host)),
    ]


def server_environment(
    runs: Sequence[Path], *, read_only: bool = False, allow: Sequence[str] = ()
) -> Mapping[str, str]:
    """This process's environment with what the pages are to know: parents of run folders, and who may change things.

    Raises UserError for a parent that is no folder, or that the path separator would break in two, and for an
    allowed address that is none.
    """
    environment = dict(os.environ)
    if read_only:
        environment[READ_ONLY_VARIABLE] = "1"
    for address in allow:
        if not re.fullmatch(r"[^\s@]+@[^\s@]+", address):
            raise UserError(f"--allow {address} is no e-mail address: give the ones that people log in with")
    if allow:
        environment[ALLOW_VARIABLE] = " ".join(allow)
    for folder in runs:
        if not folder.is_dir():
            raise UserError(f"--runs {folder} is no folder: create it, or name the parent of your run folders")
        if os.pathsep in str(folder.absolute()):
            raise UserError(f"--runs {folder} has a {os.pathsep} in its path, which separates folders: rename it")
    if runs:
        environment[RUNS_VARIABLE] = os.pathsep.join(str(folder.absolute()) for folder in runs)
    return environment


def check_port(address: str, port: int) -> None:
    """Raises UserError where nothing can listen on `address` and `port`; it names a port that is free."""
    if not 1 <= port <= 65535:
        raise UserError(f"--port must be between 1 and 65535, got {port}")
    problem = _bind(address, port)
    if problem is None:
        return
    if problem.errno == errno.EADDRINUSE:
        others = (other for other in range(port + 1, min(port + 100, 65536)) if _bind(address, other) is None)
        fix = f"give --port {other}" if (other := next(others, None)) else "give another --port"
        raise UserError(f"port {port} on {address} is in use: stop what uses it, or {fix}")
    if problem.errno == errno.EACCES:
        raise UserError(f"port {port} is reserved for administrators: give a --port from 1024 on")
    raise UserError(f"--address {address} is no address of this machine ({problem.strerror}): give 127.0.0.1")


def _bind(address: str, port: int) -> OSError | None:
    """What the system says to a listener there; None when it agrees."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: connections of a server that has just ended linger, and do not keep the port
            # busy.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except OSError as error:
        return error
    return None
