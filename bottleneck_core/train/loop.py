"""The training loop: observe, save, step.

Step s stands for s finished optimiser steps. At each step the loop first evaluates and probes where that is due, then
saves, then trains: a checkpoint of step s knows which observations of step s were made, so that a resumed run makes
the others and none twice.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bottleneck_core.config import RunConfig
from bottleneck_core.data.batches import Batches
from bottleneck_core.data.prefetch import Prefetch
from bottleneck_core.memory import training_flops_per_token
from bottleneck_core.model import GPT, parameter_groups
from bottleneck_core.probe import begin_probe
from bottleneck_core.store.layout import RunPaths
from bottleneck_core.train.background import Background
from bottleneck_core.train.checkpoint import (
    Checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
    save_last,
)
from bottleneck_core.train.graph import GraphedStep
from bottleneck_core.train.guard import FiniteGuard, StopRequest
from bottleneck_core.train.optimizer import build_optimizer
from bottleneck_core.train.recorder import Recorder
from bottleneck_core.train.runtime import Runtime
from bottleneck_core.train.schedule import learning_rate
from bottleneck_core.train.sharded import in_shards, shard_model, whole_model, whole_weights
from bottleneck_core.train.step import GradientNorms, StepResult, TrainStep
from bottleneck_core.train.validation import Interrupted, evaluate
from bottleneck_core.train.world import World

PROBE_WINDOWS = 8
_GROUPS = ("embed", "attn", "ffn", "attn_sem", "attn_geo")


@dataclass
class Best:
    """The least validation loss so far, in nats, and its step."""

    val_loss: float | None = None
    step: int | None = None

    def improves(self, val_loss: float) -> bool:
        return val_loss - val_loss == 0 and (self.val_loss is None or val_loss < self.val_loss)


class Stopwatch:
    """Seconds and steps of training alone; evaluation, probes and saving are outside."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._since: float | None = None
        self.seconds, self.steps = 0.0, 0

    def step_begins(self) -> None:
        if self._since is None:
            self._runtime.synchronize()
            self._since = time.perf_counter()
        self.steps += 1

    def pause(self) -> None:
        if self._since is not None:
            self._runtime.synchronize()
            self.seconds += time.perf_counter() - self._since
            self._since = None

    def reset(self) -> None:
        self.seconds, self.steps = 0.0, 0


class Trainer:
    """One start of a run, from `step` to its end or a stop."""

    def __init__(
        self,
        config: RunConfig,
        model: GPT,
        batches: Batches,
        *,
        runtime: Runtime,
        world: World,
        recorder: Recorder,
        stop: StopRequest,
        paths: RunPaths,
        data_sha256: str,
    ) -> None:
        self.config, self.batches, self.runtime, self.world = config, batches, runtime, world
        self.recorder, self.stop, self.paths, self.data_sha256 = recorder, stop, paths, data_sha256
        self.raw = model
        if config.shard:
            shard_model(model, runtime, world)
        else:
            runtime.compile(model)
        self.model: nn.Module = model if config.shard else world.wrap(model)
        self.train_batch = (Prefetch(batches) if runtime.device.type == "cuda" else batches).train_batch
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.amp_dtype == torch.float16)
        self.optimizer = build_optimizer(model, config, capturable=runtime.cuda_graph)
        step = TrainStep(
            self.model,
            GradientNorms(parameter_groups(model), world, sharded=config.shard),
            self.optimizer,
            self.scaler,
            runtime=runtime,
            world=world,
            grad_clip=config.grad_clip,
        )
        self.compute = GraphedStep(step) if runtime.cuda_graph else step
        self.guard = FiniteGuard(lag=int(runtime.device.type == "cuda"), check_norm=not self.scaler.is_enabled())
        self.watch = Stopwatch(runtime)
        self.record = Background(threaded=runtime.device.type == "cuda")
        self.best = Best()
        self.step = 0
        self.observed = {"eval": False, "analysis": False}
        self._saved: tuple[int, dict[str, bool]] | None = None

    def run(self) -> str:
        """Train until the end or a stop; returns the reason. Raises NonFinite."""
        self.model.train()
        try:
            return self._run()
        finally:
            gc.unfreeze()
            self.record.close()

    def _run(self) -> str:
        first = self.step
        while True:
            code = self.world.largest(self.stop.code)
            if not code:
                try:
                    self.observe()
                except Interrupted:
                    code = self.world.largest(self.stop.code)
            finished = self.step >= self.config.steps
            if code or finished or self.step % self.config.checkpoint_every == 0:
                self.save()
            if code or finished:
                self.record.wait()
                return self.stop.reason(code) or "completed"
            self.train_step()
            if self.step == first:
                # Model, optimiser and compiled code are there now and stay: the collector need not walk over them.
                gc.collect()
                gc.freeze()
            self.step += 1
            self.observed = dict.fromkeys(self.observed, False)

    def train_step(self) -> None:
        config, step = self.config, self.step
        self.watch.step_begins()
        lr = learning_rate(config, step)
        self.optimizer.set_lr(lr)
        if config.dropout:  # named by seed, step and rank: the masks do not depend on what was drawn before
            torch.manual_seed(((config.seed << 40) + (step << 10) + self.world.rank) % (1 << 63))

        result = self.compute((self.train_batch(step, m) for m in range(config.grad_accum)), config.grad_accum)
        self.guard.watch(step, result.loss, result.total_norm)
        if step % config.log_every == 0 or step == config.steps - 1:
            self.guard.settle()
            self.log(lr, result)

    def log(self, lr: float, result: StepResult) -> None:
        """The train event of this step; speeds are means since the last one."""
        self.watch.pause()
        tokens = self.config.tokens_per_step
        tok_s = tokens * self.watch.steps / self.watch.seconds
        peak, held = self.runtime.peak_flops, self.runtime.peak_memory
        flops = training_flops_per_token(self.config, self.raw.embed.num_embeddings)
        fields: dict[str, float | None] = {
            "lr": lr,
            "tokens": (self.step + 1) * tokens,
            "tok_s": tok_s,
            "step_ms": 1e3 * self.watch.seconds / self.watch.steps,
            "mfu": None if peak is None else flops * tok_s / (peak * self.world.size),
            "device_peak_bytes": None if held is None else self.world.largest(held),
            **{f"grad_norm_{name}": result.norm_of(name) for name in _GROUPS},
            "grad_clip_total_norm": result.total_norm.item(),
        }
        self.record(self.recorder.train, self.step, result.loss.item(), fields)
        self.watch.reset()

    def observe(self) -> None:
        """Evaluate and probe where this step asks for it. Raises Interrupted when a stop came meanwhile."""
        last = self.step >= self.config.steps
        if (last or self.step % self.config.eval_every == 0) and not self.observed["eval"]:
            self.watch.pause()
            self.guard.settle()
            result = evaluate(self.model, self.batches, self.runtime, self.world, self.stop)
            if self.best.improves(result.val_loss):
                self.best = Best(result.val_loss, self.step)
                weights = whole_weights(self.raw, self.world)
                if self.world.is_main:
                    save_checkpoint(self.paths.best, self.config, weights, self.step)
            if self.world.is_main:
                self.record(self.recorder.evaluation, self.step, result, self.best.val_loss)
            self.observed["eval"] = True
        every = self.config.analysis_every if self.config.instrument != "off" else 0
        if every and (last or self.step % every == 0) and not self.observed["analysis"]:
            self.watch.pause()
            self.guard.settle()
            model = whole_model(self.raw, self.config, self.runtime, self.world)
            if self.world.is_main:
                self.probe(model)
            self.observed["analysis"] = True

    def probe(self, model: GPT) -> None:
        config = self.config
        tokens, _ = self.batches.probe_windows(PROBE_WINDOWS, min(config.block_size, config.analysis_max_tokens))
        probe = begin_probe(
            model,
            tokens,
            topk=config.analysis_topk,
            local_window=config.analysis_local_window,
            layers=config.analysis_layers,
            heads=config.analysis_heads,
            full=config.instrument == "full",
            save_scores=config.analysis_save_scores,
        )
        self.record(lambda step: self.recorder.analysis(step, probe.result(), tokens.cpu().numpy()), self.step)

    def save(self) -> None:
        """Write the checkpoint to resume from, after the events it stands for."""
        state = (self.step, dict(self.observed))
        if state == self._saved:
            return
        self.watch.pause()
        self.guard.settle()
        if self.world.is_main:
            self.record.wait()
            self.recorder.flush()
        training: dict[str, Any] = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random_state(self.runtime.device),
            "data": {"sha256": self.data_sha256, "next_step": self.step},
            "observed": dict(self.observed),
            "best": {"val_loss": self.best.val_loss, "step": self.best.step},
            "threads": self.runtime.threads,
        }
        save_last(self.paths, self.config, self.raw.state_dict(), self.step, training, self.world)
        self._saved = state

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on exactly where `checkpoint` (one with `training`) was written."""
        if self.config.shard:
            checkpoint = in_shards(checkpoint, self.raw, self.optimizer, self.world)
        training = checkpoint.training or {}
        self.raw.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(training["optimizer"])
        self.scaler.load_state_dict(training["scaler"])
        restore_random_state(training["random"], self.runtime.device)
        self.best = Best(**training["best"])
        self.step = checkpoint.step
        self.observed = dict(training["observed"])
        self._saved = (self.step, dict(self.observed))
