"""The file that remembers choices: strict JSON, entries by the SHA-256 of everything that the choice depends on.

Several processes may share it: writing reads it again under a lock, so that no entry is lost. A file that is not ours
is left alone; one of ours that is damaged is begun anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
import torch
from torch import nn

from bottleneck_core.config import ModelConfig
from bottleneck_core.errors import UserError
from bottleneck_core.store.atomic import atomic_write_text

MARK = "bottleneck_core.tune"
FORMAT = 1


class Memo:
    """The memo at `path`. `warnings` collects what was wrong with the file, one sentence each."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.warnings: list[str] = []

    def recall(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was stored under `key`; None where nothing was, or the entry does not have the key that it should."""
        entries = self._read()
        entry = None if entries is None else entries.get(digest(key))
        if entry is None:
            return None
        if not isinstance(entry, dict) or entry.get("key") != _plain(key) or not isinstance(entry.get("value"), dict):
            self.warnings.append(f"an entry of {self.path} is damaged and was left out")
            return None
        return entry["value"]

    def store(self, key: Mapping[str, Any], value: Mapping[str, Any]) -> None:
        """Add an entry, or replace it. A foreign file is not touched. Raises UserError where nothing can be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.path.with_name(f".{self.path.name}.lock")):
                entries = self._read()
                if entries is None:
                    return
                entries[digest(key)] = {"key": _plain(key), "value": dict(value)}
                document = {"file": MARK, "format": FORMAT, "entries": entries}
                atomic_write_text(self.path, json.dumps(document, indent=1, allow_nan=False) + "\n")
        except OSError as error:
            raise UserError(
                f"--self-opt-cache {self.path} cannot be written ({error.strerror or error}): give another file"
            ) from None

    def _read(self) -> dict[str, Any] | None:
        """The entries; None where the file is not ours."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError):
            return self._foreign()
        try:
            document = json.loads(text, parse_constant=_refuse)
        except ValueError:
            if text.strip() and not text.startswith(f'{{\n "file": "{MARK}"'):
                return self._foreign()
            self.warnings.append(f"{self.path} is damaged: what it remembered is lost")
            return {}
        if not isinstance(document, dict) or document.get("file") != MARK:
            return self._foreign()
        if document.get("format") != FORMAT or not isinstance(document.get("entries"), dict):
            self.warnings.append(f"{self.path} is of another version: what it remembered is lost")
            return {}
        return document["entries"]

    def _foreign(self) -> None:
        self.warnings.append(f"{self.path} is no memo of the self-optimiser: it is neither read nor changed")


def digest(key: Mapping[str, Any]) -> str:
    """SHA-256 of a key's canonical JSON. Raises ValueError for numbers that JSON does not have."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, allow_nan=False).encode()).hexdigest()


def model_sha256(model: nn.Module) -> str:
    """SHA-256 of a model: its configuration, and names, types and bytes of its weights."""
    settings = {name: getattr(model.config, name) for name in ModelConfig.model_fields}
    found = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # As bytes, since NumPy has no bfloat16.
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def _plain(key: Mapping[str, Any]) -> Any:
    """The key as it comes back from a file."""
    return json.loads(json.dumps(key, allow_nan=False))


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
