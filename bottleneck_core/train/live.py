"""A run as it is seen in the terminal: nothing, lines, or a live view; with a display, a window of curves too."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 60


class LiveView:
    """Receives every event. This base shows nothing."""

    def event(self, kind: str, step: int, fields: Mapping[str, Any]) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class Lines(LiveView):
    """One line an event, for logs and pipes."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._start: tuple[float, int] | None = None

    def event(self, kind: str, step: int, fields: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if self._start is None:
            self._start = (now, step)
        if kind == "train":
            ahead = self._steps - 1 - step
            behind = step - self._start[1]
            eta = f"  eta {_duration((now - self._start[0]) / behind * ahead)}" if behind else ""
            rate = fields.get("tok_s")
            speed = f"  {rate:,.0f} tok/s" if rate else ""
            self.message(f"step {step}/{self._steps}  loss {fields['loss']:.4f}{speed}{eta}")
        elif kind == "eval":
            values = f"validation loss {fields['val_loss']:.4f}  perplexity {fields['val_ppl']:.2f}"
            self.message(f"step {step}/{self._steps}  {values}")
        elif kind in ("nonfinite", "resume"):
            self.message(f"step {step}/{self._steps}  {kind}")

    def message(self, text: str) -> None:
        print(text, flush=True)


class Terminal(LiveView):
    """Progress with ETA, loss as a sparkline, newest values; redrawn in place."""

    def __init__(self, title: str, steps: int) -> None:
        self._progress = Progress(
            TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("eta"), TimeRemainingColumn()
        )
        self._task = self._progress.add_task("", total=steps)
        self._losses: list[float] = []
        self._values: dict[str, str] = {}
        self._live = Live(self._view(), console=Console(file=sys.stdout), refresh_per_second=4)
        self._live.start()

    def event(self, kind: str, step: int, fields: Mapping[str, Any]) -> None:
        if kind == "train":
            self._losses.append(fields["loss"])
            self._values["loss"] = f"{fields['loss']:.4f}"
            self._values["tok/s"] = f"{fields['tok_s']:,.0f}" if fields.get("tok_s") else "–"
            self._values["learning rate"] = f"{fields['lr']:.2e}"
            self._values["gradient norm"] = f"{fields['grad_clip_total_norm']:.3f}"
        elif kind == "eval":
            self._values["validation"] = f"{fields['val_loss']:.4f} (best {fields['best_val']:.4f})"
        elif kind == "analysis":
            self._values["attention entropy"] = f"{fields['attn_entropy_mean']:.3f} nats"
        self._progress.update(self._task, completed=step + (kind == "train"))
        self._live.update(self._view())

    def message(self, text: str) -> None:
        self._live.console.print(text)

    def close(self) -> None:
        self._live.stop()

    def _view(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for name, value in self._values.items():
            table.add_row(name, value)
        return Group(self._progress, table, sparkline(self._losses))


class Window(LiveView):
    """Training and validation loss in a matplotlib window beside another view."""

    def __init__(self, beside: LiveView, title: str) -> None:
        import matplotlib.pyplot as plt

        self._beside, self._plt = beside, plt
        plt.ion()
        self._figure, self._axes = plt.subplots(num=title)
        self._lines = {kind: self._axes.plot([], [], label=kind)[0] for kind in ("train", "eval")}
        self._points: dict[str, tuple[list[int], list[float]]] = {kind: ([], []) for kind in self._lines}
        self._axes.set(xlabel="step", ylabel="loss (nats)", title=title)
        self._axes.legend()

    def event(self, kind: str, step: int, fields: Mapping[str, Any]) -> None:
        self._beside.event(kind, step, fields)
        if kind in self._lines:
            steps, losses = self._points[kind]
            steps.append(step)
            losses.append(fields["loss" if kind == "train" else "val_loss"])
            self._lines[kind].set_data(steps, losses)
            self._axes.relim()
            self._axes.autoscale_view()
            self._figure.canvas.draw_idle()
            self._figure.canvas.flush_events()

    def message(self, text: str) -> None:
        self._beside.message(text)

    def close(self) -> None:
        self._beside.close()
        self._plt.close(self._figure)


def live_view(*, console: bool, live_plot: bool, title: str, steps: int) -> LiveView:
    """The view that suits: `--live-plot` draws in place on a terminal, and in a window where there is a display."""
    if not (console or live_plot):
        return LiveView()
    if not live_plot:
        return Lines(steps)
    view = Terminal(title, steps) if sys.stdout.isatty() else Lines(steps)
    has_display = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not has_display:
        return view
    import matplotlib

    return Window(view, title) if matplotlib.get_backend().lower() not in ("agg", "svg", "pdf") else view


def sparkline(values: list[float], width: int = _WIDTH) -> str:
    """The values as bars of eight heights, the newest on the right; means of equal stretches where they are many."""
    finite = [value for value in values if value - value == 0]
    if not finite:
        return ""
    size = max(1, -(-len(finite) // width))
    bins = [finite[i : i + size] for i in range(0, len(finite), size)]
    means = [sum(part) / len(part) for part in bins]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in means)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} m" if hours else f"{minutes} m {rest:02d} s"
