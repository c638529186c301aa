"""Colours are stable: they follow from the id alone and can be read on both backgrounds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bottleneck_core.figures import palette


def luminance(color: str) -> float:
    """Relative luminance, WCAG 2.2."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_run_keeps_its_colour_in_another_process():
    # Python's own hash() of a string changes with each process.
    code = "from bottleneck_core.figures.palette import run_color; print(run_color('tiny_bottleneck'))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == palette.run_color("tiny_bottleneck")


def test_ids_spread_over_the_palette():
    assert len({palette.run_color(f"run_{i}") for i in range(100)}) >= 8


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_is_readable_on_its_background(theme):
    background = palette.ink("surface", theme)
    colors = palette.categorical(10, theme)
    colors += [palette.attention_color(m, theme) for m in ("standard", "gqa", "bottleneck", "decoupled", None)]
    colors += [palette.ink("text", theme), palette.ink("muted", theme)]
    assert all(contrast(color, background) >= 2.7 for color in colors)


def test_attention_modes_differ():
    modes = ("standard", "gqa", "bottleneck", "decoupled", "mla", "no such mode")
    assert len({palette.attention_color(mode) for mode in modes}) == len(modes)


def test_one_direction_of_meaning():
    def brightness(color: str) -> int:
        return sum(int(c) for c in color[4:-1].split(","))

    light = [brightness(c) for c in palette.depth_colors(6, "light")]
    dark = [brightness(c) for c in palette.depth_colors(6, "dark")]
    assert light == sorted(light, reverse=True)
    assert dark == sorted(dark)
    assert len(palette.depth_colors(1)) == 1 and palette.depth_colors(0) == []


def test_translucent():
    assert palette.translucent("#0072B2", 0.25) == "rgba(0,114,178,0.25)"


@pytest.mark.parametrize("tag", ["", "_ref"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_four_attentions_of_one_size_are_told_apart(theme: palette.Theme, tag: str) -> None:
    names = ("baseline", "bottleneck", "decoupled", "gqa")
    ids = [f"{size}_{name}{tag}" for size in ("nano", "tiny") for name in names]
    assert len({palette.run_color(run_id, theme) for run_id in ids}) == 8
