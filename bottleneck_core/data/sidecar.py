"""The sidecar: `<token file>.json`, which says what the ids of a token file mean and where they come from.

Keys: tokens, documents, vocab_size, tokenizer, end_token (null for bytes), format, dtype, bytes (size of the
token file), sha256 (of the token file), source (kind and what identifies it), created (ISO 8601 with zone),
and for the word tokenizer words, in the order of their ids.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from bottleneck_core.errors import UserError
from bottleneck_core.store.atomic import atomic_write_text


def sidecar_path(token_file: Path) -> Path:
    """Where the sidecar of a token file lies: the whole file name and `.json`."""
    return token_file.with_name(token_file.name + ".json")


def read_sidecar(token_file: Path) -> dict[str, Any] | None:
    """The sidecar beside a token file; None where there is none, or a JSON file of another purpose.

    Raises UserError where it is no JSON, or describes another file than the one it lies beside.
    """
    path = sidecar_path(token_file)
    try:
        sidecar = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no readable JSON ({error}): prepare the token file again, or delete it") from None
    if not isinstance(sidecar, dict) or "tokens" not in sidecar or "tokenizer" not in sidecar:
        return None
    size = token_file.stat().st_size
    if sidecar.get("bytes", size) != size:
        raise UserError(
            f"{token_file} has {size} bytes, its sidecar {path.name} describes {sidecar['bytes']}: "
            "prepare the file again, or delete the sidecar if it belongs to another file"
        )
    return sidecar


def write_sidecar(token_file: Path, sidecar: dict[str, Any]) -> None:
    """Put the sidecar of `token_file` in place, or leave the old one when anything fails."""
    atomic_write_text(sidecar_path(token_file), json.dumps(sidecar, indent=2, ensure_ascii=False) + "\n")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read piece by piece."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
