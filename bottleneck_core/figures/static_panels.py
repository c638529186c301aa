"""What the static picture of a run shows: frames and arrays -> panels of lines, ready to draw.

Kept apart from the drawing, so that what is shown can be read, and tested, without a canvas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bottleneck_core.figures import numbers
from bottleneck_core.figures.palette import categorical, ink
from bottleneck_core.figures.smoothing import ema

Attention = Mapping[str, tuple[ArrayLike, ArrayLike]]  # metric -> (steps [S], values [S, layer, head])
Values = NDArray[np.float64]

_BLUE, VERMILLION, _GREEN, _PURPLE, _ORANGE, _SKY = categorical(6)
_INK = ink("text")
_FIRST_LAYER, _LAST_LAYER = (0x6F, 0xB7, 0xDF), (0x00, 0x30, 0x4D)  # deeper is darker
_SMOOTHED_SHARE = 50  # a smoothed curve averages over about this fraction of all rows: one 50th


@dataclass(frozen=True)
class Line:
    """A curve over steps. `label` stands at its end; `faint` is the raw side of a smoothed one."""

    x: Values
    y: Values
    color: str
    label: str = ""
    faint: bool = False
    thin: bool = False

    @property
    def has_data(self) -> bool:
        """Whether there is any value to draw."""
        return bool(np.isfinite(self.y).any())


@dataclass(frozen=True)
class Panel:
    """One diagram. `number` formats the last values.

    `y_range` None asks for the 1st to the 99th percentile after the first 2 % of the steps; an upper end of None
    for what the data needs. `best` is the (step, value) of the least validation loss, `nonfinite` the steps without
    a finite loss.
    """

    title: str
    lines: list[Line]
    number: Callable[[float], str]
    log: bool = False
    y_range: tuple[float, float | None] | None = None
    best: tuple[float, float] | None = None
    nonfinite: tuple[float, ...] = ()


def panels_of(train: pd.DataFrame, eval: pd.DataFrame, analysis: pd.DataFrame, attention: Attention) -> list[Panel]:
    """The panels that have data, and in each the lines that have."""
    candidates = [
        _loss(train, eval),
        _perplexity(train, eval),
        _entropy(analysis, attention),
        _masses(analysis, attention),
        _ranks(analysis, attention),
        _energies(analysis, attention),
        _gradients(train),
        _throughput(train),
    ]
    panels = [replace(panel, lines=[line for line in panel.lines if line.has_data]) for panel in candidates]
    return [panel for panel in panels if panel.lines]


def _loss(train: pd.DataFrame, eval: pd.DataFrame) -> Panel:
    steps, losses = _column(eval, "val_loss")
    best = None
    if np.isfinite(losses).any():
        row = int(np.nanargmin(np.where(np.isfinite(losses), losses, np.nan)))
        best = (float(steps[row]), float(losses[row]))
    lines = [
        *_smoothed(train, "loss", _BLUE, "train"),
        Line(steps, losses, VERMILLION, "val"),
    ]
    train_steps, train_losses = _column(train, "loss")
    nonfinite = tuple(train_steps[~np.isfinite(train_losses)].tolist())
    return Panel("Loss (nats per token)", lines, numbers.loss, best=best, nonfinite=nonfinite)


def _perplexity(train: pd.DataFrame, eval: pd.DataFrame) -> Panel:
    lines = [
        *_smoothed(train, "ppl", _BLUE, "train", log=True),
        Line(*_column(eval, "val_ppl", log=True), VERMILLION, "val"),
    ]
    return Panel("Perplexity (log)", lines, numbers.perplexity, log=True)


def _entropy(analysis: pd.DataFrame, attention: Attention) -> Panel:
    mean = _mean_line(analysis, attention, "entropy", "attn_entropy_mean", _INK, "mean")
    layers: list[Line] = []
    if "entropy" in attention:
        steps, values = _array(attention["entropy"])
        count = values.shape[1]
        for layer in range(count):
            label = f"layer {layer}" if layer in (0, count - 1) else ""
            layers.append(Line(steps, _mean(values[:, layer]), _layer_color(layer, count), label, thin=True))
    return Panel("Attention entropy (nats)", [*layers, mean], _three_digits, y_range=(0.0, None))


def _layer_color(layer: int, count: int) -> str:
    share = layer / max(count - 1, 1)
    mixed = (round(a + share * (b - a)) for a, b in zip(_FIRST_LAYER, _LAST_LAYER, strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def _masses(analysis: pd.DataFrame, attention: Attention) -> Panel:
    null = _mean_line(analysis, attention, "null_mass", "attn_null_mass_mean", _PURPLE, "null")
    lines = [
        _mean_line(analysis, attention, "local_mass", "attn_local_mass_mean", _BLUE, "local"),
        _mean_line(analysis, attention, "topk_mass", "attn_topk_mass_mean", _ORANGE, "top-k"),
        *([null] if np.nansum(null.y) > 0 else []),  # it is 0 where the model has no null key
        _mean_line(analysis, attention, "sink_mass", "attn_sink_mass_mean", _GREEN, "first token"),
    ]
    return Panel("Attention mass (share of weight)", lines, _three_digits, y_range=(0.0, 1.0))


def _ranks(analysis: pd.DataFrame, attention: Attention) -> Panel:
    lines = [
        _mean_line(analysis, attention, "erank", "attn_erank_mean", _BLUE, "maps"),
        Line(*_column(analysis, "proj_stable_rank_mean"), VERMILLION, "Q, K"),
    ]
    return Panel("Effective rank of maps, stable rank of Q and K", lines, _three_digits, y_range=(0.0, None))


def _energies(analysis: pd.DataFrame, attention: Attention) -> Panel:
    lines = [
        _mean_line(analysis, attention, "sem_energy_ratio", "sem_energy_ratio_mean", _ORANGE, "semantic"),
        _mean_line(analysis, attention, "geo_energy_ratio", "geo_energy_ratio_mean", _GREEN, "geometric"),
    ]
    return Panel("Energy of the logits (share)", lines, _three_digits, y_range=(0.0, 1.0))


def _gradients(train: pd.DataFrame) -> Panel:
    groups = {
        "grad_clip_total_norm": ("total", _INK),
        "grad_norm_embed": ("embed", _ORANGE),
        "grad_norm_attn": ("attention", _BLUE),
        "grad_norm_ffn": ("ffn", _GREEN),
        "grad_norm_attn_sem": ("semantic", _PURPLE),
        "grad_norm_attn_geo": ("geometric", _SKY),
    }
    lines = []
    for key, (label, color) in groups.items():
        lines += [line for line in _smoothed(train, key, color, label, log=True) if not line.faint]
    return Panel("Gradient norm by group (log)", lines, _three_digits, log=True)


def _throughput(train: pd.DataFrame) -> Panel:
    return Panel("Throughput (tokens/s)", _smoothed(train, "tok_s", _BLUE, ""), numbers.rate, y_range=(0.0, None))


def _three_digits(value: float) -> str:
    return f"{value:.3g}"


def _column(frame: pd.DataFrame, key: str, log: bool = False) -> tuple[Values, Values]:
    """Steps and values of one column by rising step; infinities, and what a log axis cannot show, become NaN."""
    if "step" not in frame or key not in frame:
        return np.empty(0), np.empty(0)
    steps = np.asarray(pd.to_numeric(frame["step"], errors="coerce"), dtype=np.float64)
    values = np.asarray(pd.to_numeric(frame[key], errors="coerce"), dtype=np.float64)
    known = np.isfinite(steps)
    order = np.argsort(steps[known], kind="stable")
    steps, values = steps[known][order], values[known][order]
    return steps, np.where(np.isfinite(values) & ((values > 0) | (not log)), values, np.nan)


def _smoothed(frame: pd.DataFrame, key: str, color: str, label: str, log: bool = False) -> list[Line]:
    """A strong curve averaged over about 2 % of the rows, and the raw one behind it where that makes a difference."""
    steps, values = _column(frame, key, log)
    weight = 1 - _SMOOTHED_SHARE / max(len(values), _SMOOTHED_SHARE)
    if weight == 0:
        return [Line(steps, values, color, label)]
    return [Line(steps, values, color, faint=True), Line(steps, ema(values, weight), color, label)]


def _mean_line(analysis: pd.DataFrame, attention: Attention, metric: str, key: str, color: str, label: str) -> Line:
    """The mean over layers and heads: from the arrays where they are given, else from the events."""
    if metric not in attention:
        return Line(*_column(analysis, key), color, label)
    steps, values = _array(attention[metric])
    return Line(steps, _mean(values.reshape(len(values), math.prod(values.shape[1:]))), color, label)


def _array(pair: tuple[ArrayLike, ArrayLike]) -> tuple[Values, Values]:
    values = np.asarray(pair[1], dtype=np.float64)
    return np.asarray(pair[0], dtype=np.float64), np.where(np.isfinite(values), values, np.nan)


def _mean(values: Values) -> Values:
    """Mean over axis 1 of what is known; NaN where nothing is (np.nanmean warns there)."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.divide(total, known.sum(axis=1), out=np.full(len(values), np.nan), where=known.any(axis=1))
