"""`export`: a run folder to give away: without checkpoints and process records, its attention maps thinned."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from bottleneck_core.cli.words import read_words
from bottleneck_core.errors import UserError

PROG = "python -m bottleneck_core export"


@dataclass(frozen=True)
class Words:
    """Copy a run folder to give away or to keep in a repository: configuration, events, summary, picture, samples,
    notes, and analysis.h5 with few attention maps; no checkpoint unless asked for, no logs and locks."""

    run: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="RUN", help="run folder")] = None
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help="folder to make, named as the copy shall be")] = None
    maps: Annotated[int, tyro.conf.arg(help="probes whose attention maps are kept, evenly spaced")] = 4
    weights: Annotated[Literal["none", "bf16", "fp32"], tyro.conf.arg(help="best.pt too, in this type")] = "none"


def main(argv: list[str]) -> int:
    words = read_words(Words, argv, prog=PROG)
    if words.run is None or words.out is None:
        raise UserError(f"a run and --out are needed, as {PROG} runs/mine --out shared/mine")
    if words.maps < 0:
        raise UserError(f"--maps must be >= 0, got {words.maps}")
    if words.out.exists():
        raise UserError(f"{words.out} exists: name a folder that does not")
    from bottleneck_core.store.analysis_layout import AnalysisError
    from bottleneck_core.store.layout import RunPaths
    from bottleneck_core.store.thinning import thin_analysis

    source = RunPaths(words.run)
    if not source.events.is_file():
        raise UserError(f"{words.run} is no run folder: it has no {source.events.name}")
    words.out.parent.mkdir(parents=True, exist_ok=True)
    making = RunPaths(words.out.with_name(f".{words.out.name}.{secrets.token_hex(6)}.tmp"))
    making.dir.mkdir()
    try:
        texts = (source.config, source.manifest, source.events, source.summary, source.picture)
        for path in (*texts, source.samples, source.evaluation, source.notes):
            if path.is_file():
                shutil.copyfile(path, making.dir / path.name)
        if source.analysis.is_file():
            thin_analysis(source.analysis, making.analysis, maps=words.maps)
        if words.weights != "none":
            _copy_weights(source.dir, making.best, words.weights)
        os.rename(making.dir, words.out)
    except AnalysisError as error:
        raise UserError(f"{error}: repair or remove the file") from None
    finally:
        shutil.rmtree(making.dir, ignore_errors=True)
    size = sum(path.stat().st_size for path in words.out.iterdir())
    print(f"{words.out}: {len(list(words.out.iterdir()))} files, {size / 1e6:.2f} MB")
    return 0


def _copy_weights(run: Path, target: Path, kind: str) -> None:
    import torch

    from bottleneck_core.train.checkpoint import load_checkpoint, save_checkpoint

    checkpoint = load_checkpoint(run)
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    model = {name: value.to(dtype) if value.is_floating_point() else value for name, value in checkpoint.model.items()}
    save_checkpoint(target, checkpoint.config, model, checkpoint.step)
