"""A session of the dashboard's real server without a browser: what it sends, and how long its scripts run.

A browser on the same two cores would be measured along with the server. What a browser adds is measured in
`dashboard_frames`.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import orjson
import psutil
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from bottleneck_core.cli.server import server_command, server_environment

_PATIENCE_S = 180.0
_COUNT = re.compile(r"\*\*([\d,]+)\*\* runs?\b")


@dataclass
class Rerun:
    """One run of the script or of fragments: seconds from request to its end, the server's processor time in them
    (counted in hundredths), and what it sent.

    `charts`: seconds from the request to each figure, by name. `frames`: bytes of each message. `rows`: runs that
    the table of runs counts.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    charts: dict[str, float] = field(default_factory=dict)
    frames: list[int] = field(default_factory=list)
    rows: int = 0
    exceptions: list[str] = field(default_factory=list)
    fragments: list[str] = field(default_factory=list)
    widgets: dict[str, str] = field(default_factory=dict)


class DashboardServer:
    """`streamlit run app.py` over some roots, for the length of a `with`, with a cache folder of its own."""

    def __init__(self, *roots: Path, cache: Path | None = None) -> None:
        """`cache`: where it keeps what outlives it; without, in a folder that goes with it."""
        self._kept = cache
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._roots = roots

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> DashboardServer:
        self._cache = tempfile.TemporaryDirectory()
        environment = {**server_environment(self._roots), "XDG_CACHE_HOME": str(self._kept or self._cache.name)}
        self._process = subprocess.Popen(
            server_command("127.0.0.1", self.port, open_browser=False),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=5):
                    return self
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("the dashboard's server did not start")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._cache.cleanup()

    def cpu(self) -> float:
        """Seconds of processor time of the server process so far."""
        times = psutil.Process(self.pid).cpu_times()
        return times.user + times.system

    def memory(self) -> int:
        """Bytes of the server process in memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


class Session:
    """One visitor. `open` asks for a page, `rerun` for the same again."""

    def __init__(self, server: DashboardServer) -> None:
        self._server = server
        self._socket = connect(
            f"ws://127.0.0.1:{server.port}/_stcore/stream",
            subprotocols=["streamlit"],  # pyright: ignore[reportArgumentType]
            max_size=None,
            compression=None,
        )
        self._page, self._query = "", ""
        # As the browser tells the server what it need not send again: messages of this run and the last.
        self._cached: tuple[set[str], set[str]] = (set(), set())

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def open(self, page: str = "", query: Mapping[str, str] | None = None) -> Rerun:
        """The page with the address `/page?query`, from request to the end of its script."""
        self._page, self._query = page, urlencode(query or {})
        return self.rerun()

    def rerun(self, fragment: str | None = None, number: tuple[str, float] | None = None) -> Rerun:
        """The page again, or a fragment of it by its id; `number`: a widget's id and the number it is set to."""
        message = BackMsg()
        state = message.rerun_script
        state.page_name, state.query_string = self._page, self._query
        state.cached_message_hashes.extend(set.union(*self._cached))
        if fragment:
            state.fragment_id = fragment
        if number:
            widget = state.widget_states.widgets.add()
            widget.id, widget.double_value = number
        start, worked = time.perf_counter(), self._server.cpu()
        self._socket.send(message.SerializeToString())
        self._cached = (self._cached[1], set())
        run = self._follow(start)
        run.cpu = self._server.cpu() - worked
        return run

    def follow(self, fragments: Sequence[str]) -> Rerun:
        """Reruns fragments one after another, as the page's timers do; all that they sent and their seconds in sum."""
        whole = Rerun()
        for fragment in dict.fromkeys(fragments):
            run = self.rerun(fragment)
            whole.seconds += run.seconds
            whole.cpu += run.cpu
            whole.charts |= run.charts
            whole.frames += run.frames
            whole.exceptions += run.exceptions
        return whole

    def _follow(self, start: float) -> Rerun:
        """Messages up to the end of the script; of a page that asks for a rerun of itself, of the last one."""
        run = Rerun()
        while True:
            data = self._socket.recv(timeout=_PATIENCE_S)
            run.frames.append(len(data))
            message = ForwardMsg()
            message.ParseFromString(data if isinstance(data, bytes) else data.encode())
            kind = message.WhichOneof("type")
            if kind == "ref_hash":
                self._cached[1].add(message.ref_hash)
            elif message.metadata.cacheable:
                self._cached[1].add(message.hash)
            if kind == "delta" and message.delta.WhichOneof("type") == "new_element":
                _note(run, message.delta.new_element, time.perf_counter() - start)
            elif kind == "auto_rerun":
                run.fragments.append(message.auto_rerun.fragment_id)
            elif kind == "page_info_changed":
                self._query = message.page_info_changed.query_string
            elif kind == "script_finished" and message.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                run.seconds = time.perf_counter() - start
                return run


def timed(run: Rerun) -> tuple[float, float]:
    """What `measured` asks for."""
    return run.seconds, run.cpu


def _note(run: Rerun, element: Any, seconds: float) -> None:
    what = element.WhichOneof("type")
    if what == "exception":
        run.exceptions.append(element.exception.message)
    elif what == "bidi_component" and element.bidi_component.bytes:
        run.charts[orjson.loads(element.bidi_component.bytes).get("name", "")] = seconds
    elif what == "markdown" and (count := _COUNT.match(element.markdown.body)):
        run.rows = int(count[1].replace(",", ""))
    elif what == "number_input":
        run.widgets[element.number_input.label] = element.number_input.id
