"""What a run writes about itself: events, analysis.h5, TensorBoard scalars, and at its end summary and picture.

The loop tells what happened; this file knows formats and names. On other processes than the first, and with
`--instrument off`, the same calls write nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np

from bottleneck_core.config import RunConfig, model_view, training_args
from bottleneck_core.errors import UserError
from bottleneck_core.memory import TOKENS_128K, kv_memory
from bottleneck_core.probe import ProbeResult
from bottleneck_core.store.analysis import AnalysisError, AnalysisFile, AnalysisWriter
from bottleneck_core.store.events import EventWriter, drop_after, read_events
from bottleneck_core.store.layout import RunPaths
from bottleneck_core.store.summary import write_summary
from bottleneck_core.train.live import LiveView
from bottleneck_core.train.validation import Evaluation, perplexity


class Recorder:
    """Writes the events of one start of a run. `live` receives every event, for the terminal."""

    def __init__(self, config: RunConfig, paths: RunPaths, live: LiveView, *, device: str, command: str) -> None:
        self.config, self.paths, self.live = config, paths, live
        self.device, self.command = device, command
        self._created = datetime.now().astimezone().isoformat(timespec="seconds")
        self._writes = config.instrument != "off"
        self._events: EventWriter | None = None
        self._analysis: AnalysisWriter | None = None
        self._tb = _tensorboard(paths) if config.tb else None

    def begin(self, environment: Mapping[str, Any], argv: list[str], data: Mapping[str, Any]) -> None:
        """A run from step 0: whatever an earlier start left behind without a checkpoint is replaced."""
        if not self._writes:
            return
        for stale in (self.paths.events, self.paths.analysis, self.paths.picture):
            stale.unlink(missing_ok=True)
        self._events = EventWriter(self.paths.events)
        config = model_view(self.config, self.config.vocab_size)
        self._event("meta", 0, env=dict(environment), argv=argv, args=training_args(self.config), config=config)
        context = self.config.block_size
        kv = {
            "kv_ctx_bytes": kv_memory(self.config, context).bytes,
            "kv_128k_bytes": kv_memory(self.config, TOKENS_128K).bytes,
        }
        self._event("mem", 0, **kv, **data, vocab_size=self.config.vocab_size)
        self._summarise(0, None)

    def resume(self, step: int, done: Mapping[str, bool], checkpoint: str) -> None:
        """A run that goes on at `step`: later events are dropped, `done` says which observations that step has."""
        if not self._writes:
            return
        kept = {"meta", "mem", "resume", "done", "train"} | {kind for kind, made in done.items() if made}
        if self.paths.events.exists():
            drop_after(self.paths.events, step, kept)
        self._events = EventWriter(self.paths.events)
        if self.paths.analysis.exists() and self.config.instrument == "full":
            try:
                last = step if done["analysis"] else step - 1
                self._analysis = AnalysisWriter.resume(self.paths.analysis, keep_through_step=last)
            except AnalysisError as error:
                raise UserError(f"{error}: move the file away to go on without its earlier rows") from None
        self._event("resume", step, checkpoint=checkpoint)

    def train(self, step: int, loss: float, fields: Mapping[str, float | None]) -> None:
        self._event("train", step, loss=loss, ppl=perplexity(loss), **fields)

    def evaluation(self, step: int, result: Evaluation, best: float | None) -> None:
        self._event(
            "eval",
            step,
            train_loss=result.train_loss,
            val_loss=result.val_loss,
            val_ppl=result.val_ppl,
            best_val=best,
        )

    def analysis(self, step: int, result: ProbeResult, tokens: np.ndarray) -> None:
        """`tokens`: the probe's windows [N, T], stored once."""
        self._event("analysis", step, **result.scalars())
        if self.config.instrument != "full" or not self._writes:
            return
        if self._analysis is None:
            self._analysis = self._new_analysis(result, tokens)
        scores = {"sem": result.sem_scores, "geo": result.geo_scores} if result.sem_scores else None
        self._analysis.append(
            step, attn=result.attn, weights=result.weights, maps=result.maps, svd=result.svd, scores=scores
        )

    def nonfinite(self, step: int, loss: float, grad_norm: float) -> None:
        self._event("nonfinite", step, loss=loss, grad_clip_total_norm=grad_norm)

    def flush(self) -> None:
        """Make the events as durable as the checkpoint that follows."""
        if self._events is not None:
            self._events.flush()

    def end(self, step: int, reason: str, best: float | None, best_step: int | None, **fields: Any) -> None:
        """The last event, then what is made of all of them: the summary and the picture."""
        self._event("done", step, reason=reason, best_val_loss=best, best_val_step=best_step, **fields)
        self.close()
        if self._writes:
            self._summarise(step, best)
            self._draw()

    def close(self) -> None:
        """Close the files; no end is written."""
        for part in (self._events, self._analysis, self._tb):
            if part is not None:
                part.close()
        self._events = self._analysis = self._tb = None
        self.live.close()

    def _event(self, kind: str, step: int, **fields: Any) -> None:
        if self._events is not None:
            self._events.write(kind, step, **fields)
        if self._tb is not None and kind in ("train", "eval", "analysis"):
            for name, value in fields.items():
                if isinstance(value, (int, float)):
                    self._tb.add_scalar(f"{kind}/{name}", value, step)
        self.live.event(kind, step, fields)

    def _new_analysis(self, result: ProbeResult, tokens: np.ndarray) -> AnalysisWriter:
        attributes = {
            "config": self.config.model_dump(mode="json"),
            "topk": self.config.analysis_topk,
            "local_window": self.config.analysis_local_window,
        }
        return AnalysisWriter.create(
            self.paths.analysis,
            n_layer=self.config.n_layer,
            n_head=self.config.n_head,
            attn_metrics=result.attn,
            weight_metrics=result.weights,
            chosen=result.maps,
            map_size=tokens.shape[1],
            save_scores=bool(result.sem_scores),
            probe_tokens=tokens,
            attrs=attributes,
        )

    def _summarise(self, step: int, best: float | None) -> None:
        kv = kv_memory(self.config, self.config.block_size)
        write_summary(
            self.paths.summary,
            created=self._created,
            out_dir=str(self.paths.dir),
            device=self.device,
            command=self.command,
            size=self.config.size,
            exp=self.config.exp,
            model_config=model_view(self.config, self.config.vocab_size),
            training_args=training_args(self.config),
            last_step=step,
            best_val_loss=best,
            kv={
                "context": self.config.block_size,
                "baseline_fp16_bytes": kv.baseline_fp16_bytes,
                "policy_bytes": kv.bytes,
                "policy_128k_bytes": kv_memory(self.config, TOKENS_128K).bytes,
                "compression": kv.compression,
            },
            last=(self.paths.last_dcp if self.config.shard else self.paths.last).name,
        )

    def _draw(self) -> None:
        # Read back rather than remembered: a resumed run is drawn whole. matplotlib and pandas are loaded here only.
        import pandas as pd

        from bottleneck_core.figures.static import write_picture

        # Line by line whatever the size: the quicker scan of big files would load duckdb into the trainer.
        frames = read_events(self.paths.events, cold_bytes=sys.maxsize).frames
        train, eval, analysis = (frames.get(kind, pd.DataFrame()) for kind in ("train", "eval", "analysis"))
        attention = {}
        if self.paths.analysis.exists():
            file = AnalysisFile.open(self.paths.analysis)
            attention = {metric: (file.steps, file.attn(metric)) for metric in file.attn_metrics}
        title = f"{self.paths.dir.name}: {self.config.attn_mode}, {self.config.n_layer} layers"
        write_picture(
            self.paths.picture,
            title=title,
            train=train,
            eval=eval,
            analysis=analysis,
            attention=attention,
        )


def _tensorboard(paths: RunPaths) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError('--tb needs the package tensorboard: pip install "bottleneck-core[tensorboard]"') from None
    return SummaryWriter(paths.dir / "tb")
