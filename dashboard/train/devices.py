"""The devices of this machine, found without torch: the processor and NVIDIA's cards, with how busy they are."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

from bottleneck_core.store.manifest import hardware

_QUERY = ("index", "name", "memory.total", "memory.used", "utilization.gpu")
_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Device:
    """`name` as `--device` takes it, `model` as people call it, `memory` in bytes."""

    name: str
    model: str
    memory: int


@dataclass(frozen=True, kw_only=True)
class Use:
    """How busy a card is: a share of the time, and bytes that are taken of all."""

    name: str
    share: float | None
    used: int | None
    memory: int


@cache
def devices() -> list[Device]:
    """What can be trained on; the first is the one that training takes by itself."""
    machine = hardware()
    cards = [Device(name=f"cuda:{index}", model=name, memory=total) for index, name, total, _, _ in _cards()]
    return [*cards, Device(name="cpu", model=machine["cpu"], memory=machine["memory_bytes"])]


def usable_cores() -> int:
    """Of the processor, by this process."""
    return int(hardware()["usable_cores"] or 1)


def device_of(setting: str | None) -> Device | None:
    """The device that a `--device` means here; None where there is none of that name."""
    found = devices()
    if setting is None:
        return found[0]
    name = "cuda:0" if setting == "cuda" else setting
    return next((device for device in found if device.name == name), None)


def card_use() -> list[Use]:
    """How busy the cards are now; takes a tenth of a second where there are any."""
    if len(devices()) == 1:
        return []
    return [Use(name=f"GPU {index}", share=share, used=used, memory=total) for index, _, total, used, share in _cards()]


def _cards() -> list[tuple[int, str, int, int | None, float | None]]:
    """(index, name, bytes, bytes used, share busy) of each card, as nvidia-smi says; none where it is not there."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return read_cards(text)


def read_cards(text: str) -> list[tuple[int, str, int, int | None, float | None]]:
    """The lines of nvidia-smi; a number that a card does not report is None."""
    cards = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != len(_QUERY) or not parts[0].isdecimal():
            continue
        total, used, busy = (float(part) if part.replace(".", "", 1).isdecimal() else None for part in parts[2:])
        mebibyte = 1 << 20
        cards.append(
            (
                int(parts[0]),
                parts[1],
                round((total or 0) * mebibyte),
                None if used is None else round(used * mebibyte),
                None if busy is None else busy / 100,
            )
        )
    return cards
