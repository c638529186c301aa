"""Time of one decoded token's attention over a long packed cache, on one GPU.

    python -m benchmarks.decode_attention [--tokens 131072] [--batches 1,8] [--cases NAME,NAME] [--quick] [--sweep]

One layer, one new query a row. Each case is timed as a CUDA graph with events, L2 filled with other data before each
replay, as is PyTorch's flash and cuDNN attention over the same values, dequantised to fp16 once and padded to a head
dim of a multiple of 8 (without the null key). `GB/s` is packed bytes, scales included, over time; `of copy` compares
them with the fastest device-to-device copy (bytes read plus bytes written). Outputs are checked against float64.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.decode_cases import CASES, QUICK, Case, Stored, stored, truth
from bottleneck_core.kernels import Tuning, decode, unsupported


class Clock:
    """Median milliseconds of a graph's replays, L2 full of something else before each."""

    def __init__(self, repeats: int) -> None:
        self.repeats = repeats
        self.other = torch.ones(1 << 27, device="cuda")  # 512 MiB, read: nothing is left to be written back

    def __call__(self, work: Callable[[], Any]) -> float:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                work()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        pairs = []
        for _ in range(self.repeats):
            self.other.sum()
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            graph.replay()
            end.record()
            pairs.append((begin, end))
        torch.cuda.synchronize()
        return statistics.median(begin.elapsed_time(end) for begin, end in pairs[3:])


def copy_bandwidth(copies: int = 12) -> dict[str, float]:
    """GB/s, read plus written, of device-to-device copies of 4 GiB outside any graph, each between events of its own.

    `memcpy` is the driver's, `kernel` a pointwise kernel's; best and median of each. The first two do not count.
    """
    source = torch.randint(0, 100, (1 << 30,), device="cuda", dtype=torch.int32)
    target = torch.empty_like(source)
    speeds = {}
    for name, copy in (
        ("memcpy", lambda: target.copy_(source)),
        ("kernel", lambda: torch.bitwise_not(source, out=target)),
    ):
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(copies)]
        for begin, end in pairs:
            begin.record()
            copy()
            end.record()
        torch.cuda.synchronize()
        times = [begin.elapsed_time(end) for begin, end in pairs[2:]]
        speeds[f"{name}_best"] = 2 * source.nbytes / min(times) / 1e6
        speeds[f"{name}_median"] = 2 * source.nbytes / statistics.median(times) / 1e6
    return speeds


def rival(backend: SDPBackend, q: Tensor, keys: list[Stored], value: Stored, clock: Clock, options: dict) -> Any:
    """Milliseconds and bytes of PyTorch's attention over the same values, or why it cannot."""
    window = options["ring_from"], options["tokens"]
    dims = sum(key.spec[1] for key in keys), value.spec[1]
    padded = -(-max(dims) // 8) * 8
    shape = (q.size(0), value.heads, options["tokens"], padded)
    k, v = (torch.zeros(shape, device="cuda", dtype=torch.float16) for _ in range(2))
    for row in range(q.size(0)):
        k[row, ..., : dims[0]] = torch.cat([key.values(row, *window, torch.float16) for key in keys], -1)
        v[row, ..., : dims[1]] = value.values(row, *window, torch.float16)
    query = F.pad(q[:, :, None], (0, padded - dims[0]))
    try:
        with sdpa_kernel([backend]):
            ms = clock(
                lambda: F.scaled_dot_product_attention(
                    query, k, v, scale=options["scale"], enable_gqa=k.size(1) != query.size(1)
                )
            )
    except RuntimeError as error:
        return {"refused": str(error).splitlines()[0]}
    return {"ms": ms, "gb_s_padded": (k.nbytes + v.nbytes) / ms / 1e6}


def tunings(case: Case) -> list[Tuning]:
    """What the sweep tries, the most promising first; spans of tokens are varied afterwards, for the best ones."""
    width = case.cached_heads * max(spec[1] for spec in (*case.keys, case.value))
    group = 128 if width > 256 else 0
    if case.value[0] in ("q8_0", "q4_0", "nf4"):
        words = [
            *(
                (64, 2, 2, 128),
                (64, 2, 2, 0),
                (32, 1, 2, 0),
                (64, 1, 2, 0),
                (64, 2, 3, 128),
                (32, 1, 1, 0),
                (64, 2, 1, 128),
            ),
            *(
                (128, 2, 2, 0),
                (32, 1, 2, 128),
                (64, 4, 2, 0),
                (16, 1, 2, 0),
                (64, 2, 2, 112),
                (32, 1, 2, 160),
                (32, 1, 3, 0),
            ),
            *((128, 4, 2, 0), (128, 4, 3, 0), (16, 1, 3, 0), (64, 1, 1, 0), (128, 4, 1, 0)),
        ]
        by_bytes = [(64, 4, 2), (128, 4, 2)]
    else:
        words = [
            *((64, 2, 2, 0), (32, 1, 2, 0), (64, 4, 2, 0), (32, 1, 3, 0), (64, 2, 3, 0), (64, 4, 3, 0), (32, 2, 3, 0)),
            *((128, 4, 2, 0), (16, 1, 3, 0), (16, 1, 4, 0), (32, 2, 2, 0)),
        ]
        by_bytes = [(64, 4, 4), (64, 4, 2), (32, 4, 3), (128, 8, 3), (64, 8, 4), (128, 4, 3)]
    tried = [Tuning(n, warps, stages, 0, group, registers, kernel="words") for n, warps, stages, registers in words]
    tried[2:2] = [Tuning(*by_bytes[0], group=group, kernel="bytes")]
    tried += [Tuning(*shape, group=group, kernel="bytes") for shape in by_bytes[1:]]
    return [*tried[:3], replace(tried[0], fold=False), *tried[3:]] if case.value[0] in ("q8_0", "q4_0") else tried


PROGRAMS = (4, 6, 8, 10, 12, 20, 32, 48)  # a multiprocessor, tried for the best tunings


def search(case: Case, batch: int, run: Callable[[Tuning], dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """Times of the tunings, then of the three best ones with other numbers of spans; best first, within `seconds`."""
    tried: list[dict[str, Any]] = []
    deadline = time.monotonic() + seconds

    def attempt(tuning: Tuning) -> None:
        if time.monotonic() > deadline:
            return
        try:
            tried.append({"tuning": vars(tuning), **run(tuning)})
        except Exception as error:  # what the kernel or the chip cannot take: the sweep goes on, but not past a fault
            if "Accelerator" in type(error).__name__ or "CUDA error" in str(error):
                raise
            tried.append({"tuning": vars(tuning), "refused": f"{type(error).__name__}: {error}".splitlines()[0]})

    for tuning in tunings(case):
        attempt(tuning)
    best = sorted((entry for entry in tried if "ms" in entry), key=lambda entry: entry["ms"])[:3]
    processors = torch.cuda.get_device_properties(0).multi_processor_count
    for entry, programs in itertools.product(best, PROGRAMS):
        groups = (
            max(1, case.cached_heads * case.value[1] // entry["tuning"]["group"]) if entry["tuning"]["group"] else 1
        )
        splits = -(-programs * processors // (batch * groups))
        attempt(replace(Tuning(**entry["tuning"]), splits=splits))
    return sorted(tried, key=lambda entry: entry.get("ms", float("inf")))


def measure(
    case: Case, batch: int, tokens: int, page: int, clock: Clock, seconds: float, rivals: bool
) -> dict[str, Any]:
    """One row of the table."""
    torch.manual_seed(0)
    keys = [stored(spec, case, batch, tokens, page) for spec in case.keys]
    value = stored(case.value, case, batch, tokens, page)
    width = sum(key.spec[1] for key in keys)
    q = torch.randn(batch, case.heads, width, device="cuda", dtype=torch.float16)
    options: dict[str, Any] = {
        "tokens": tokens,
        "page": page,
        "ring_from": tokens - case.ring,
        "scale": width**-0.5,
    }
    if case.null:
        options["null_k"] = torch.randn(case.cached_heads, width, device="cuda", dtype=torch.float16)
        options["null_v"] = torch.randn(case.cached_heads, case.value[1], device="cuda", dtype=torch.float16)
    packed_keys, packed_value = [key.packed() for key in keys], value.packed()
    reason = unsupported(q, packed_keys, packed_value, **options)
    if reason:
        return {"refused": reason}
    exact = truth(q, keys, value, options)
    bytes_read = sum(tensor.bytes for tensor in (*keys, value))

    def run(tuning: Tuning | None, passes: int = 2) -> dict[str, Any]:
        out = decode(q, packed_keys, packed_value, tuning=tuning, passes=passes, **options)  # type: ignore[arg-type]
        error = float((out.double() - exact).norm() / exact.norm())
        ms = clock(
            lambda: decode(q, packed_keys, packed_value, tuning=tuning, passes=passes, **options)  # type: ignore[arg-type]
        )
        return {"ms": ms, "gb_s": bytes_read / ms / 1e6, "error": error}

    result: dict[str, Any] = {"packed_bytes": bytes_read, "ours": run(None)}
    if seconds:
        result["sweep"] = search(case, batch, run, seconds)
    if rivals:
        result["flash"] = rival(SDPBackend.FLASH_ATTENTION, q, keys, value, clock, options)
        result["cudnn"] = rival(SDPBackend.CUDNN_ATTENTION, q, keys, value, clock, options)
    return result


def line(name: str, batch: int, result: dict[str, Any], copy: float) -> str:
    """One line of the printed table."""
    if "refused" in result:
        return f"{name:26} {batch:2}  {result['refused']}"
    text = f"{name:26} {batch:2} {_numbers(result['ours'], copy)}"
    for rival_name in ("flash", "cudnn"):
        other = result.get(rival_name)
        text += f" {other['ms'] * 1e3:9.1f}" if other and "ms" in other else f" {'-':>9}"
    for entry in result.get("sweep", []):
        tuning = " ".join(f"{field}={number}" for field, number in entry["tuning"].items() if number)
        text += f"\n{'':29} {_numbers(entry, copy) if 'ms' in entry else entry['refused'][:60]}  {tuning}"
    return text


def _numbers(entry: dict[str, Any], copy: float) -> str:
    return f"{entry['ms'] * 1e3:9.1f} {entry['gb_s']:8.0f} {entry['gb_s'] / copy:7.1%} {entry['error']:9.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--page", type=int, default=256)
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--cases", help="names, separated by commas; default: all")
    parser.add_argument("--repeats", type=int, default=53)
    parser.add_argument("--quick", action="store_true", help="the three cases with a target")
    parser.add_argument("--sweep", action="store_true", help="also try tunings, listed best first")
    parser.add_argument("--seconds", type=float, default=60, help="of each case's and batch's sweep")
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--out", type=Path, help="folder of the result; default: benchmarks/results")
    arguments = parser.parse_args()
    names = arguments.cases.split(",") if arguments.cases else QUICK if arguments.quick else tuple(CASES)
    clock = Clock(arguments.repeats)
    copies = copy_bandwidth()
    torch.cuda.empty_cache()
    copy = max(copies.values())
    print(", ".join(f"copy {name} {speed:.0f} GB/s" for name, speed in copies.items()))
    print(f"{torch.cuda.get_device_name()}, copy {copy:.0f} GB/s, {arguments.tokens} tokens, page {arguments.page}")
    print(f"{'case':26} {'B':>2} {'us':>9} {'GB/s':>8} {'of copy':>7} {'error':>9} {'flash us':>9} {'cudnn us':>9}")
    rows = []
    for name, batch in itertools.product(names, map(int, arguments.batches.split(","))):
        result = measure(
            CASES[name],
            batch,
            arguments.tokens,
            arguments.page,
            clock,
            arguments.sweep * arguments.seconds,
            not arguments.no_rivals,
        )
        torch.cuda.empty_cache()
        print(line(name, batch, result, copy), flush=True)
        rows.append({"case": name, "batch": batch, **result})
    measured = {"tokens": arguments.tokens, "page": arguments.page, "copy_gb_s": copy, "copies": copies, "rows": rows}
    try:
        from benchmarks.record import RESULTS, record
    except ImportError as error:  # the kernels need torch alone, and so may the machine that times them
        print(f"not recorded ({error}): {json.dumps(measured)}")
        return
    gpus = [torch.cuda.get_device_name()]
    print(record("decode_attention", measured, gpus=gpus, out=arguments.out or RESULTS))


if __name__ == "__main__":
    main()
