"""`evaluate`: what cache policies cost a trained model in quality, on held-out text."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from bottleneck_core.cli.amounts import tokens, whole_number
from bottleneck_core.cli.trained import Trained, open_trained
from bottleneck_core.cli.words import read_words
from bottleneck_core.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from bottleneck_core.generate.evaluation import Evaluation
    from bottleneck_core.generate.quality import Policy

PROG = "python -m bottleneck_core evaluate"


def _flag(help: str, metavar: str = "TEXT") -> Any:
    return tyro.conf.arg(help=help, metavar=metavar)


Switch = tyro.conf.FlagCreatePairsOff[bool]
Text = str | None


@dataclass(frozen=True)
class Words:
    """Measure cache policies on held-out text: negative log-likelihood, divergence from the fp16 cache, same top-1
    token, needle retrieval and induction, at several context lengths.

    A policy is written as q8_0, k=q8_0,v=q4_0 or q4_0,residual=64,qblock=16,first=1,last=1,edge=fp16,hadamard; the
    newest 128 tokens are kept in fp16 unless residual says otherwise. `native` stores the model's own dtype.
    """

    run: Annotated[Text, _flag("run folder; its best checkpoint is measured", "DIR")] = None
    ckpt: Annotated[Text, _flag("checkpoint file", "FILE")] = None
    text: Annotated[Text, _flag("held-out text; unset: the run's validation split", "FILE")] = None
    data: Annotated[Text, _flag("held-out token file; of the run's own its validation split", "TOKENFILE")] = None
    contexts: Annotated[Text, _flag("context lengths in tokens; unset: half the block and the block", "N,N")] = None
    policies: Annotated[Text, _flag("policies; unset: those of all formats", "P;P;...")] = None
    baseline: Annotated[str, _flag("what they are compared with: fp16, native, or another policy", "P")] = "fp16"
    windows: Annotated[str, _flag("windows of text at each context", "INT")] = "8"
    scored: Annotated[str, _flag("scored tokens at the end of each, at most half the context", "INT")] = "128"
    trials: Annotated[str, _flag("needle prompts and repeated sequences; 0: none", "INT")] = "8"
    seed: Annotated[str, _flag("seed of needles and sequences", "INT")] = "1337"
    device: Annotated[Literal["auto", "cpu", "cuda"], tyro.conf.arg(help="auto: cuda where there is one")] = "auto"
    dtype: Annotated[Literal["fp32", "bf16"], tyro.conf.arg(help="what the model computes in")] = "fp32"
    out: Annotated[Text, _flag("also write the JSON document to this file", "FILE")] = None
    no_save: Annotated[Switch, tyro.conf.arg(help="do not add to evaluation.json in the run folder")] = False
    json: Annotated[Switch, tyro.conf.arg(help="one JSON document, nothing else")] = False


@dataclass(frozen=True)
class HeldOut:
    """Token ids (M,) to measure on, and what they are."""

    ids: np.ndarray
    source: dict[str, Any]


def main(argv: list[str]) -> int:
    """Exit codes: 0 done, 2 a user's mistake, 130 interrupted."""
    words = read_words(Words, argv, prog=PROG)
    if words.out is not None and not Path(words.out).resolve().parent.is_dir():
        raise UserError(f"--out {words.out} lies in a folder that does not exist: make it first")
    trained = _trained(words)
    saved = not words.no_save and _is_run(trained.folder)
    if saved:
        from bottleneck_core.generate.evaluation import read_evaluations

        read_evaluations(trained.folder)  # minutes before it would be written to
    document, evaluation = measure(words, trained)
    if words.out is not None:
        from bottleneck_core.store.atomic import atomic_write_text

        atomic_write_text(words.out, json.dumps(document, indent=2, allow_nan=False) + "\n")
    if saved:
        from bottleneck_core.generate.evaluation import add_evaluation

        add_evaluation(trained.folder, document)
    if words.json:
        print(json.dumps(document, indent=2, allow_nan=False))
    else:
        from bottleneck_core.cli.evaluate_text import print_evaluation

        print_evaluation(trained.folder.name, evaluation)
    return 0


def measure(words: Words, trained: Trained | None = None) -> tuple[dict[str, Any], Evaluation]:
    """The document of `--json`, and the rows behind it. Progress goes to stderr."""
    from rich.console import Console

    from bottleneck_core.cli.bar import Bar
    from bottleneck_core.generate.evaluation import evaluate_cache
    from bottleneck_core.generate.quality import label_of

    trained = trained or _trained(words)
    heldout = held_out(words, trained)
    contexts, policies, baseline = _contexts(words, trained), _policies(words, trained), _policy(words.baseline)
    counts = {name: whole_number(getattr(words, name), f"--{name}") for name in ("windows", "scored")}
    counts |= {name: whole_number(getattr(words, name), f"--{name}", least=0) for name in ("trials", "seed")}
    _warn_beyond(trained, contexts)
    with Bar("evaluating", Console(stderr=True)) as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # told above, once
        evaluation = evaluate_cache(
            trained.model,
            heldout.ids,
            policies,
            contexts=contexts,
            baseline=baseline,
            report=bar.report,
            **counts,
        )
    key = {
        **_identity(trained),
        "text": heldout.source,
        "contexts": contexts,
        "baseline": label_of(baseline),
        "policies": [label_of(policy) for policy in policies],
        **counts,
        "dtype": words.dtype,
    }
    created = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"key": key, "created": created, **evaluation.to_dict()}, evaluation


def held_out(words: Words, trained: Trained) -> HeldOut:
    """The text or token file that was given, else the validation split of the run's own token file."""
    if words.text is not None and words.data is not None:
        raise UserError("--text and --data are given together: keep one")
    return _of_text(Path(words.text), trained) if words.text is not None else _of_tokens(words.data, trained)


def _of_text(path: Path, trained: Trained) -> HeldOut:
    from bottleneck_core.data.sidecar import file_sha256

    if trained.tokenizer is None:
        raise UserError(
            f"the vocabulary of {trained.checkpoint} is not at hand: give a token file with --data, or put the "
            f"sidecar back beside {trained.config.data}"
        )
    try:
        ids = trained.tokenizer.encode_array(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--text {path} cannot be read ({error}): give a UTF-8 text file") from None
    source = {"kind": "text", "name": path.name, "sha256": file_sha256(path), "tokenizer": trained.tokenizer.name}
    return HeldOut(ids, source | {"tokens": len(ids)})


def _of_tokens(given: str | None, trained: Trained) -> HeldOut:
    """A token file. Of the one that the model was trained on, only the end was held out."""
    from bottleneck_core.data.tokenfile import open_tokens, split_sizes
    from bottleneck_core.store.layout import RunPaths
    from bottleneck_core.store.status import read_json

    config = trained.config
    if given is None and (config.data is None or not Path(config.data).is_file()):
        raise UserError(
            f"the token file that {trained.checkpoint} was trained on is not here ({config.data}): give held-out text "
            "with --text, or a token file with --data"
        )
    path = Path(given or str(config.data))
    own_file = given is None or (config.data is not None and path.resolve() == Path(config.data).resolve())
    file = open_tokens(path, config.data_format if own_file else "auto", config.data_dtype)
    trained_on = read_json(RunPaths(trained.folder).manifest).get("data_sha256")
    if given is None and trained_on not in (None, file.sha256):
        raise UserError(
            f"{path} is no longer the file that {trained.checkpoint} was trained on: give held-out text with --text, "
            "or a token file with --data"
        )
    if file.tokenizer not in (None, config.tokenizer_name):
        raise UserError(
            f"{path} was prepared with the tokenizer {file.tokenizer}, the model knows {config.tokenizer_name}: give "
            "a token file of that one, or --text"
        )
    own = own_file if trained_on is None else file.sha256 == trained_on
    first = split_sizes(len(file), config.val_frac)[0] if own else 0
    source = {
        "kind": "validation split" if own else "token file",
        "name": path.name,
        "sha256": file.sha256,
        "tokenizer": file.tokenizer,
        "first_token": first,
        "tokens": len(file) - first,
    }
    return HeldOut(file.tokens[first:], source)


def _trained(words: Words) -> Trained:
    if words.run is not None and words.ckpt is not None:
        raise UserError("--run and --ckpt are given together: keep one")
    return open_trained(words.run or words.ckpt, words.device, words.dtype)


def _contexts(words: Words, trained: Trained) -> list[int]:
    block = trained.config.block_size
    if words.contexts is None:
        return [length for length in (block // 2, block) if length > 0]
    # "4,096" would be read as two contexts, so thousands are not divided here.
    return sorted({tokens(part, "--contexts") for part in words.contexts.split(",")})


def _policies(words: Words, trained: Trained) -> list[Policy]:
    from bottleneck_core.generate.evaluation import default_policies
    from bottleneck_core.memory import cached_widths

    if words.policies is None:
        return [*default_policies(list(cached_widths(trained.config)))]
    found: list[Policy] = []
    for text in words.policies.split(";"):
        policy = _policy(text)
        if policy not in found:
            found.append(policy)
    return found


def _policy(text: str) -> Policy:
    from bottleneck_core.memory.policy_text import parse_policy

    return None if text.strip().lower() == "native" else parse_policy(text)


def _warn_beyond(trained: Trained, contexts: list[int]) -> None:
    block = trained.config.block_size
    beyond = [f"{length:,}" for length in contexts if length > block]
    if beyond:
        print(
            f"warning: contexts beyond {block:,} tokens, with which the model was trained ({', '.join(beyond)}), "
            "measure mostly the model's own loss of quality there",
            file=sys.stderr,
        )


def _identity(trained: Trained) -> dict[str, Any]:
    """The model and what computes it, as far as numbers depend on it."""
    import torch

    from bottleneck_core.data.sidecar import file_sha256

    cuda = trained.device.type == "cuda"
    return {
        "checkpoint": trained.checkpoint.name,
        "checkpoint_sha256": file_sha256(trained.checkpoint),
        "step": trained.step,
        "device": torch.cuda.get_device_name(trained.device) if cuda else trained.device.type,
        "torch": torch.__version__,
    }


def _is_run(folder: Path) -> bool:
    from bottleneck_core.store.layout import is_run

    return is_run(folder)
