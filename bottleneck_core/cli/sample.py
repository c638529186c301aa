"""`sample`: text from a checkpoint, through a cache of any kind, streamed to the terminal."""

from __future__ import annotations

import codecs
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from bottleneck_core.cli.flags import read_flags
from bottleneck_core.cli.trained import Trained, open_trained
from bottleneck_core.config import RunConfig, Settings, setting
from bottleneck_core.config.run import describe
from bottleneck_core.errors import UserError
from bottleneck_core.memory import CachePolicy, kv_memory
from bottleneck_core.memory.policy_text import policy_label

if TYPE_CHECKING:
    from bottleneck_core.generate import Engine

PROG = "python -m bottleneck_core sample"
HELP = "Continue a prompt with a trained model. The texts are added to the run's samples.jsonl."
Drawn = list[int | None]
_GROUPS = ("sampling", "KV cache", "self-optimiser")


class Words(Settings):
    """What `sample` asks beside the settings of a run."""

    run: str | None = setting(None, "run folder whose best checkpoint to use; the same as --ckpt")
    prompt: str | None = setting(None, "prompt as text; - reads it from the standard input")
    prompts: str | None = setting(None, "file with one prompt a line: all are continued in one batch")
    policies: str | None = setting(None, "with --json-lines: cache policies to continue side by side, P;P;...")
    top_p: float = setting(1.0, "keep the most likely tokens up to this share together", gt=0, le=1)
    stop: str | None = setting(None, "stop at this token: an id, or text that is one token")
    seed: int = setting(1337, "seed of the draws", ge=0)
    device: str | None = setting(None, "torch device; unset: cuda, else mps, else cpu")
    dtype: Literal["fp32", "bf16"] | None = setting(None, "what the model computes in; unset: the checkpoint's")


def main(argv: list[str]) -> int:
    """Exit codes: 0 done, 2 a user's mistake, 130 interrupted."""
    given, switches = read_flags(
        argv, prog=PROG, description=HELP, groups=_GROUPS, own=Words, switches=("json", "json_lines", "no_save")
    )
    try:
        words = Words(**{name: value for name, value in given.items() if name in Words.model_fields})
    except ValidationError as error:
        raise UserError(describe(error)) from None
    settings = RunConfig.resolve(**{name: value for name, value in given.items() if name not in Words.model_fields})
    policies = _policies(words, settings, switches)
    if words.prompt == "-":
        words = words.model_copy(update={"prompt": sys.stdin.buffer.read().decode("utf-8", errors="replace")})
    trained = open_trained(words.run or settings.ckpt, words.device, words.dtype)
    prompts = _prompts(trained, words, settings, "prompt_tokens" in given)
    if switches["json_lines"]:
        records = _stream(trained, prompts[0], words, settings, policies)
        for record in [] if switches["no_save"] else records:
            _save(trained, record)
        return 0
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = _show_warning
        document = _sample(trained, prompts, words, settings, quiet=switches["json"])
    if switches["json"]:
        print(json.dumps(document, ensure_ascii=False, allow_nan=False))
    if not switches["no_save"]:
        _save(trained, document)
    return 0


def _policies(words: Words, settings: RunConfig, switches: dict[str, bool]) -> list[CachePolicy]:
    """Those of --json-lines, after a look at what does not go with it; none without."""
    from bottleneck_core.cli.sample_stream import policies_asked

    if not switches["json_lines"]:
        if words.policies is not None:
            raise UserError("--policies is for --json-lines: add it, or give one policy with --kv-cache")
        return []
    if switches["json"] or words.prompts is not None or settings.self_opt != "none":
        raise UserError("--json-lines streams one prompt: leave --json, --prompts and --self-opt out")
    return policies_asked(words.policies, settings)


def _stream(
    trained: Trained, prompt: list[int], words: Words, settings: RunConfig, policies: list[CachePolicy]
) -> list[dict[str, Any]]:
    from bottleneck_core.cli.sample_stream import stream
    from bottleneck_core.generate import Sampling
    from bottleneck_core.store.samples import sample_record

    sampling = Sampling(temperature=settings.temperature, top_k=settings.top_k, top_p=words.top_p)
    stop = _stop(trained, words.stop)
    columns = stream(trained, prompt, policies, settings, sampling=sampling, seed=words.seed, stop=stop)
    return [sample_record(start, tokens, end) for start, tokens, end in columns]


def _prompts(trained: Trained, words: Words, settings: RunConfig, ids_given: bool) -> list[list[int]]:
    """Token ids of the prompts. `--prompt-tokens` may be text where a tokenizer is known, as the seed has it."""
    if sum((words.prompt is not None, words.prompts is not None, ids_given)) > 1:
        raise UserError("give one of --prompt, --prompts and --prompt-tokens, not several")
    if words.prompts is not None:
        try:
            lines = Path(words.prompts).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--prompts {words.prompts} cannot be read ({error}): give a text file") from None
        texts = [line for line in lines if line.strip()]
        if not texts:
            raise UserError(f"--prompts {words.prompts} has no line with a prompt: write one a line")
        return [trained.encode(text) for text in texts]
    if words.prompt is not None:
        return [trained.encode(words.prompt)]
    ids = _ids(settings.prompt_tokens)
    return [trained.encode(settings.prompt_tokens) if ids is None else ids]


def _ids(text: str) -> list[int] | None:
    """Whole numbers divided by spaces or commas; None where the text is something else."""
    parts = text.replace(",", " ").split()
    return [int(part) for part in parts] if parts and all(part.isdecimal() for part in parts) else None


def _stop(trained: Trained, text: str | None) -> list[int]:
    """The stop token, and the tokenizer's own end of a document where it has one."""
    end = None if trained.tokenizer is None else trained.tokenizer.end_token
    stops = [] if end is None else [end]
    if text is None:
        return stops
    ids = [int(text)] if text.isdecimal() and len(text) > 1 else trained.encode(codecs.decode(text, "unicode_escape"))
    if len(ids) != 1:
        raise UserError(f"--stop {text!r} is {len(ids)} tokens to this model: give one token, or its id")
    return [*stops, *ids]


def _sample(
    trained: Trained, prompts: list[list[int]], words: Words, settings: RunConfig, quiet: bool
) -> dict[str, Any]:
    from bottleneck_core.generate import Sampling

    stop = _stop(trained, words.stop)
    engine, watched = _engine(trained, prompts, settings)
    sampling = Sampling(temperature=settings.temperature, top_k=settings.top_k, top_p=words.top_p)
    streams = [_Stream(trained, prompt, show=not quiet and len(prompts) == 1) for prompt in prompts]
    began = time.perf_counter()
    steps = engine.generate(prompts, settings.max_new_tokens, sampling=sampling, seed=words.seed, stop=stop)
    for drawn in watched(steps):
        for stream, token in zip(streams, drawn, strict=True):
            if token is not None:
                stream.add(token)
    seconds = time.perf_counter() - began
    for stream in streams:
        stream.end()
    if not quiet and len(streams) > 1:
        for stream in streams:
            print(stream.text, end="\n---\n")
    policy = engine.policy or CachePolicy.of(settings)
    made = sum(len(stream.tokens) for stream in streams)
    if not quiet:
        _report(engine, made, seconds)
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "checkpoint": trained.checkpoint.name,
        "step": trained.step,
        "seed": words.seed,
        "sampling": {"temperature": settings.temperature, "top_k": settings.top_k, "top_p": words.top_p},
        "policy": policy_label(policy),
        "device": str(trained.device),
        "new_tokens": made,
        "seconds": round(seconds, 3),
        "cache": {
            "tokens": engine.cache.length,
            "allocated_bytes": engine.cache.allocated_bytes,
            "accounted_bytes": kv_memory(
                trained.config, engine.cache.length, len(prompts), policy, page=settings.kv_page
            ).bytes,
        },
        "fused": engine.fallback or "fused",
        "samples": [
            {"prompt": stream.prompt, "prompt_tokens": prompt, "tokens": stream.tokens, "text": stream.text}
            for prompt, stream in zip(prompts, streams, strict=True)
        ],
    }


def _engine(
    trained: Trained, prompts: list[list[int]], settings: RunConfig
) -> tuple[Engine, Callable[[Iterator[Drawn]], Iterator[Drawn]]]:
    """The engine that the settings ask for, or that the self-optimiser chose; and what watches its steps."""
    from bottleneck_core.generate import Engine, Plan

    if settings.self_opt == "none":
        plan = Plan(block=settings.kv_decode_block, fused=settings.kv_fused)
        try:
            return Engine(trained.model, CachePolicy.of(settings), plan=plan, page=settings.kv_page), iter
        except ValueError as error:  # a block size that a format cannot have
            raise UserError(str(error)) from None
    from bottleneck_core.tune import Online, choose

    longest = max(map(len, prompts))
    choice = choose(
        trained.model,
        settings,
        prompt_tokens=longest,
        context=longest + settings.max_new_tokens,
        batch=len(prompts),
        calibration=_calibration(trained, settings),
        notify=_say,
    )
    engine = Engine(trained.model, choice.policy, plan=choice.plan, page=settings.kv_page)
    _say(f"chosen: {choice.report['chosen']['policy']}, read {choice.report['chosen']['plan']}")
    if settings.self_opt == "startup":
        return engine, iter
    online = Online(
        engine,
        choice.plans,
        interval=settings.self_opt_interval,
        hysteresis=settings.self_opt_hysteresis,
        notify=_say,
    )
    return engine, online.watch


def _calibration(trained: Trained, settings: RunConfig) -> Any:
    """Token ids for the guard, where it is asked for: the calibration file's, else of the run's validation split."""
    if not settings.self_opt_policy_quality or settings.self_opt_scope == "decode":
        return None
    from bottleneck_core.cli import evaluate

    return evaluate.held_out(evaluate.Words(data=settings.self_opt_calib_tokens), trained).ids


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Stream:
    """One text as it grows, shown up to the last character that is whole."""

    def __init__(self, trained: Trained, prompt: Sequence[int], show: bool) -> None:
        from bottleneck_core.generate.pieces import Pieces

        self.tokens: list[int] = []
        self.show = show
        self._pieces = Pieces(None if trained.tokenizer is None else trained.tokenizer.decode)
        self.prompt = self.text = self._pieces.extend(prompt)
        self._print(self.text)

    def add(self, token: int) -> None:
        self.tokens.append(token)
        self._grow(self._pieces.add(token))

    def end(self) -> None:
        self._grow(self._pieces.rest())
        if self.show:
            print(flush=True)

    def _grow(self, piece: str) -> None:
        self.text += piece
        self._print(piece)

    def _print(self, piece: str) -> None:
        if self.show:
            print(piece, end="", flush=True)


def _report(engine: Engine, made: int, seconds: float) -> None:
    cache = engine.cache
    print(
        f"{made} tokens in {seconds:.2f} s; cache {cache.allocated_bytes / 1024:,.1f} KiB for {cache.batch} x "
        f"{cache.length} tokens",
        file=sys.stderr,
    )
    if engine.fallback and (engine.plan.fused != "auto" or cache.device.type == "cuda"):
        print(f"without a fused kernel: {engine.fallback}", file=sys.stderr)
    if engine.graph_fallback and cache.device.type == "cuda":  # elsewhere there are none to expect
        print(f"not as CUDA graphs: {engine.graph_fallback}", file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _save(trained: Trained, record: dict[str, Any]) -> None:
    """One line at the end of the run's samples.jsonl; a checkpoint outside a run folder has none."""
    from bottleneck_core.store.layout import RunPaths, is_run
    from bottleneck_core.store.samples import append_sample

    if is_run(trained.folder):
        append_sample(RunPaths(trained.folder).samples, record)
