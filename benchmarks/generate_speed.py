"""Decoding end to end over a long cache, on one GPU: time of a token, of its kernels, and the bytes that it took.

    python -m benchmarks.generate_speed [--sizes tiny,small] [--cases NAME,NAME] [--batches 1,8] [--tokens 131072]

Models have random weights in bf16 and a vocabulary of 50257; caches are filled with noise, since a step's time depends
on how much is cached and never on the values. Tokens are drawn greedily by the engine's own loop.

- `ms`: of a token of all requests together, by the host's clock: the median of blocks of `--block` tokens between two
  synchronisations. `tok_s` counts all requests. `eager_ms`: the same without graphs.
- `kernels_ms`: sum of the kernels' times a token, by torch.profiler. `busy_ms`: time during which one of them ran at
  least, which is less where a kernel starts before its predecessor has ended. `replay_ms`: the graph's own, replayed
  back to back between two events. `ratio` is ms / busy_ms; `ratio_of_sum` and `ratio_of_replay` are of the others.
- `bytes`, `predicted`: allocated for the cache at `--tokens`, and what the accounting says.

`--dry` runs everything that needs no GPU, tiny, in Triton's interpreter (set TRITON_INTERPRET=1).
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.record import RESULTS, record
from bottleneck_core.config import RunConfig
from bottleneck_core.generate import Engine, Plan, Sampler, Sampling
from bottleneck_core.memory import CachePolicy, kv_memory
from bottleneck_core.model import GPT, build_model
from bottleneck_core.tune.timing import fill

FP16, Q4 = CachePolicy(kind="fp16"), CachePolicy(kind="q4_0")
CASES = {
    "standard fp16": ("paper_baseline", FP16),
    "gqa fp16": ("paper_gqa", FP16),
    "bottleneck fp16": ("paper_bottleneck", FP16),
    "bottleneck q4_0": ("paper_bottleneck", Q4),
    "decoupled fp16": ("paper_decoupled", FP16),
    "decoupled q4/q8/q4": ("paper_decoupled", Q4),  # q4_0 alone keeps geometric keys at q8_0
}
GREEDY = Sampling(temperature=0)
WARM_UP = 8
EAGER_TOKENS = 16
PROFILED = 8  # tokens
REPLAYS = 32


@dataclass(frozen=True)
class Setting:
    """What all cases share."""

    device: str
    dtype: torch.dtype
    vocabulary: int
    plan: Plan
    graphs: Any
    tokens: int
    page: int
    block: int
    blocks: int

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


GPU = Setting("cuda", torch.bfloat16, 50257, Plan(), "auto", 131_072, 256, 16, 8)
DRY = Setting("cpu", torch.float32, 256, Plan(fused="triton2pass"), "steps", 160, 16, 1, 2)


def blocks(steps: Iterator[Any], count: int, size: int, setting: Setting) -> list[float]:
    """Milliseconds a token of `count` blocks of `size` tokens."""
    times = []
    for _ in range(count):
        setting.wait()
        began = time.perf_counter()
        for _ in range(size):
            next(steps)
        setting.wait()
        times.append((time.perf_counter() - began) / size * 1e3)
    return times


def kernel_times(steps: Iterator[Any], setting: Setting) -> dict[str, Any]:
    """Sum and union of the kernels' times a token, in milliseconds, and how many there are."""
    setting.wait()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(PROFILED):
            next(steps)
        setting.wait()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events() or []
        if event.device_type.name == "CUDA" and not event.name.startswith(("Memcpy", "Memset"))
    )
    busy, reached = 0.0, float("-inf")
    for start, end in spans:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    total = sum(end - start for start, end in spans)
    return {
        "kernels": round(len(spans) / PROFILED, 1),
        "kernels_ms": total / PROFILED / 1e3,
        "busy_ms": busy / PROFILED / 1e3,
    }


def replay_time(engine: Engine) -> float:
    """Milliseconds of the captured graph, replayed back to back."""
    assert engine._graphed is not None
    (step,) = engine._graphed._steps.values()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    step()
    begin.record()
    for _ in range(REPLAYS):
        step()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / REPLAYS


def measure(model: GPT, config: RunConfig, policy: CachePolicy, batch: int, setting: Setting) -> dict[str, Any]:
    """One row of the table."""
    if setting.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    engine = Engine(model, policy, plan=setting.plan, page=setting.page, graphs=setting.graphs)
    fill(engine, setting.tokens, batch)
    size = engine.cache.allocated_bytes
    predicted = kv_memory(config, setting.tokens, batch, policy, page=setting.page).bytes
    result: dict[str, Any] = {"bytes": size, "predicted": predicted, "to_the_byte": size == predicted}

    warm_up = WARM_UP if setting.device == "cuda" else 1
    count = warm_up + setting.blocks * setting.block + PROFILED + 1  # one more, so that each is begun ahead
    inside = setting.tokens % setting.page + count + REPLAYS < setting.page
    assert inside or setting.device == "cpu", "replayed steps would write outside the last page: give other --tokens"
    steps = engine.decode([0] * batch, Sampler(GREEDY, 0, batch), count)
    list(itertools.islice(steps, warm_up))  # captures
    times = blocks(steps, setting.blocks, setting.block, setting)
    ms = statistics.median(times)
    result |= {"ms": ms, "tok_s": batch / ms * 1e3, "block_ms": times, "no_graph": engine.graph_fallback}
    if setting.device == "cuda" and engine.graph_fallback is None:
        result |= kernel_times(steps, setting)
        steps.close()
        result["replay_ms"] = replay_time(engine)
        for ratio, part in (("ratio", "busy_ms"), ("ratio_of_sum", "kernels_ms"), ("ratio_of_replay", "replay_ms")):
            result[ratio] = ms / result[part] if result[part] else None
    steps.close()
    if setting.device == "cuda":
        result["peak_bytes"] = torch.cuda.max_memory_allocated()

    engine.cache.truncate(setting.tokens)
    engine.graphs = "none"
    eager = engine.decode([0] * batch, Sampler(GREEDY, 0, batch), 2 + EAGER_TOKENS)
    list(itertools.islice(eager, 2 if setting.device == "cuda" else 1))
    result["eager_ms"] = statistics.median(
        blocks(eager, 2, EAGER_TOKENS // 2 if setting.device == "cuda" else 1, setting)
    )
    eager.close()
    result["no_kernel"] = engine.fallback
    return result


def line(size: str, name: str, batch: int, row: dict[str, Any]) -> str:
    """One line of the printed table."""
    head = f"{size:6} {name:20} {batch:2}"
    if "error" in row:
        return f"{head}  {row['error']}"
    numbers = [
        f"{row[key]:9.3f}" if row.get(key) is not None else f"{'-':>9}"
        for key in ("ms", "eager_ms", "kernels_ms", "busy_ms", "replay_ms", "ratio")
    ]
    peak = f"{row['peak_bytes'] / 2**30:7.2f}" if "peak_bytes" in row else f"{'-':>7}"
    equal = "=" if row["to_the_byte"] else f"!= {row['predicted']}"
    return f"{head} {row['tok_s']:9.0f} {' '.join(numbers)} {peak} {row['bytes']} {equal} {row['no_graph'] or ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", help="default: tiny,small")
    parser.add_argument("--cases", help=f"names, separated by commas; default: all of {', '.join(CASES)}")
    parser.add_argument("--batches", help="default: 1,8")
    parser.add_argument("--tokens", type=int, help="cached before the first measured one; default: 131072")
    parser.add_argument("--block", type=int, help="tokens between two synchronisations; default: 16, eight times")
    parser.add_argument("--dry", action="store_true", help="on the CPU, size nano, 160 tokens")
    parser.add_argument("--out", type=Path, default=RESULTS)
    words = parser.parse_args()
    setting = DRY if words.dry else GPU
    setting = Setting(**{**vars(setting), **{k: v for k in ("tokens", "block") if (v := getattr(words, k))}})
    names = words.cases.split(",") if words.cases else list(CASES)
    sizes = (words.sizes or ("nano" if words.dry else "tiny,small")).split(",")
    batches = [int(batch) for batch in (words.batches or ("1" if words.dry else "1,8")).split(",")]

    print(f"{setting.device}, {setting.tokens} cached tokens, page {setting.page}")
    heads = ("ms", "eager ms", "kernels", "busy", "replay", "ratio")
    columns = " ".join(f"{head:>9}" for head in heads)
    print(f"{'size':6} {'case':20} {'B':>2} {'tok/s':>9} {columns} peak GiB, cache bytes")
    rows = []
    warnings.simplefilter("ignore", UserWarning)  # that the text is longer than any the model was trained on
    for size, exp in itertools.product(sizes, dict.fromkeys(CASES[name][0] for name in names)):
        config = RunConfig.resolve(size=size, exp=exp).with_vocab(setting.vocabulary)
        model = build_model(config, device=setting.device, dtype=setting.dtype)
        for name, batch in itertools.product((name for name in names if CASES[name][0] == exp), batches):
            began = time.perf_counter()
            try:
                row = measure(model, config, CASES[name][1], batch, setting)
            except Exception as error:  # the other cases still count
                traceback.print_exc()
                row: dict[str, Any] = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
            gc.collect()  # what a traceback held
            row["seconds"] = round(time.perf_counter() - began, 1)
            print(line(size, name, batch, row), flush=True)
            rows.append({"size": size, "case": name, "batch": batch, **row})
        del model
    measured = {"tokens": setting.tokens, "page": setting.page, "block": setting.block, "rows": rows}
    if words.dry:
        print(json.dumps(measured, allow_nan=False))
        return
    print(record("generate_speed", measured, gpus=[torch.cuda.get_device_name()], out=words.out))


if __name__ == "__main__":
    main()
