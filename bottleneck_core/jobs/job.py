"""A job: one command that runs in the background, as `job.json` in its folder records it.

The record has one writer, the job's supervisor, as long as that lives. Readers trust what it says of the end;
what it says of the present they check against the processes of this machine.
"""

from __future__ import annotations

import json
import shlex
import signal
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import psutil

from bottleneck_core.errors import UserError
from bottleneck_core.jobs.identity import ProcessIdentity, boot_id, marked
from bottleneck_core.store.atomic import atomic_write_text
from bottleneck_core.store.layout import RunPaths, find_runs

State = Literal["queued", "running", "stopped", "done", "failed", "lost"]
_STATES = ("queued", "running", "stopped", "done", "failed", "lost")
SCHEMA_VERSION = 1
_gone: set[str] = set()  # marks that nobody had after the supervisor's death: who has none hands none on
POLITE_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # those on which a command may save its work and end


@dataclass(frozen=True, kw_only=True)
class Job:
    """One background command.

    `status` is what was recorded last, `state` what is true now. `exit_code` is the command's, or minus the
    signal that killed it; None while it runs and where nobody could see it. Times are ISO 8601 with zone:
    `created` when it was asked for, `started` when the command began, `ended` when it was over.

    A job of a queue has the queue's `root`, the `device` it waits for ("cpu", "cuda:0"; empty: none) and
    `nproc`, the number of processes that train together. `env` is what was added to its starter's
    environment, `mark` what all processes of the command carry in theirs.
    """

    run_dir: Path
    argv: tuple[str, ...]
    cwd: str
    host: str
    boot_id: str
    created: str
    status: State = "queued"
    process: ProcessIdentity | None = None
    supervisor: ProcessIdentity | None = None
    stop_signal: str | None = None
    ended: str | None = None
    exit_code: int | None = None
    device: str = ""
    nproc: int = 1
    root: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    mark: str = ""
    started: str | None = None

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.run_dir.resolve().name

    @property
    def command_line(self) -> str:
        """The command for people: on one line, and without interpreter and torchrun where it is ours."""
        ours = (at for at in (1, 6) if self.argv[at : at + 2] == ("-m", "bottleneck_core"))
        words = self.argv[next(ours, -2) + 2 :]
        return " ".join(shlex.join(words).split())

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices it takes a slot of: several processes on GPUs take the first `nproc` of them."""
        if self.nproc > 1 and self.device.startswith("cuda"):
            return tuple(f"cuda:{index}" for index in range(self.nproc))
        return (self.device,) if self.device else ()

    @property
    def is_here(self) -> bool:
        """Whether the job's processes are ones that this machine can look for (the folder may be shared)."""
        return self.host == socket.gethostname()

    @property
    def state(self) -> State:
        """The job's state now; that of a job on another machine as recorded, since nobody here can look."""
        if self.status not in ("queued", "running") or not self.is_here:
            return self.status
        lives = self.live_supervisor or (self.status == "running" and (self.live_process or self._has_rest))
        return self.status if lives else "lost"

    @property
    def live_process(self) -> psutil.Process | None:
        """The command's process, if it lives."""
        return self._live(self.process)

    @property
    def live_supervisor(self) -> psutil.Process | None:
        """The supervisor's process, if it lives."""
        return self._live(self.supervisor)

    @property
    def live_rest(self) -> list[psutil.Process]:
        """What lives of all that the command started, wherever it went: torchrun gives its processes sessions
        of their own, where no signal to a group reaches them and no death of a parent shows."""
        return marked(self.mark) if self.mark and self.boot_id == boot_id() else []

    @property
    def _has_rest(self) -> bool:
        """Asked of jobs without a supervisor, again and again where they were left behind: looked up once."""
        if self.mark and self.mark not in _gone and not self.live_rest:
            _gone.add(self.mark)
        return bool(self.mark) and self.mark not in _gone

    def _live(self, identity: ProcessIdentity | None) -> psutil.Process | None:
        """None for every process of an earlier boot: none of them lives, whatever has its pid today."""
        return identity.find() if identity and self.boot_id == boot_id() else None

    def write(self) -> None:
        """Record the job in its folder, atomically."""
        fields: dict[str, Any] = {"schema_version": SCHEMA_VERSION} | asdict(self)
        del fields["run_dir"]  # a folder that was moved takes its job along
        fields["root"] = None if self.root is None else str(self.root)
        for role in ("process", "supervisor"):
            identity = fields.pop(role) or {"pid": None, "create_time": None}
            prefix = "" if role == "process" else "supervisor_"
            fields |= {f"{prefix}{key}": value for key, value in identity.items()}
        atomic_write_text(RunPaths(self.run_dir).job, json.dumps(fields, indent=2, allow_nan=False) + "\n")

    @classmethod
    def read(cls, run_dir: Path) -> Job | None:
        """The job recorded in `run_dir`, None where there is none. Raises UserError for a damaged record."""
        path = RunPaths(run_dir).job
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            if fields["status"] not in _STATES:
                raise ValueError(f"unknown status {fields['status']}")
            return cls(
                run_dir=run_dir,
                argv=tuple(map(str, fields["argv"])),
                process=_identity(fields, ""),
                supervisor=_identity(fields, "supervisor_"),
                root=Path(fields["root"]) if fields.get("root") else None,
                **{key: fields[key] for key in ("device", "nproc", "env", "mark", "started") if key in fields},
                **{
                    key: fields[key]
                    for key in (
                        "cwd",
                        "host",
                        "boot_id",
                        "created",
                        "status",
                        "stop_signal",
                        "ended",
                        "exit_code",
                    )
                },
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is no job record ({error}): remove it") from None

    def ended_as(self, status: State, *, exit_code: int | None, stop_signal: str | None) -> Job:
        """The job after its end, which is now."""
        return replace(self, status=status, exit_code=exit_code, stop_signal=stop_signal, ended=now())


def job_state(run_dir: Path) -> State | None:
    """The state of the job in `run_dir` now; None without a job. Raises UserError for a damaged record."""
    job = read_job(run_dir)
    return job.state if job else None


def read_job(run_dir: Path) -> Job | None:
    """As `Job.read`, for who is going to ask for its `state`."""
    job = Job.read(run_dir)
    if job and job.state == "lost":
        # Perhaps it ended after the record was read: the end is recorded before the supervisor goes.
        job = Job.read(run_dir)
    return job


def find_jobs(root: Path) -> tuple[list[Job], list[str]]:
    """The jobs in `root` and up to three levels below, newest first; a sentence for each damaged record."""
    jobs: list[Job] = []
    errors: list[str] = []
    for folder in find_runs(root):
        try:
            job = read_job(folder)
        except UserError as error:
            errors.append(str(error))
        else:
            jobs += [job] if job else []
    return sorted(jobs, key=lambda job: job.created, reverse=True), errors


def now() -> str:
    """The time, ISO 8601 with zone."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def _identity(fields: dict[str, Any], prefix: str) -> ProcessIdentity | None:
    pid, create_time = fields[f"{prefix}pid"], fields[f"{prefix}create_time"]
    return None if pid is None else ProcessIdentity(pid=int(pid), create_time=float(create_time))
