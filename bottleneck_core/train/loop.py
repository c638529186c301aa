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
from torch import Tensor, nn

from bottleneck_core.config import RunConfig
from bottleneck_core.data.batches import Batches
from bottleneck_core.data.prefetch import Prefetch
from bottleneck_core.memory import training_flops_per_token
from bottleneck_core.model import GPT, parameter_groups
from bottleneck_core.probe import attention_metrics
from bottleneck_core.store.layout import RunPaths
from bottleneck_core.train.checkpoint import Checkpoint, random_state, restore_random_state, save_checkpoint
from bottleneck_core.train.guard import FiniteGuard, StopRequest
from bottleneck_core.train.optimizer import build_optimizer
from bottleneck_core.train.recorder import Recorder
from bottleneck_core.train.runtime import Runtime
from bottleneck_core.train.schedule import learning_rate
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
        runtime.compile(model)
        self.model: nn.Module = world.wrap(model)
        self.train_batch = (Prefetch(batches) if runtime.device.type == "cuda" else batches).train_batch
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.groups = parameter_groups(model)
        self.optimizer = build_optimizer(model, config)
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.amp_dtype == torch.float16)
        self.guard = FiniteGuard(lag=int(runtime.device.type == "cuda"), check_norm=not self.scaler.is_enabled())
        self.watch = Stopwatch(runtime)
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

        loss = torch.zeros((), device=self.runtime.device)
        for micro in range(config.grad_accum):
            x, y = self.train_batch(step, micro)
            with self.world.accumulating(self.model, last=micro == config.grad_accum - 1):
                with self.runtime.autocast():
                    micro_loss = self.model(x, y) / config.grad_accum
                self.scaler.scale(micro_loss).backward()
            loss += micro_loss.detach()

        self.optimizer.unscale(self.scaler)
        logged = step % config.log_every == 0 or step == config.steps - 1
        norms = {name: _norm(self.groups.get(name, [])) for name in _GROUPS} if logged else {}
        total_norm = _norm(self.parameters)
        self.guard.watch(step, loss, total_norm)
        if config.grad_clip:
            nn.utils.clip_grads_with_norm_(self.parameters, config.grad_clip, total_norm)
        self.optimizer.step(self.scaler)
        self.optimizer.zero_grad()
        if logged:
            self.guard.settle()
            self.log(lr, loss, total_norm, norms)

    def log(self, lr: float, loss: Tensor, total_norm: Tensor, norms: dict[str, Tensor]) -> None:
        """The train event of this step; speeds are means since the last one."""
        self.watch.pause()
        mean_loss = self.world.mean(loss).item()
        tokens = self.config.tokens_per_step
        tok_s = tokens * self.watch.steps / self.watch.seconds
        peak = self.runtime.peak_flops
        flops = training_flops_per_token(self.config, self.raw.embed.num_embeddings)
        fields: dict[str, float | None] = {
            "lr": lr,
            "tokens": (self.step + 1) * tokens,
            "tok_s": tok_s,
            "step_ms": 1e3 * self.watch.seconds / self.watch.steps,
            "mfu": None if peak is None else flops * tok_s / (peak * self.world.size),
            "device_peak_bytes": self.runtime.peak_memory,
            **{f"grad_norm_{name}": norm.item() for name, norm in norms.items()},
            "grad_clip_total_norm": total_norm.item(),
        }
        self.recorder.train(self.step, mean_loss, fields)
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
                if self.world.is_main:
                    save_checkpoint(self.paths.best, self.config, self.raw.state_dict(), self.step)
            if self.world.is_main:
                self.recorder.evaluation(self.step, result, self.best.val_loss)
            self.observed["eval"] = True
        every = self.config.analysis_every if self.config.instrument != "off" else 0
        if every and (last or self.step % every == 0) and not self.observed["analysis"]:
            self.watch.pause()
            self.guard.settle()
            if self.world.is_main:
                self.probe()
            self.observed["analysis"] = True

    def probe(self) -> None:
        config = self.config
        tokens, _ = self.batches.probe_windows(PROBE_WINDOWS, min(config.block_size, config.analysis_max_tokens))
        result = attention_metrics(
            self.raw,
            tokens,
            topk=config.analysis_topk,
            local_window=config.analysis_local_window,
            layers=config.analysis_layers,
            heads=config.analysis_heads,
            full=config.instrument == "full",
            save_scores=config.analysis_save_scores,
        )
        self.recorder.analysis(self.step, result, tokens.cpu().numpy())

    def save(self) -> None:
        """Write last.pt, after the events it stands for."""
        state = (self.step, dict(self.observed))
        if state == self._saved:
            return
        self.watch.pause()
        self.guard.settle()
        if self.world.is_main:
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
            save_checkpoint(self.paths.last, self.config, self.raw.state_dict(), self.step, training)
        self._saved = state

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on exactly where `checkpoint` (one with `training`) was written."""
        training = checkpoint.training or {}
        self.raw.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(training["optimizer"])
        self.scaler.load_state_dict(training["scaler"])
        restore_random_state(training["random"], self.runtime.device)
        self.best = Best(**training["best"])
        self.step = checkpoint.step
        self.observed = dict(training["observed"])
        self._saved = (self.step, dict(self.observed))


def _norm(parameters: list[nn.Parameter]) -> Tensor:
    """Global 2-norm of the gradients; 0 where there are none."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
