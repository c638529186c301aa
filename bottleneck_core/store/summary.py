"""summary.md, a run in words and numbers: written in one fixed layout, read in that of any system."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottleneck_core.store.atomic import atomic_write_text

_FILES = "- Files: `train.jsonl`, `analysis.h5` (if enabled), `analysis.png`, `best.pt`, `{last}`"


@dataclass(frozen=True)
class Results:
    """The Results section; None for what it does not say. `best_val_loss` in nats per token."""

    last_step: int | None = None
    best_val_loss: float | None = None


def write_summary(
    path: str | os.PathLike[str],
    *,
    created: str,
    out_dir: str,
    device: str,
    command: str,
    size: str | None,
    exp: str | None,
    model_config: Mapping[str, Any],
    training_args: Mapping[str, Any],
    last_step: int | None = None,
    best_val_loss: float | None = None,
    kv: Mapping[str, float] | None = None,
    last: str = "last.pt",
) -> None:
    """Write summary.md atomically. What is None is left out: a run that has no end yet has a summary, too.

    `last` is the name of the checkpoint to resume from.
    `kv` has context (tokens), baseline_fp16_bytes, policy_bytes, policy_128k_bytes and compression, for batch
    1.
    """
    lines = ["# Run Summary", ""]
    header = {"Created": created, "Out dir": out_dir, "Device": device, "Command": command}
    header |= {"Size preset": size, "Experiment": exp}
    lines += [f"- {name}: `{' '.join(str(text).split())}`" for name, text in header.items() if text is not None]
    for title, settings in (("Model Config", model_config), ("Training Args", training_args)):
        listed = json.dumps(dict(settings), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
        lines += ["", f"## {title}", "", "```json", listed, "```"]
    if last_step is not None:
        lines += ["", "## Results", "", f"- Last step: `{last_step}`"]
        if best_val_loss is not None:
            lines.append(f"- Best val loss: `{best_val_loss:.6f}` (ppl `{_perplexity(best_val_loss):.2f}`)")
        lines.append(_FILES.format(last=last))
    if kv is not None:
        context = int(kv["context"])
        lines += [
            "",
            "## KV Cache Memory (batch=1)",
            "",
            f"- Baseline fp16 (standard attn) @ ctx={context}: `{format_bytes(kv['baseline_fp16_bytes'])}`",
            f"- This run policy @ ctx={context}: `{format_bytes(kv['policy_bytes'])}`",
            f"- Compression vs fp16 baseline: `{kv['compression']:.2f}×`",
            f"- This run policy @ 128k: `{format_bytes(kv['policy_128k_bytes'])}`",
        ]
    atomic_write_text(path, "\n".join(lines) + "\n\n")


def format_bytes(count: float) -> str:
    """Bytes in the largest binary unit that leaves at least one: `4.39GB`, `12.00MB`, `281.2MB`."""
    unit, size = "B", float(count)
    for larger in ("KB", "MB", "GB", "TB"):
        if size < 1024:
            break
        unit, size = larger, size / 1024
    if unit == "B":
        return f"{size:.0f}B"
    return f"{size:.1f}{unit}" if size >= 100 else f"{size:.2f}{unit}"


def read_summary(path: str | os.PathLike[str]) -> str:
    """The text of a summary, empty when there is none; bytes that are no UTF-8 are replaced."""
    try:
        return Path(path).read_bytes().decode("utf-8", errors="replace").replace("\r\n", "\n")
    except OSError:
        return ""


def read_header(text: str) -> dict[str, str]:
    """The lines above the first section: Created, Out dir, Device, Command, Size preset, Experiment."""
    head = f"\n{text}".split("\n## ", 1)[0]
    return dict(re.findall(r"^- ([^:`\n]+): `([^`\n]*)`", head, flags=re.MULTILINE))


def read_results(text: str) -> Results:
    """Last step and best validation loss as the Results section of any summary says, else None."""
    section = _section(text, "Results")
    step = re.search(r"Last step: `(\d{1,15})`", section)
    loss = re.search(r"Best val loss: `([-+.\deE]+)`", section)
    try:
        best = float(loss[1]) if loss else None
    except ValueError:
        best = None
    return Results(int(step[1]) if step else None, best)


def read_model_config(text: str) -> dict[str, Any]:
    """The Model Config of any summary; empty when it is absent or broken."""
    return _settings(text, "Model Config")


def read_training_args(text: str) -> dict[str, Any]:
    """The Training Args of any summary; empty when they are absent or broken."""
    return _settings(text, "Training Args")


def _section(text: str, title: str) -> str:
    found = re.search(rf"^## {title}\b[^\n]*\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def _settings(text: str, title: str) -> dict[str, Any]:
    block = re.search(r"```(?:json)?\n(.*?)```", _section(text, title), flags=re.DOTALL)
    try:
        settings = json.loads(block[1]) if block else {}
    except (ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _perplexity(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf
