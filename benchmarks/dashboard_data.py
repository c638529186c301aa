"""Run folders of any size as training leaves them, made up: for the benchmarks of the dashboard.

Curves are noise around a falling loss; what matters is their number and their spelling. Events are written as the
trainer's writer spells them, without its one system call a line. Nothing here is a measurement.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from bottleneck_core.config import RunConfig, model_view, training_args
from bottleneck_core.memory import TOKENS_128K, count_parameters, kv_memory
from bottleneck_core.store.analysis import AnalysisWriter

ATTENTION_METRICS = ("entropy", "local_mass", "topk_mass", "null_mass", "sink_mass")
_START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_BLOCK_ROWS = 20_000
_EVAL_EVERY = 1_000
_EXPERIMENTS = ("paper_baseline", "paper_bottleneck", "paper_decoupled", "paper_gqa")


def write_run(
    folder: Path,
    *,
    rows: int,
    seed: int = 0,
    exp: str = "paper_decoupled",
    eval_every: int = _EVAL_EVERY,
    ended: bool = True,
    **flags: Any,
) -> int:
    """A run of `rows` logged steps below `folder`, finished where it `ended`; the size of its train.jsonl in bytes."""
    folder.mkdir(parents=True)
    config = RunConfig.resolve(
        size="tiny", exp=exp, steps=rows if ended else 10 * rows, log_every=1, seed=1337 + seed, **flags
    )
    settings = config.model_dump(mode="json")
    n_params = count_parameters(config, 50257)
    started = (_START + timedelta(minutes=seed)).isoformat()
    (folder / "config.json").write_bytes(orjson.dumps(settings))
    (folder / "manifest.json").write_bytes(orjson.dumps({"created": started, "n_params": n_params, "argv": ["train"]}))
    cache = {"kv_ctx_bytes": kv_memory(config, 1024).bytes, "kv_128k_bytes": kv_memory(config, TOKENS_128K).bytes}
    with open(folder / "train.jsonl", "wb") as file:
        meta = {"args": training_args(config), "config": model_view(config, 50257), "argv": ["train"], "env": {}}
        file.write(event_line("meta", 0, meta, _START))
        file.write(event_line("mem", 0, cache | {"vocab_size": 50257}, _START))
        for block in _events(rows, seed, eval_every):
            file.write(block)
        if ended:
            file.write(event_line("done", rows, {"reason": "completed"}, _START + timedelta(seconds=rows)))
        return file.tell()


def train_event(step: int, loss: float, noise: np.ndarray) -> dict[str, Any]:
    """The fields of one train event; `noise` (9,) in [0, 1) varies the rest. About 560 bytes a line."""
    n = noise.tolist()
    return {
        "loss": loss,
        "ppl": float(np.exp(loss)),
        "lr": 3e-4 * (1 - 1e-7 * step),
        "tokens": (step + 1) * 16_384,
        "tok_s": 9e5 + 3e4 * n[0],
        "step_ms": 17 + n[1],
        "mfu": 0.25 + 0.01 * n[2],
        "device_peak_bytes": 4_416_924_160,
        "grad_norm_embed": 0.4 + 0.1 * n[3],
        "grad_norm_attn": 0.9 + 0.1 * n[4],
        "grad_norm_ffn": 0.5 + 0.1 * n[5],
        "grad_norm_attn_sem": 0.1 + 0.1 * n[6],
        "grad_norm_attn_geo": 0.3 + 0.1 * n[7],
        "grad_clip_total_norm": 1.2 + 0.1 * n[8],
        # Keys that only other programs write: a log is read whole, whatever it holds.
        "param_norm": 110 + n[0],
        "update_norm": 0.01 + 1e-3 * n[1],
    }


def event_line(kind: str, step: int, fields: dict[str, Any], at: datetime) -> bytes:
    """One line of train.jsonl."""
    stamp = at.isoformat(timespec="milliseconds")
    return orjson.dumps({"type": kind, "step": step, **fields, "wall_time": stamp}) + b"\n"


def write_many(root: Path, count: int, *, rows: int = 40) -> None:
    """`count` small runs that differ in attention and seed."""
    for number in range(count):
        exp = _EXPERIMENTS[number % len(_EXPERIMENTS)]
        name = f"tiny_{exp.removeprefix('paper_')}_{number:05d}"
        write_run(root / name, rows=rows, seed=number, exp=exp, eval_every=10)


def write_analysis(folder: Path, *, steps: int, layers: int = 24, heads: int = 16, map_size: int = 64) -> None:
    """analysis.h5 of `steps` probes, all values different, with the maps and spectra of two heads."""
    random = np.random.default_rng(0)
    chosen = [(0, 0), (layers - 1, heads - 1)]
    attention = random.random((len(ATTENTION_METRICS), layers, heads))
    maps = {head: np.tril(random.random((map_size, map_size))).astype(np.float16) for head in chosen}
    with AnalysisWriter.create(
        folder / "analysis.h5",
        n_layer=layers,
        n_head=heads,
        attn_metrics=ATTENTION_METRICS,
        weight_metrics=("stable_rank_q",),
        chosen=chosen,
        map_size=map_size,
    ) as writer:
        for probe in range(steps):
            drift = attention * (1 + 0.1 * np.sin(probe / 50 + attention))
            writer.append(
                probe * 10,
                attn=dict(zip(ATTENTION_METRICS, drift, strict=True)),
                weights={"stable_rank_q": 1 + drift[0, :, 0]},
                maps=maps,
                svd={head: np.linspace(1, 0, map_size) for head in chosen},
            )


def _events(rows: int, seed: int, eval_every: int) -> Iterator[bytes]:
    random = np.random.default_rng(seed)
    for start in range(0, rows, _BLOCK_ROWS):
        steps = np.arange(start, min(start + _BLOCK_ROWS, rows))
        losses = 3.5 + 7 * np.exp(-steps / (rows / 20)) + 0.1 * random.standard_normal(len(steps)) + 1e-4 * seed
        noise = random.random((len(steps), 9))
        lines = []
        for step, loss, varied in zip(steps.tolist(), losses.tolist(), noise, strict=True):
            at = _START + timedelta(milliseconds=18 * step)
            if step % eval_every == 0:
                value = {"train_loss": loss, "val_loss": loss + 0.05, "val_ppl": float(np.exp(loss + 0.05))}
                lines.append(event_line("eval", step, value, at))
            lines.append(event_line("train", step, train_event(step, loss, varied), at))
        yield b"".join(lines)
