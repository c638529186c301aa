"""`tune`: search the cache policy and decode plan of a trained model for this device and a memory budget."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from rich.console import Console

from bottleneck_core.cli.amounts import tokens
from bottleneck_core.cli.flags import read_flags
from bottleneck_core.cli.trained import Trained, open_trained
from bottleneck_core.config import RunConfig, Settings, setting
from bottleneck_core.config.run import describe
from bottleneck_core.errors import UserError

PROG = "python -m bottleneck_core tune"
HELP = (
    "Measure cache policies and decode plans of a trained model on this device, and choose under a memory budget. The "
    "choice is guarded by its quality and the plans' outputs are compared, unless --no-self-opt-policy-quality and "
    "--no-self-opt-verify are given."
)
_GROUPS = ("self-optimiser", "KV cache")
_CHECKS = ("self_opt_policy_quality", "self_opt_verify")


class Words(Settings):
    """What `tune` asks beside the settings of a run."""

    run: str | None = setting(None, "run folder whose best checkpoint to tune")
    ckpt: str | None = setting(None, "checkpoint file")
    text: str | None = setting(None, "calibration text; unset: --self-opt-calib-tokens, else the validation split")
    check: str | None = setting(None, "another text, on which the choice is measured once more")
    context: str | None = setting(None, "tokens a request to tune for, as 4096 or 128k; unset: the block size")
    batch: int = setting(1, "requests", ge=1)
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "auto: cuda where there is one")
    dtype: Literal["fp32", "bf16"] | None = setting(None, "what the model computes in; unset: the checkpoint's")
    out: str | None = setting(None, "also write the JSON document to this file")


def main(argv: list[str]) -> int:
    """Exit codes: 0 done, 2 a user's mistake, 130 interrupted."""
    given, switches = read_flags(argv, prog=PROG, description=HELP, groups=_GROUPS, own=Words, switches=("json",))
    try:
        words = Words(**{name: value for name, value in given.items() if name in Words.model_fields})
    except ValidationError as error:
        raise UserError(describe(error)) from None
    rest: dict[str, Any] = {name: value for name, value in given.items() if name not in Words.model_fields}
    for name in _CHECKS:
        rest.setdefault(name, True)
    settings = RunConfig.resolve(**rest)
    if words.run is not None and words.ckpt is not None:
        raise UserError("--run and --ckpt are given together: keep one")
    if words.out is not None and not Path(words.out).resolve().parent.is_dir():
        raise UserError(f"--out {words.out} lies in a folder that does not exist: make it first")
    context = None if words.context is None else tokens(words.context)
    trained = open_trained(words.run or words.ckpt, words.device, words.dtype)
    document = _tune(trained, words, settings, context)
    if words.out is not None:
        from bottleneck_core.store.atomic import atomic_write_text

        atomic_write_text(words.out, json.dumps(document, indent=2, allow_nan=False) + "\n")
    if switches["json"]:
        print(json.dumps(document, indent=2, allow_nan=False))
    else:
        from bottleneck_core.cli.tune_text import print_tuning

        print_tuning(document)
    return 0


def _tune(trained: Trained, words: Words, settings: RunConfig, context: int | None) -> dict[str, Any]:
    from bottleneck_core.tune import choose, recheck
    from bottleneck_core.tune.report import quality_row

    guarded = settings.self_opt_policy_quality and settings.self_opt_scope != "decode"
    if words.check is not None and not guarded:
        raise UserError("--check measures what the quality guard let pass: leave --no-self-opt-policy-quality out")
    calibration, source = _calibration(trained, words, settings) if guarded else (None, None)
    other = None if words.check is None else _read(trained, text=words.check)
    with Console(stderr=True).status("measuring") as status:

        def say(line: str) -> None:
            print(line, file=sys.stderr, flush=True)

        choice = choose(
            trained.model,
            settings,
            calibration=calibration,
            context=context,
            batch=words.batch,
            notify=say,
            progress=lambda line: status.update(line.replace("[", r"\[")),
        )
        document = {"checkpoint": str(trained.checkpoint), "step": trained.step, "calibration": source}
        document |= choice.report | {"check": None}
        if other is not None:
            ids, checked = other
            quality = recheck(trained.model, choice, ids)
            met = quality.largest <= settings.self_opt_quality_tol
            document["check"] = {"text": checked, "met": met, "quality": quality_row(quality)}
    return document


def _calibration(trained: Trained, words: Words, settings: RunConfig) -> tuple[Any, dict[str, Any]]:
    if words.text is not None and settings.self_opt_calib_tokens is not None:
        raise UserError("--text and --self-opt-calib-tokens are given together: keep one")
    return _read(trained, text=words.text, data=settings.self_opt_calib_tokens)


def _read(trained: Trained, text: str | None = None, data: str | None = None) -> tuple[Any, dict[str, Any]]:
    """Token ids of a text or a token file, else of the run's validation split, and what they are."""
    from bottleneck_core.cli import evaluate

    found = evaluate.held_out(evaluate.Words(text=text, data=data), trained)
    return found.ids, found.source
