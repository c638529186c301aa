"""`train`: one start of a run from its configuration to its end, with everything that surrounds the loop."""

from __future__ import annotations

import gc
import shlex
import sys
import traceback
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bottleneck_core.config import RunConfig
from bottleneck_core.data.batches import Batches
from bottleneck_core.data.tokenfile import TokenFile
from bottleneck_core.errors import UserError
from bottleneck_core.model import GPT, build_model, count_parameters
from bottleneck_core.probe.selection import parse_selection
from bottleneck_core.store.atomic import atomic_write_text
from bottleneck_core.store.layout import RunPaths
from bottleneck_core.store.lock import RunLock
from bottleneck_core.store.manifest import write_end, write_manifest
from bottleneck_core.train.checkpoint import Checkpoint, find_last, load_checkpoint, read_checkpoint
from bottleneck_core.train.guard import EXIT_CODES, NonFinite, StopRequest
from bottleneck_core.train.live import LiveView, live_view
from bottleneck_core.train.loop import Trainer
from bottleneck_core.train.recorder import Recorder
from bottleneck_core.train.runtime import Runtime
from bottleneck_core.train.start import Start, choose_start, data_path, open_data
from bottleneck_core.train.world import World


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: `reason` completed, max_minutes, sigint, sigterm or nonfinite; `step` finished steps."""

    folder: Path
    reason: str
    step: int
    best_val_loss: float | None
    best_val_step: int | None

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.reason]


def train(config: RunConfig, *, console: bool = False) -> TrainResult:
    """Train `config` in its folder, or go on there with `resume`. `console` prints progress.

    Raises UserError for what the user can mend: a folder that holds a run, data that does not fit, a second trainer.
    """
    world = World(Runtime.choose(config).device)
    try:
        result = _session(config, world, console)
        # The wrapped model holds the process group, and a group that is torn down after its peers have gone may wait
        # for them for ever: nothing of it is left when the processes part, and they part together.
        gc.collect()
        world.part()
        return result
    finally:
        world.close()


def _session(config: RunConfig, world: World, console: bool) -> TrainResult:
    with ExitStack() as stack:
        # Signals count from here on: a stop during set-up is a stop at the first step.
        stop = stack.enter_context(StopRequest(config.max_minutes))
        start: Start = world.first(lambda: choose_start(config, world.size))
        path = world.first(lambda: data_path(start.config))  # one process makes the built-in corpus
        config, tokens, warnings = open_data(start.config, path)
        if config.shard and world.size == 1:
            raise UserError(
                "--shard shares a model out among several processes and this is one: start them with torchrun "
                "--nproc-per-node N -m bottleneck_core train ..., or leave --shard out"
            )
        runtime = Runtime.choose(config)
        stack.callback(
            torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()
        )  # as it was, at the end
        runtime.prepare()
        checkpoint = None
        if start.checkpoint is not None:
            checkpoint = read_checkpoint(start.checkpoint, runtime.device, whole=not config.shard)
        if checkpoint is not None and checkpoint.training is not None:
            warnings += _differences(checkpoint, checkpoint.training, tokens, runtime)
        batches = _batches(config, tokens, runtime, world)
        _check_selections(config)
        model = build_model(config, device=runtime.device)
        if config.init_from and checkpoint is None:
            _copy_weights(model, config.init_from)
        if world.is_main:
            start.paths.dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(RunLock(start.paths.dir))
            _describe_run(start.paths, config, runtime, world, tokens, count_parameters(model))
        view = live_view(
            console=console and world.is_main,
            live_plot=config.live_plot and world.is_main,
            title=start.paths.dir.name,
            steps=config.steps,
        )
        recorder = Recorder(
            config if world.is_main else config.model_copy(update={"instrument": "off", "tb": False}),
            start.paths,
            view if world.is_main else LiveView(),
            device=runtime.device_name,
            command=shlex.join(_command()),
        )
        stack.callback(recorder.close)
        for warning in warnings:
            view.message(f"warning: {warning}")
        trainer = Trainer(
            config,
            model,
            batches,
            runtime=runtime,
            world=world,
            recorder=recorder,
            stop=stop,
            paths=start.paths,
            data_sha256=tokens.sha256,
        )
        if checkpoint is None:
            recorder.begin(runtime.environment(), _command(), _data_facts(config, tokens, batches))
        else:
            trainer.load(checkpoint)
            recorder.resume(trainer.step, trainer.observed, str(checkpoint.path))
            if trainer.step >= config.steps:
                view.message(f"the run is finished at {trainer.step} steps: give more --steps to go on")
        return _run(trainer, start, world, view)


def _differences(checkpoint: Checkpoint, training: dict[str, Any], tokens: TokenFile, runtime: Runtime) -> list[str]:
    """Warnings where a resumed run will not be bit-identical; raises UserError where its data are others."""
    if training["data"]["sha256"] != tokens.sha256:
        raise UserError(f"{tokens.path} is not the data that {checkpoint.path} was trained on: give that file")
    if runtime.device.type == "cpu" and training["threads"] != runtime.threads:
        return [
            f"the run used {training['threads']} threads and now uses {runtime.threads}: results will differ in the "
            "last bits"
        ]
    return []


def _batches(config: RunConfig, tokens: TokenFile, runtime: Runtime, world: World) -> Batches:
    return Batches(
        tokens.tokens,
        block_size=config.block_size,
        val_frac=config.val_frac,
        batch_size=config.batch_size,
        grad_accum=config.grad_accum,
        seed=config.seed,
        eval_iters=config.eval_iters,
        rank=world.rank,
        world_size=world.size,
        device=runtime.device,
    )


def _command() -> list[str]:
    """This process's words, without the folders that the program happens to be installed in."""
    program = Path(sys.argv[0])
    name = ["python", "-m", program.parent.name] if program.name == "__main__.py" else [program.name]
    return [*name, *sys.argv[1:]]


def _check_selections(config: RunConfig) -> None:
    """A mistake in the probe's layers and heads is told before anything is written."""
    parse_selection(config.analysis_layers, config.n_layer, "layer")
    parse_selection(config.analysis_heads, config.n_head, "head")


def _describe_run(
    paths: RunPaths, config: RunConfig, runtime: Runtime, world: World, tokens: TokenFile, n_params: int
) -> None:
    """Write what is known before the first step: configuration and manifest."""
    distributed = None if world.size == 1 else "fsdp" if config.shard else "ddp"
    atomic_write_text(paths.config, config.model_dump_json(indent=2) + "\n")
    write_manifest(
        paths.manifest,
        argv=_command(),
        runtime=runtime.describe() | {"distributed": distributed},
        gpus=[torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        seeds={"init": config.seed, "data": config.seed, "dropout": config.seed},
        data_sha256=tokens.sha256,
        n_params=n_params,
    )


def _data_facts(config: RunConfig, tokens: TokenFile, batches: Batches) -> dict[str, Any]:
    n_train, n_val = batches.split_sizes
    return {
        "data_format": tokens.format,
        "data_dtype": config.data_dtype,
        "n_tokens_total": len(tokens),
        "n_tokens_train": n_train,
        "n_tokens_val": n_val,
    }


def _run(trainer: Trainer, start: Start, world: World, view: LiveView) -> TrainResult:
    extra: dict[str, Any] = {}
    error: BaseException | None = None
    try:
        reason = trainer.run()
    except NonFinite as problem:
        reason = "nonfinite"
        trainer.recorder.nonfinite(problem.step, problem.loss, problem.grad_norm)
        last = find_last(start.paths)
        kept = f"; {last} holds the last good state" if last else ""
        view.message(f"error: {problem}{kept}")
    except Exception as problem:  # recorded for those who read the run folder, then raised
        reason, error = "error", problem
        extra["error"] = "".join(traceback.format_exception_only(problem)).strip()
    best = trainer.best
    if world.is_main:
        trainer.recorder.end(trainer.step, reason, best.val_loss, best.step, **extra)
        exit_code = EXIT_CODES.get(reason, 1)
        write_end(start.paths.manifest, reason=reason, step=trainer.step, exit_code=exit_code)
    if error is not None:
        raise error
    return TrainResult(start.paths.dir, reason, trainer.step, best.val_loss, best.step)


def _copy_weights(model: GPT, source: str) -> None:
    checkpoint = load_checkpoint(source, next(model.parameters()).device)
    ours = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in checkpoint.model.items()}
    if ours != theirs:
        name = next(name for name in ours | theirs if ours.get(name) != theirs.get(name))
        raise UserError(
            f"--init-from {source} does not fit this model: {name} is {theirs.get(name, 'absent')} there and "
            f"{ours.get(name, 'absent')} here; give the same model settings"
        )
    model.load_state_dict(checkpoint.model)
