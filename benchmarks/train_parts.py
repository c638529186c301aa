"""Where a training step's time goes: by part, by kernel, and how long the GPU waits.

    python -m benchmarks.train_parts --data tokens.bin [--cases paper_baseline,reference] [--batch-sizes 16]
        [--steps 20] [--set loss_chunk=4096] [--out DIR]

Each attention variant at size tiny takes the trainer's own steps, compiled and in bf16 as `train` would, the reference
(`reference_gpt`) its own. First some steps are timed without a profiler; then torch.profiler records as many, and each
GPU kernel is given to a part by its name. Products with the vocabulary have names that others have too: two more steps
without a CUDA graph, whose replay hides shapes, say which share of a name is the head's. A part's time is the sum of
its kernels'; idle is the unprofiled step less the time in which any kernel ran. Microseconds a step.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.record import RESULTS, record
from benchmarks.reference_gpt import ReferenceGPT, ReferenceTrainer, batch
from bottleneck_core.config import EXPERIMENTS, RunConfig
from bottleneck_core.data.batches import Batches
from bottleneck_core.model import build_model
from bottleneck_core.store.layout import RunPaths
from bottleneck_core.train.guard import StopRequest
from bottleneck_core.train.live import LiveView
from bottleneck_core.train.loop import Trainer
from bottleneck_core.train.recorder import Recorder
from bottleneck_core.train.runtime import Runtime
from bottleneck_core.train.world import World

VOCABULARY = 50257
REFERENCE = "reference"
HEAD, ATTENTION, MATMUL, ELEMENTWISE = "head and loss", "attention", "other matmuls", "norms and elementwise"
OPTIMISER, CLIPPING, COPIES = "optimiser", "gradient norm and clipping", "copies"
PARTS = (HEAD, ATTENTION, MATMUL, ELEMENTWISE, OPTIMISER, CLIPPING, COPIES)

# The first pattern that is found in a kernel's name decides. Inductor names a fused kernel after all operators in it, a
# neighbouring attention too: so its kernels come before attention's. Flash kernels name cutlass: so before products.
_NAMES: tuple[tuple[str, str], ...] = (
    (r"adam|triton_for_fused", OPTIMISER),
    (r"lpnorm|normtwo|vector_norm", CLIPPING),
    (r"^mem(cpy|set)", COPIES),
    (r"cross_entropy|log_softmax|nll_loss|softmax_online|softmaxforward|softmaxbackward", HEAD),
    (r"triton_tem|triton_mm", MATMUL),
    (r"^triton_\w*fused", ELEMENTWISE),
    (r"flash|fmha|sdpa|attention|attend", ATTENTION),
    (r"nvjet|cutlass|gemm|gemv|cublas|xmma|splitk", MATMUL),
    (r"multi_tensor_apply.*plus", OPTIMISER),  # the optimiser counts its steps
    (r"multi_tensor_apply", CLIPPING),
    (r"copy|catarray", COPIES),
)
_WARM_UP, _HEAVIEST, _NAME_LENGTH, _PADDING = 12, 25, 140, 128
_DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")

Event = dict[str, Any]
Step = Callable[[], None]


def part_of(kernel: str) -> str:
    """The part of a step that a kernel belongs to by its name; matrix products may be the head's all the same."""
    return next((part for pattern, part in _NAMES if re.search(pattern, kernel.lower())), ELEMENTWISE)


def head_shares(trace: list[Event]) -> dict[str, float]:
    """Kernels of products and copies by name: the share of their time in operators that were given the vocabulary.

    `trace`: a Chrome trace with shapes, of steps whose kernels were launched one by one.
    """
    given_vocabulary = set()
    for event in trace:
        if event.get("cat") == "cpu_op":
            sides = _numbers(event["args"].get("Input Dims", []))
            if any(VOCABULARY <= side < VOCABULARY + _PADDING for side in sides):
                given_vocabulary.add(event["args"].get("External id"))
    heads: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for event in trace:
        if event.get("cat") in _DEVICE_WORK and part_of(event["name"]) in (MATMUL, COPIES):
            total[event["name"]] += event["dur"]
            heads[event["name"]] += event["dur"] * (event.get("args", {}).get("External id") in given_vocabulary)
    return {name: heads[name] / us for name, us in total.items() if us}


def split(trace: list[Event], steps: int, head: dict[str, float]) -> dict[str, Any]:
    """What a trace of `steps` steps says: busy us, kernels and parts in us a step, and the heaviest kernels."""
    time_of: defaultdict[tuple[str, str], float] = defaultdict(float)
    count_of: defaultdict[tuple[str, str], float] = defaultdict(float)
    spans = []
    for event in trace:
        if event.get("cat") in _DEVICE_WORK:
            name, part = event["name"], part_of(event["name"])
            share = head.get(name, 0.0)
            for to, weight in ((HEAD, share), (part, 1 - share)):
                if weight:
                    time_of[name, to] += weight * event["dur"]
                    count_of[name, to] += weight
            spans.append((event["ts"], event["ts"] + event["dur"]))
    parts = {part: sum(us for (_, of), us in time_of.items() if of == part) for part in PARTS}
    heaviest = sorted(time_of, key=time_of.__getitem__, reverse=True)[:_HEAVIEST]
    return {
        "busy_us": round(_covered(spans) / steps, 1),
        "kernels_a_step": round(len(spans) / steps, 1),
        "parts_us": {part: round(us / steps, 1) for part, us in parts.items()},
        "heaviest": [
            {
                "kernel": name[:_NAME_LENGTH],
                "part": part,
                "a_step": round(count_of[name, part] / steps, 2),
                "us_a_step": round(time_of[name, part] / steps, 1),
            }
            for name, part in heaviest
        ],
    }


def _numbers(nested: Any) -> Iterator[int]:
    """All numbers of lists in lists: an operator may be given lists of tensors."""
    if isinstance(nested, list):
        for item in nested:
            yield from _numbers(item)
    elif isinstance(nested, int):
        yield nested


def _covered(spans: list[tuple[float, float]]) -> float:
    """The length of the union: kernels of two streams may run at once."""
    covered, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered


def our_step(exp: str, tokens: np.ndarray, size: str, batch_size: int, folder: Path, **settings: Any) -> Step:
    """The next step of a `Trainer` that writes nothing."""
    shape = {"size": size, "exp": exp, "batch_size": batch_size, "vocab_size": VOCABULARY}
    silence = {"instrument": "off", "log_every": 10**9, "steps": 10**9, "out_dir": str(folder / exp)}
    config = RunConfig.resolve(**(shape | silence | settings))
    runtime = Runtime.choose(config)
    runtime.prepare()
    paths, world = RunPaths(config.folder), World(runtime.device)
    batches = Batches(
        tokens,
        **{"block_size": config.block_size, "val_frac": config.val_frac, "batch_size": batch_size},
        **{"grad_accum": config.grad_accum, "seed": config.seed, "eval_iters": 1, "device": runtime.device},
    )
    trainer = Trainer(
        config,
        build_model(config, device=runtime.device),
        batches,
        **{"runtime": runtime, "world": world, "stop": StopRequest(None), "paths": paths, "data_sha256": ""},
        recorder=Recorder(config, paths, LiveView(), device=runtime.device_name, command=""),
    )
    trainer.model.train()

    def step() -> None:
        trainer.train_step()
        trainer.step += 1

    return step


def reference_step(
    tokens: np.ndarray,
    size: str,
    batch_size: int,
    device: torch.device,
    vocab: int = VOCABULARY,
    block: int | None = None,
) -> Step:
    """The next step of the reference, its next batch on the way while the GPU computes."""
    torch.manual_seed(1337)
    model, draws = ReferenceGPT(vocab, size, block=block), np.random.default_rng(1337)
    trainer = ReferenceTrainer(model, device, fast=device.type == "cuda")
    following = [batch(tokens, batch_size, model.block_size, draws, device)]

    def step() -> None:
        trainer.step(*following.pop())
        following.append(batch(tokens, batch_size, model.block_size, draws, device))

    return step


def builder(
    case: str,
    tokens: np.ndarray,
    size: str,
    batch_size: int,
    folder: Path,
    device: torch.device,
    settings: dict[str, Any],
) -> Callable[[bool], Step]:
    """Makes the case's step, for training as it is or without a CUDA graph, which hides who launched a kernel."""

    def build(as_it_is: bool) -> Step:
        if case == REFERENCE:
            return reference_step(tokens, size, batch_size, device)
        own = settings if as_it_is else {**settings, "cuda_graph": False}
        return our_step(case, tokens, size, batch_size, folder, **own)

    return build


def measure(build: Callable[[bool], Step], steps: int, folder: Path, device: torch.device) -> dict[str, Any]:
    """Times and profiles the step that `build(True)` makes; `build(False)`: the same without a CUDA graph."""
    step = build(True)
    for _ in range(_WARM_UP if device.type == "cuda" else 1):
        step()
    gc.collect()
    gc.freeze()  # as the trainer does after its first step
    times = []
    for _ in range(3):
        _wait(device)
        start = time.perf_counter()
        for _ in range(steps):
            step()
        _wait(device)
        times.append(1e6 * (time.perf_counter() - start) / steps)
    as_trained = _traced(step, steps, folder, device)
    step = build(False)
    for _ in range(3):
        step()
    found = split(as_trained, steps, head_shares(_traced(step, 2, folder, device)))
    wall = statistics.median(times)
    idle = max(0.0, wall - found["busy_us"])
    shares = {part: round(us / wall, 4) for part, us in {**found["parts_us"], "idle": idle}.items()}
    timed = {"step_us": round(wall, 1), "step_us_all": [round(each, 1) for each in times], "idle_us": round(idle, 1)}
    return timed | {"shares": shares} | found


def _traced(step: Step, steps: int, folder: Path, device: torch.device) -> list[Event]:
    """The events of a Chrome trace of `steps` steps, with the shapes that operators were given."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities, record_shapes=True) as profiler:
        for _ in range(steps):
            step()
        _wait(device)
    path = folder / "trace.json"
    profiler.export_chrome_trace(str(path))
    return json.loads(path.read_text())["traceEvents"]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description="Where a training step's time goes.")
    parser.add_argument("--data", type=Path, required=True, help="token file of uint16 ids below 50257")
    parser.add_argument("--cases", default=",".join([*EXPERIMENTS, REFERENCE]))
    parser.add_argument("--batch-sizes", default="16")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of our runs")
    parser.add_argument("--size", choices=["nano", "tiny"], default="tiny", help="nano: to try the script")
    parser.add_argument("--name", default="train_parts", help="name of the result")
    parser.add_argument("--out", type=Path, default=RESULTS)
    words = parser.parse_args()
    tokens = np.memmap(words.data, np.uint16, "r")
    settings = dict(text.split("=", 1) for text in words.set)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for batch_size in map(int, words.batch_sizes.split(",")):
            for case in words.cases.split(","):
                row: dict[str, Any] = {"case": case, "batch_size": batch_size}
                try:
                    build = builder(case, tokens, words.size, batch_size, Path(folder), device, settings)
                    row |= measure(build, words.steps, Path(folder), device)
                except Exception as error:  # whatever one case ends with, the others are measured
                    row["error"] = f"{type(error).__name__}: {error}"
                print(json.dumps({name: value for name, value in row.items() if name != "heaviest"}), flush=True)
                rows.append(row)
                document = {"size": words.size, "steps": words.steps, "settings": settings, "rows": rows}
                path = record(words.name, document, gpus=gpus, out=words.out)
                gc.unfreeze()
                torch.compiler.reset()  # each case is compiled as a process of its own would
                gc.collect()
                torch.cuda.empty_cache()
    print(path.name)


if __name__ == "__main__":
    main()
