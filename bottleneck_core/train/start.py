"""Before the first step: which run this is, which checkpoint it goes on from, and on which data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottleneck_core.config import RunConfig, flag_of
from bottleneck_core.data.prepare import default_corpus
from bottleneck_core.data.tokenfile import TokenFile, check, open_tokens, resolve_vocab
from bottleneck_core.errors import UserError
from bottleneck_core.store.layout import RunPaths, next_free_id
from bottleneck_core.train.checkpoint import Checkpoint, find_checkpoint, find_last, read_checkpoint

# Settings that may differ from the checkpoint's when a run is resumed: they change what is done and written from now
# on, not what the steps before have meant. All others make it another run.
_FREE_ON_RESUME = frozenset(
    {
        *("steps", "max_minutes", "save_every", "log_every", "eval_every", "analysis_every"),
        *("instrument", "device", "shard", "speed", "amp", "amp_dtype", "compile"),
        *("compile_mode", "cuda_graph", "loss_chunk", "grad_checkpoint", "live_plot", "tb", "resume", "run_root"),
        *("run_tag", "out_dir", "data", "data_format", "data_dtype"),
    }
)


@dataclass(frozen=True)
class Start:
    """A run that may begin: its configuration as it will be written, its folder, its checkpoint where it resumes."""

    config: RunConfig
    paths: RunPaths
    checkpoint: Path | None


def choose_start(config: RunConfig, processes: int = 1) -> Start:
    """Where `config` begins on so many processes.

    Raises UserError where that would overwrite a run, or contradict a checkpoint.
    """
    if config.resume is None:
        folder = Path(config.folder)
        if _is_trained(folder):
            free = folder.with_name(next_free_id(folder.parent, folder.name))
            raise UserError(f"{folder} holds a run already: add --resume to continue it, or give --out-dir {free}")
        return Start(config, RunPaths(folder), None)

    automatic = config.resume == "auto"
    where = Path(config.folder if automatic else config.resume)
    found = find_checkpoint(where, prefer="last")
    if found is None:
        if automatic:  # nothing was saved yet: the run begins anew
            return Start(config, RunPaths(where), None)
        raise UserError(f"--resume {where} holds no checkpoint: give a run folder that has last.pt or last.dcp")
    checkpoint = read_checkpoint(found, whole=False)
    if checkpoint.training is None:
        raise UserError(f"{found} holds weights only and cannot be resumed: start a run with --init-from {found}")
    chosen = automatic or "out_dir" in config.given
    folder = Path(config.folder) if chosen else found.parent
    if folder.resolve() != found.parent.resolve() and _is_trained(folder):
        raise UserError(f"{folder} holds another run than {found}: give an --out-dir that is free")
    return Start(_continued(config, checkpoint, folder, processes), RunPaths(folder), found)


def _is_trained(folder: Path) -> bool:
    """Whether the folder has what a trainer writes; what a job wrote before it started one does not count."""
    paths = RunPaths(folder)
    written = (paths.events, paths.manifest, paths.analysis, paths.summary)
    return any(path.exists() for path in written) or find_last(paths) is not None


def _continued(config: RunConfig, checkpoint: Checkpoint, folder: Path, processes: int) -> RunConfig:
    """The checkpoint's configuration with what was given now, as far as a resumed run may change it."""
    saved = checkpoint.config
    for name in config.given:
        if name not in _FREE_ON_RESUME and getattr(config, name) != getattr(saved, name):
            raise UserError(
                f"{flag_of(name)} {getattr(config, name)} differs from {getattr(saved, name)} in {checkpoint.path}: "
                "leave it out to resume, or start a new run"
            )
    changed = {name: getattr(config, name) for name in config.given if name in _FREE_ON_RESUME}
    given = tuple(sorted({*saved.given, *config.given}))
    # The machine is the present one: where no device is given, it is chosen anew, and one process has no shards.
    update = (
        {"shard": saved.shard and processes > 1}
        | changed
        | {
            "resume": config.resume,
            "device": config.device,
            "out_dir": str(folder),
            "given": given,
        }
    )
    return saved.model_copy(update=update)


def data_path(config: RunConfig) -> Path:
    """The token file of `config`; without `--data` the built-in corpus, made once in `data/`."""
    return Path(config.data) if config.data else default_corpus(config.tokenizer_name)


def open_data(config: RunConfig, path: Path) -> tuple[RunConfig, TokenFile, list[str]]:
    """The token file at `path`, `config` with vocabulary and tokenizer resolved, and warnings.

    Raises UserError for a file that does not fit the configuration.
    """
    tokens = open_tokens(path, format=config.data_format, dtype=config.data_dtype)
    chosen_tokenizer = config.tokenizer_name if "tokenizer" in config.given else None
    vocabulary = resolve_vocab(config.vocab_size, tokens, chosen_tokenizer)
    check(tokens, config.block_size, vocabulary.size, config.val_frac)
    update: dict[str, Any] = {"data": str(path), "vocab_size": vocabulary.size}
    if vocabulary.tokenizer is not None:
        update["tokenizer"] = vocabulary.tokenizer
    return config.model_copy(update=update), tokens, [vocabulary.warning] if vocabulary.warning else []
