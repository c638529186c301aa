"""Colours that mean the same thing on every page and in every notebook.

Hues are those of Okabe and Ito (Color Universal Design, 2008), which stay apart for the common forms of
colour blindness. Each has a shade for light and one for dark backgrounds: yellow vanishes on white and their
blue on near-black.
"""

from __future__ import annotations

import hashlib
from typing import Literal

Theme = Literal["light", "dark"]

# (light, dark) per name. Yellow and black of the original eight are left out: yellow is invisible on white
# and black is the ink.
_HUES: dict[str, tuple[str, str]] = {
    "blue": ("#0072B2", "#4FA9DC"),
    "vermillion": ("#D55E00", "#F08A3C"),
    "green": ("#009E73", "#35C49B"),
    "purple": ("#B5588F", "#DE97C1"),
    "orange": ("#C98A00", "#EDB53B"),
    "sky": ("#3C93C4", "#86CBF2"),
    # Second shades of the same hues, so that more than six runs are told apart.
    "navy": ("#00507D", "#7FA8E8"),
    "brick": ("#9C3F00", "#F4B183"),
    "pine": ("#00694D", "#8BDCC2"),
    "plum": ("#7D3A63", "#EFC4DE"),
}

# This salt gives the ids tiny_* and nano_*, automatic and with the tag of the shipped runs, eight colours, four hues a
# size.
_SALT = "32673"

_ATTENTION_HUES = {
    "standard": "vermillion",
    "gqa": "orange",
    "bottleneck": "blue",
    "decoupled": "green",
    "mla": "purple",
}

_INK = {
    "light": {
        "text": "#2F2D2B",
        "muted": "#77736E",
        "grid": "rgba(47,45,43,0.10)",
        "axis": "rgba(47,45,43,0.25)",
        "surface": "#FFFFFF",
        "warning": "#C0392B",
    },
    "dark": {
        "text": "#EDEBE8",
        "muted": "#A19C95",
        "grid": "rgba(237,235,232,0.10)",
        "axis": "rgba(237,235,232,0.25)",
        "surface": "#171614",
        "warning": "#F2919A",
    },
}


def run_color(run_id: str, theme: Theme = "light") -> str:
    """Hex colour of a run: a hash of its id picks the hue, so that the colour depends on nothing else."""
    digest = hashlib.sha1(f"{_SALT}{run_id}".encode()).digest()
    names = list(_HUES)
    return _shade(names[int.from_bytes(digest[:4], "big") % len(names)], theme)


def attention_color(mode: str | None, theme: Theme = "light") -> str:
    """Hex colour of an attention mode; modes that are not known share the muted ink."""
    hue = _ATTENTION_HUES.get(mode or "")
    return _shade(hue, theme) if hue else ink("muted", theme)


def ink(role: str, theme: Theme = "light") -> str:
    """Colour of text and lines: `text`, `muted`, `grid`, `axis`, `surface` or `warning`."""
    return _INK[theme][role]


def categorical(n: int, theme: Theme = "light") -> list[str]:
    """The first n hues, repeated when there are more series than hues; for series that are not runs."""
    names = list(_HUES)
    return [_shade(names[i % len(names)], theme) for i in range(n)]


def depth_colors(n: int, theme: Theme = "light") -> list[str]:
    """One colour per layer along a perceptual ramp: deeper layers are darker in light, lighter in dark."""
    from plotly.colors import sample_colorscale  # needs numpy and validators: only figures pay for it

    # The palest third of viridis disappears in a light background, its darkest in a dark one.
    low, high = (0.68, 0.05) if theme == "light" else (0.3, 0.98)
    stops = [low] if n == 1 else [low + (high - low) * i / (n - 1) for i in range(n)]
    return [str(color) for color in sample_colorscale("Viridis", stops)]


def sequential(theme: Theme = "light") -> str:
    """Name of the plotly scale for magnitudes: more is darker in light and lighter in dark."""
    return "Viridis_r" if theme == "light" else "Viridis"


def translucent(color: str, alpha: float) -> str:
    """`rgba(...)` of a `#RRGGBB` colour."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def _shade(name: str, theme: Theme) -> str:
    return _HUES[name][theme == "dark"]
