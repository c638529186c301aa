"""`jobs add -- train ...`: put a run into the queue of its device, in the folder that `train` would take."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from bottleneck_core.cli.flags import read_flags
from bottleneck_core.cli.jobs import DEFAULT_DIR, job_rows
from bottleneck_core.cli.jobs_change import where_it_is
from bottleneck_core.cli.words import read_words
from bottleneck_core.config import RunConfig, flag_of
from bottleneck_core.errors import UserError
from bottleneck_core.jobs import job_state, queue_job, queued_jobs
from bottleneck_core.jobs.queue import device_name
from bottleneck_core.store.layout import RunPaths, next_free_id

_USAGE = "jobs add takes the run after --, as in: jobs add --device cpu -- train --size nano --exp paper_bottleneck"


@dataclass(frozen=True, kw_only=True)
class Words:
    """Queue a run: `jobs add [--device D] [--nproc N] -- train ...`, with the flags of train."""

    device: str | None = None
    """device that the run waits for; unset: that of train's flags, else cuda:0, else mps, else cpu"""
    nproc: int = 1
    """processes that train together, through torchrun; on GPUs each takes one"""
    runs: Path = DEFAULT_DIR
    """parent of the run folders, which has the queue"""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """print one JSON document and nothing else"""


def main(argv: list[str]) -> int:
    """Exit codes: 0 queued or started; 2 a user's mistake, with nothing queued."""
    at = argv.index("--") if "--" in argv else len(argv)
    words = read_words(Words, argv[1:at], prog="python -m bottleneck_core jobs add")
    if argv[at + 1 : at + 2] != ["train"]:
        raise UserError(_USAGE)
    given, switches = read_flags(
        argv[at + 2 :],
        prog="python -m bottleneck_core jobs add -- train",
        description="Queue a run.",
        switches=("print_config",),
    )
    if switches["print_config"]:
        raise UserError("--print-config trains nothing: leave out jobs add, or the flag")
    if not given.keys() & {"out_dir", "run_root"}:
        given["run_root"] = str(words.runs)
    device = _device(words.device, given)
    # Under torchrun each process has a GPU of its own, which a number would take from it.
    given["device"] = "cuda" if words.nproc > 1 and device.startswith("cuda") else device
    runs = [(config, _free_folder(config)) for config in RunConfig.resolve_all(**given)]
    jobs = []
    for config, folder in runs:
        own = given | {"exp": config.exp, "out_dir": str(folder)}
        job = queue_job(["train", *_flags(own)], folder, root=words.runs, device=device, nproc=words.nproc)
        jobs.append(job)
        if not words.json:
            print(where_it_is(job, words.runs), flush=True)
    if words.json:
        print(json.dumps(job_rows(jobs, queued_jobs(words.runs)), indent=2, allow_nan=False))
    return 0


def _device(asked: str | None, given: dict[str, Any]) -> str:
    trained_on = given.get("device")
    if asked and trained_on and asked != trained_on:
        raise UserError(f"--device is {asked} before -- and {trained_on} after it: give one")
    if chosen := asked or trained_on:
        return device_name(chosen)
    import torch  # what train would choose; only it knows

    return "cuda:0" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _free_folder(config: RunConfig) -> Path:
    """The folder that `train` would take. Raises UserError where it would not, and where a job has it."""
    folder = Path(config.folder)
    if config.resume not in (None, "auto") and "out_dir" not in config.given:
        source = Path(config.resume)
        folder = source if source.is_dir() else source.parent
    paths = RunPaths(folder)
    state = job_state(folder)
    trained = any(path.exists() for path in (paths.events, paths.manifest, paths.last, paths.analysis, paths.summary))
    if state in ("queued", "running"):
        does = "waits" if state == "queued" else "runs"
        raise UserError(f"a job {does} in {folder} already: give --out-dir {_next_free(folder)}")
    if trained and config.resume is None:
        raise UserError(
            f"{folder} holds a run already: add --resume to continue it, or give --out-dir {_next_free(folder)}"
        )
    return folder


def _next_free(folder: Path) -> Path:
    return folder.with_name(next_free_id(folder.parent, folder.name))


def _flags(settings: dict[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in settings.items():
        flag = flag_of(name)
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif name == "resume" and value == "auto":
            words.append(flag)
        elif name not in ("exp", "run_root") or (name == "exp" and value is not None):
            words.append(f"{flag}={'none' if value is None else value}")
    return words
