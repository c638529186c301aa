"""Token files to train on: those that lie prepared in the data folders, and which paths a form may name at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottleneck_core.data.sidecar import read_sidecar, sidecar_path
from bottleneck_core.errors import UserError
from bottleneck_core.figures import numbers
from dashboard.state import run_roots
from dashboard.train.schema import fields

# Settings that name files: the page starts nothing that reads outside of its folders.
_PATHS = ("data", "init_from", "ckpt", "self_opt_cache", "self_opt_calib_tokens")
BUILT_IN = "python-stdlib"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A token file with its sidecar."""

    path: Path
    tokenizer: str
    tokens: int
    vocab_size: int | None

    @property
    def label(self) -> str:
        """`python-stdlib.byte.bin · byte · 22.7M tokens`."""
        return f"{self.path.name} · {self.tokenizer} · {numbers.count(self.tokens)} tokens"


def data_folders() -> list[Path]:
    """Where token files are looked for: `data` of the current folder, in the roots and beside them."""
    beside = [folder / "data" for root in run_roots() for folder in (root, root.absolute().parent)]
    found: dict[Path, Path] = {}
    for folder in (Path("data"), *beside):
        found.setdefault(folder.resolve(), folder)
    return list(found.values())


def corpora() -> list[Corpus]:
    """Prepared token files, by name; those with a sidecar that does not fit are left out."""
    found = []
    for folder in data_folders():
        for sidecar in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            corpus = corpus_at(sidecar.with_suffix(""))
            found += [corpus] if corpus else []
    return found


def corpus_at(path: Path) -> Corpus | None:
    """The token file at `path`; None where there is none that was prepared."""
    if not path.is_file():
        return None
    try:
        sidecar = read_sidecar(path)
    except (UserError, OSError):
        return None
    if sidecar is None or not isinstance(sidecar["tokens"], int):
        return None
    vocabulary = sidecar.get("vocab_size")
    return Corpus(
        path=path,
        tokenizer=str(sidecar["tokenizer"]),
        tokens=sidecar["tokens"],
        vocab_size=vocabulary if isinstance(vocabulary, int) else None,
    )


def corpus_of(config: Any) -> Corpus | None:
    """The token file that a configuration trains on, as far as it is prepared; the built-in one where none is named."""
    return corpus_at(Path(config.data) if config.data else built_in_path(config.tokenizer_name))


def built_in_path(tokenizer: str) -> Path:
    """Where the built-in corpus lies once it is prepared."""
    return Path("data") / f"{BUILT_IN}.{tokenizer}.bin"


def check_paths(config: Any) -> None:
    """Raises UserError for a setting that names a file outside of the data folders and the roots."""
    allowed = [folder.resolve() for folder in (*data_folders(), *run_roots())]
    for name in _PATHS:
        text = getattr(config, name)
        if text and not any(Path(text).resolve().is_relative_to(folder) for folder in allowed):
            raise UserError(
                f"{fields()[name].flag} {text} lies outside of the folders of this dashboard: put the file into "
                f"{data_folders()[0]}, or start this run in the terminal"
            )


def check_corpus(config: Any) -> None:
    """Raises UserError where the token file is missing, or its tokenizer is another than the one that was chosen."""
    if not config.data:
        return
    path = Path(config.data)
    if not path.is_file():
        raise UserError(f"--data {path} is not there: choose a prepared corpus")
    corpus = corpus_at(path)
    if corpus is None and sidecar_path(path).is_file():
        raise UserError(f"--data {path} and its sidecar do not fit together: prepare it again")
    if corpus and "tokenizer" in config.given and config.tokenizer_name != corpus.tokenizer:
        raise UserError(
            f"--tokenizer {config.tokenizer} contradicts {path.name}, which was made with {corpus.tokenizer}: "
            "reset the tokenizer"
        )
