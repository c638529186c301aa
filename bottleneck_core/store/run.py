"""One run folder as an object: settings, curves, attention metrics, and what is wrong with it.

Reading is lazy and never fails on content: what is missing, half-written or from another system is named in
`errors`. Everything is as of the last `refresh`, which follows a run in training at the cost of what is new.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bottleneck_core.errors import UserError
from bottleneck_core.store.analysis_access import AnalysisAccess
from bottleneck_core.store.checks import analysis_checks, quick_checks
from bottleneck_core.store.curves import COLUMNS, Curve
from bottleneck_core.store.description import Description
from bottleneck_core.store.event_log import EventLog
from bottleneck_core.store.foreign import normalised_config
from bottleneck_core.store.layout import RunPaths, find_runs, run_status
from bottleneck_core.store.summary import read_model_config, read_training_args

if TYPE_CHECKING:
    import pandas as pd


class Run(AnalysisAccess):
    """One run. `id` is its folder's name, or its path below the root it was found in."""

    def __init__(self, path: str | os.PathLike[str], id: str | None = None) -> None:
        super().__init__(RunPaths(path).analysis)
        self.path = Path(path)
        self.id = id or self.path.resolve().name
        self.paths = RunPaths(self.path)
        self._log = EventLog(self.paths.events)
        self._seen: tuple[object, ...] = ()
        self._status = ""
        self._description: Description | None = None
        self._config: dict[str, Any] | None = None
        self._curves: dict[str, Curve] = {}
        self._frames: dict[str, pd.DataFrame] = {}
        self._best: tuple[int | None] | None = None  # of the last question for it

    def __repr__(self) -> str:
        return f"Run({self.id!r}, {self.attn_mode}, {self.status}, step {self.last_step})"

    def refresh(self) -> bool:
        """Read what is new. True where anything changed, the status included, and on the first call."""
        self._status = run_status(self.path)
        seen = (self._status, *Description.stamps(self.paths))
        changed = seen != self._seen
        if changed:
            self._seen = seen
            self._description = Description.read(self.paths)
        changed |= self._log.refresh()
        if changed:
            self._curves, self._frames, self._config, self._best = {}, {}, None, None
        return self.refresh_analysis() or changed

    @property
    def status(self) -> str:
        """queued, running, stopped, done, failed or lost."""
        self._read()
        return self._status

    @property
    def description(self) -> Description:
        """The small files of the folder."""
        return self._read()

    @property
    def config(self) -> dict[str, Any]:
        """All settings, flat, under our names; those of foreign runs are translated."""
        if self._config is None:
            self._config = self._read().config or self._reported_config()
        return self._config

    @property
    def model(self) -> dict[str, Any]:
        """The settings that fix the network; a vocabulary that they leave open is the data's."""
        from bottleneck_core.config import ModelConfig

        config = self.config
        names = [*ModelConfig.model_fields, *_mapping(self._event("meta").get("config"))]
        model = {name: config[name] for name in names if name in config}
        if model and model.get("vocab_size") is None:
            model["vocab_size"] = self.mem.get("vocab_size")
        return model

    @property
    def manifest(self) -> dict[str, Any]:
        """manifest.json; empty where there is none."""
        return self._read().manifest

    @property
    def errors(self) -> list[str]:
        """What is missing or broken, one sentence each."""
        return quick_checks(self) + analysis_checks(self)

    @property
    def quick_errors(self) -> list[str]:
        """As `errors`, without opening analysis.h5."""
        return quick_checks(self)

    @property
    def train(self) -> pd.DataFrame:
        """One row a logged step: events' columns, `ppl`, `tokens` (seen after it), `time_s` (of training)."""
        return self._frame("train")

    @property
    def eval(self) -> pd.DataFrame:
        """One row an evaluation: `train_loss` and `val_loss` in nats, `val_ppl`, `tokens`, `time_s`."""
        return self._frame("eval")

    @property
    def analysis(self) -> pd.DataFrame:
        """One row a probe, means over layers and heads; probes that failed have an `error`."""
        return self._frame("analysis")

    def curve(self, kind: str) -> Curve:
        """Train, eval or analysis, as the frame of that name: single columns, which cost no frame."""
        self._read()
        if kind not in self._curves:
            train = None if kind == "train" else self.curve("train")
            self._curves[kind] = Curve(self._log, kind, self.config, train)
        return self._curves[kind]

    @property
    def events(self) -> EventLog:
        """All events, by type."""
        self._read()
        return self._log

    @property
    def mem(self) -> dict[str, Any]:
        """The memory event: cache bytes at the training context and at 128k, sizes of the data."""
        return {name: value for name, value in self._event("mem").items() if name not in ("step", "wall_time")}

    @property
    def summary_text(self) -> str:
        """summary.md, empty where there is none."""
        return self._read().summary

    @property
    def argv(self) -> list[str]:
        """The command line that started the run."""
        for words in (self.manifest.get("argv"), self._event("meta").get("argv")):
            if isinstance(words, list):
                return [str(word) for word in words]
        command = self.description.header.get("Command", "")
        try:
            return shlex.split(command)
        except ValueError:
            return command.split()

    @property
    def created(self) -> str | None:
        """When the run was first started, ISO 8601."""
        times = (self.manifest.get("created"), self._event("meta").get("wall_time"))
        return next((time for time in times if isinstance(time, str)), self.description.header.get("Created"))

    @property
    def best_val_loss(self) -> float | None:
        """Least validation loss in nats; a foreign summary's wins over its events: it saw all of the run."""
        recorded = self.description.results.best_val_loss if self.description.is_foreign else None
        return self.least_val_loss if recorded is None else recorded

    @property
    def least_val_loss(self) -> float | None:
        """Least validation loss among the eval events."""
        row = self._best_row()
        return None if row is None else float(self.curve("eval").values("val_loss")[row])

    @property
    def best_val_step(self) -> int | None:
        """The step of the least validation loss among the eval events."""
        row = self._best_row()
        return None if row is None else int(self.curve("eval").steps[row])

    @property
    def last_step(self) -> int | None:
        """The highest step of any curve or of the manifest's end; where there is neither, the summary's."""
        steps = [self.events.last_step(COLUMNS), _mapping(self.manifest.get("ended")).get("step")]
        known = [step for step in steps if isinstance(step, int)]
        return max(known) if known else self.description.results.last_step

    @property
    def n_params(self) -> int | None:
        """Parameters of the network, where they were recorded."""
        recorded = (self.manifest.get("n_params"), self._event("meta").get("n_params"))
        return next((int(count) for count in recorded if isinstance(count, (int, float))), None)

    @property
    def kv_bytes_128k(self) -> int | None:
        """Bytes of the KV cache of one request at 128,000 tokens, where they were recorded."""
        recorded = self.mem.get("kv_128k_bytes")
        return int(recorded) if isinstance(recorded, (int, float)) else None

    @property
    def attn_mode(self) -> str | None:
        """standard, gqa, bottleneck or decoupled."""
        return self.config.get("attn_mode")

    @property
    def size(self) -> str | None:
        """The size preset, if one was used."""
        return self.config.get("size")

    @property
    def exp(self) -> str | None:
        """The experiment preset, if one was used."""
        return self.config.get("exp")

    def _read(self) -> Description:
        if self._description is None:
            self.refresh()
        assert self._description is not None
        return self._description

    def _event(self, kind: str) -> dict[str, Any]:
        self._read()
        return self._log.last(kind)

    def _frame(self, kind: str) -> pd.DataFrame:
        curve = self.curve(kind)
        if kind not in self._frames:
            self._frames[kind] = curve.frame()
        return self._frames[kind].copy(deep=False)  # pandas copies what is written to

    def _reported_config(self) -> dict[str, Any]:
        """Settings of a run without config.json, as its summary and its first event tell them."""
        about, meta = self._read(), self._event("meta")
        header = {"size": about.header.get("Size preset"), "exp": about.header.get("Experiment")}
        return normalised_config(
            {**header, **read_training_args(about.summary), **_mapping(meta.get("args"))},
            _mapping(meta.get("config")),
            read_model_config(about.summary),
        )

    def _best_row(self) -> int | None:
        self._read()
        if self._best is None:
            losses = self.curve("eval").values("val_loss")
            known = np.flatnonzero(~np.isnan(losses))
            self._best = (int(known[losses[known].argmin()]) if len(known) else None,)
        return self._best[0]


class RunList(list[Run]):
    """Runs sorted by id."""

    @property
    def errors(self) -> list[str]:
        """The sentences of all runs, each with its run's id in front."""
        return [f"{run.id}: {error}" for run in self for error in run.errors]


def load_run(path: str | os.PathLike[str]) -> Run:
    """The run in a folder, ours or a foreign one, complete or not. Raises UserError where there is none."""
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path} is no run folder: give the folder that holds the run's train.jsonl")
    if not any(known.exists() for known in RunPaths(path).all):
        raise UserError(f"{path} holds no run: a run folder has a train.jsonl, manifest.json or summary.md")
    return Run(path)


def load_runs(root: str | os.PathLike[str]) -> RunList:
    """Runs at a folder and up to three levels below, by id. Raises UserError for no such folder."""
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root} is no folder: name the folder that holds your runs")
    found = {path: path.relative_to(root).as_posix() for path in find_runs(root)}
    return RunList(
        sorted((Run(path, None if path == root else id) for path, id in found.items()), key=lambda run: run.id)
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
