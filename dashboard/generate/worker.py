"""Generation in a process of its own, which loads torch and the checkpoint; this one only reads what it tells.

A visitor has at most one: another start, Stop and the end of the session kill it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import streamlit as st

import bottleneck_core
from bottleneck_core.store.samples import append_sample, sample_record

State = Literal["loading", "running", "done", "stopped", "failed"]
Event = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for: `checkpoint` is a file, `policies` are texts as `memory.policy_text` reads them."""

    checkpoint: Path
    prompt: str
    policies: tuple[str, ...]
    tokens: int = 200
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 1337

    def command(self) -> list[str]:
        """The worker's words; the prompt goes through its standard input, where any text is possible."""
        words = {
            "ckpt": self.checkpoint,
            "prompt": "-",
            "policies": ";".join(self.policies),
            "max-new-tokens": self.tokens,
            "temperature": self.temperature,
            "top-k": "none" if self.top_k is None else self.top_k,
            "top-p": self.top_p,
            "seed": self.seed,
        }
        flags = [f"--{name}={value}" for name, value in words.items()]
        return [sys.executable, "-m", "bottleneck_core", "sample", *flags, "--json-lines", "--no-save"]


@dataclass
class Column:
    """One policy's events so far."""

    policy: str
    tokens: list[Event] = field(default_factory=list)
    end: Event | None = None

    @property
    def differs_at(self) -> int | None:
        """The first token that is not the first column's."""
        return next((token["index"] for token in self.tokens if token["agrees"] is False), None)

    @property
    def kl(self) -> list[float]:
        """KL(fp16 || this cache) of each token, as far as the texts agree."""
        return [token["kl"] for token in self.tokens if token["kl"] is not None]

    @property
    def tok_s(self) -> float | None:
        """Decoding steps a second so far; the first token comes from the prompt."""
        steps, seconds = len(self.tokens) - 1, self.tokens[-1]["seconds"] if self.tokens else 0.0
        return steps / seconds if steps > 0 and seconds > 0 else None


class Generation:
    """A worker and what it has told. Safe to read while it goes on."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.columns = [Column(policy) for policy in request.policies]
        self.start: Event | None = None
        self.warnings: list[str] = []
        self.error: str | None = None
        self.kept = False
        self._state: State = "loading"
        self._lock = threading.Lock()
        self._ended = threading.Event()
        # stderr: a pipe would have to be read at the same time
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed when the worker has ended)
        self._process = subprocess.Popen(
            request.command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=_environment(),
            start_new_session=True,  # Ctrl-C in the terminal is the server's
        )
        threading.Thread(target=self._follow, name="generation", daemon=True).start()

    @property
    def state(self) -> State:
        return self._state

    @property
    def running(self) -> bool:
        return self._state in ("loading", "running")

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """Kill the worker, if it runs still; what it has told stays."""
        with self._lock:
            if self.running:
                self._state = "stopped"
        self._process.kill()

    def wait(self, seconds: float) -> None:
        """Wait for the worker's end and its last word. Raises TimeoutError."""
        if not self._ended.wait(seconds):
            raise TimeoutError

    def keep(self) -> None:
        """Add every column that has text to the run's samples.jsonl. Raises OSError."""
        for column in self.columns:
            if self.start and column.tokens:
                record = sample_record(self.start, column.tokens, column.end)
                append_sample(self.request.checkpoint.parent / "samples.jsonl", record)
        self.kept = True

    def _follow(self) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it ended before it read its prompt, and says why
            stdin.write(self.request.prompt.encode("utf-8", errors="replace"))
            stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        for line in stdout:
            with contextlib.suppress(ValueError):  # half a line, of a worker that was killed
                self._take(json.loads(line))
        code = self._process.wait()
        with self._lock:
            if self.running:
                self._state = "done" if code == 0 else "failed"
            if self._state == "failed":
                self.error = _reason(self._said, code)
        self._said.close()
        stdout.close()
        self._ended.set()

    def _take(self, event: Event) -> None:
        if event["type"] == "start":
            self.start = event
            with self._lock:
                if self._state == "loading":
                    self._state = "running"
        elif event["type"] == "token":
            self.columns[event["column"]].tokens.append(event)
        elif event["type"] == "end":
            self.columns[event["column"]].end = event
        elif event["type"] == "warning":
            self.warnings.append(event["message"])


class Desk:
    """Where a visitor's generation lies."""

    def __init__(self) -> None:
        self.generation: Generation | None = None

    def begin(self, request: Request) -> None:
        """Start anew. Raises OSError where no process can be started."""
        self.stop()
        self.generation = Generation(request)

    def stop(self) -> None:
        if self.generation:
            self.generation.stop()


@st.cache_resource(scope="session", on_release=Desk.stop, show_spinner=False)
def desk() -> Desk:
    """This visitor's; its worker is killed when the session disconnects."""
    return Desk()


def _reason(said: IO[bytes], code: int) -> str:
    """Why the worker failed, as one sentence: its own, or how it ended."""
    said.seek(0)
    lines = [line.strip() for line in said.read().decode(errors="replace").splitlines() if line.strip()]
    sentence = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), None)
    if sentence:
        return sentence
    if code < 0:
        return f"The process that generates was ended by signal {-code}: the machine may be out of memory."
    return f"The process that generates ended with {code}: {lines[-1] if lines else 'it said nothing'}"


def _environment() -> Mapping[str, str]:
    """This process's, with the package importable from any folder."""
    home = str(Path(bottleneck_core.__path__[0]).parent)
    paths = [home, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, paths)))}
