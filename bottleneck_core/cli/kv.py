"""`kv`: size a KV cache, of one of our models, of a run, or of a public model, and ask the inverse questions."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from bottleneck_core.cli.amounts import decimal, memory_size, tokens, whole_number
from bottleneck_core.cli.kv_text import list_models, print_size
from bottleneck_core.cli.words import read_words
from bottleneck_core.errors import UserError
from bottleneck_core.memory import FORMATS

if TYPE_CHECKING:
    from bottleneck_core.config import RunConfig

PROG = "python -m bottleneck_core kv"
_KINDS = "{" + ",".join(FORMATS) + "}"


def _flag(help: str, metavar: str = "TEXT") -> Any:
    return tyro.conf.arg(help=help, metavar=metavar)


Switch = tyro.conf.FlagCreatePairsOff[bool]
Text = str | None


@dataclass(frozen=True)
class Words:
    """Size a KV cache. The model: --run, --model, --hf-config, or --size, --exp and the other model flags of `train`.

    Tokens: 128k is 128,000 and 128Ki is 131,072. Bytes: 80GiB is binary, 80GB decimal.
    """

    run: Annotated[Text, _flag("run folder", "DIR")] = None
    model: Annotated[Text, _flag("public model by name; --list lists them", "NAME")] = None
    hf_config: Annotated[Text, _flag("config.json of a Hugging Face model", "FILE")] = None
    context: Annotated[Text, _flag("tokens of each request; unset: the block size of a run or preset", "N")] = None
    batch: Annotated[str, _flag("requests", "B")] = "1"
    kv_cache: Annotated[Text, _flag("kind of all cached tensors", _KINDS)] = None
    kv_cache_k: Annotated[Text, _flag("kind of k", "KIND")] = None
    kv_cache_v: Annotated[Text, _flag("kind of v", "KIND")] = None
    kv_cache_k_sem: Annotated[Text, _flag("kind of k_sem", "KIND")] = None
    kv_cache_k_geo: Annotated[Text, _flag("kind of k_geo", "KIND")] = None
    kv_qblock: Annotated[Text, _flag("values a quantisation block", "INT")] = None
    kv_qblock_k: Annotated[Text, _flag("block of k", "INT")] = None
    kv_qblock_v: Annotated[Text, _flag("block of v", "INT")] = None
    kv_qblock_k_sem: Annotated[Text, _flag("block of k_sem", "INT")] = None
    kv_qblock_k_geo: Annotated[Text, _flag("block of k_geo", "INT")] = None
    kv_residual: Annotated[Text, _flag("newest tokens also kept in fp16; public models: 0", "INT")] = None
    kv_first_layers: Annotated[Text, _flag("so many first layers are kept in --kv-edge-kind", "INT")] = None
    kv_last_layers: Annotated[Text, _flag("so many last layers are kept in --kv-edge-kind", "INT")] = None
    kv_edge_kind: Annotated[Text, _flag("kind of the first and last layers", "KIND")] = None
    kv_page: Annotated[Text, _flag("count whole pages of so many tokens; unset: 1", "INT")] = None
    state_dtype: Annotated[Text, _flag("recurrent states; unset: the reference's", "{fp32,bf16,fp16}")] = None
    budget: Annotated[Text, _flag("bytes for the cache: ask what fits", "BYTES")] = None
    gpu: Annotated[Text, _flag("the same for a GPU, less weights, activations, reserve", "NAME")] = None
    total: Annotated[str, _flag("what has to fit", "{logical,engine_reserved,conservative}")] = "logical"
    weights: Annotated[Text, _flag("dtype of the weights to take off; with --gpu: bf16", "KIND")] = None
    activations: Annotated[Text, _flag("bytes of activations to take off; with --gpu: 1GiB", "BYTES")] = None
    reserve: Annotated[Text, _flag("share to leave free; with --gpu: 0.1", "SHARE")] = None
    params: Annotated[Text, _flag("weights of the model, where they are not known: 8.03e9", "COUNT")] = None
    list: Annotated[Switch, tyro.conf.arg(help="list the public models")] = False
    json: Annotated[Switch, tyro.conf.arg(help="one JSON document, nothing else")] = False


def main(argv: list[str]) -> int:
    words, rest = _read(argv)
    if words.list:
        return list_models(words.json)
    from bottleneck_core import sizing

    _check_questions(words)
    source, title = _source(words, rest)
    model = sizing.model_of(source)
    policy = _policy(words, model)
    page = whole_number(words.kv_page, "--kv-page") if words.kv_page else 1
    context, batch = _context(words, model), whole_number(words.batch, "--batch")
    state: Any = words.state_dtype
    size = sizing.kv_memory(model, context, batch, policy, page, state)
    answers = _answers(words, source, context, batch, policy, page) if words.budget or words.gpu else None
    if words.json:
        print(json.dumps(size.to_dict() | (answers or {}), indent=2, allow_nan=False))
    else:
        print_size(title, size, answers)
    return 0


def _read(argv: list[str]) -> tuple[Words, list[str]]:
    """The command's own words, and the model flags of `train` that are left. An unknown flag is a sentence."""
    from bottleneck_core.config import GROUPS, flag_of

    fields = {flag_of(field.name): field for field in dataclasses.fields(Words)}
    model_flags = {flag_of(name) for group in GROUPS.values() for name in group.model_fields}
    own: list[str] = []
    rest: list[str] = []
    target = own
    for word in argv:
        if word.startswith("--") or word == "-h":
            flag, equals, value = word.partition("=")
            flag = flag.replace("_", "-")
            if flag in fields or flag in ("--help", "-h"):
                target = own
            elif flag in model_flags or f"--{flag[5:]}" in model_flags:
                target = rest
            else:
                near = difflib.get_close_matches(flag, [*fields, *model_flags], n=1)
                raise UserError(f"unknown flag {flag}" + (f": did you mean {near[0]}?" if near else ": see --help"))
            word = flag + equals + value
        target.append(word)
    return read_words(Words, own, prog=PROG), rest


def _source(words: Words, rest: list[str]) -> tuple[Any, str]:
    """What to size and its title: a path, a name, or the configuration that the model flags make.

    Cache flags that change no size (--kv-hadamard, --kv-fused, --kv-decode-block) go with any of them.
    """
    given = {"--run": words.run, "--model": words.model, "--hf-config": words.hf_config}
    named = [flag for flag, value in given.items() if value is not None]
    config, shaped = _configuration(rest) if rest else (None, False)
    if len(named) + shaped != 1:
        what = f"{', '.join([*named, *(['model flags'] if shaped else [])])} together" if named else "none"
        raise UserError(f"one model is needed, got {what}: give --run, --model, --hf-config, or --size and --exp")
    if words.model is not None:
        from bottleneck_core.sizing import public_model

        try:
            return words.model, public_model(words.model).name
        except ValueError as error:
            raise UserError(str(error)) from None
    if named:
        path = Path(str(words.run or words.hf_config))
        if words.hf_config is not None and not path.exists():
            raise UserError(f"--hf-config {path} does not exist: give the config.json of a model")
        if words.run is not None and not path.is_dir():
            raise UserError(f"--run {path} is no folder: give a run folder")
        return path, str(path)
    assert config is not None
    return config, config.run_id


def _configuration(rest: list[str]) -> tuple[RunConfig, bool]:
    """What the flags of `train` make, and whether they shape a model and not its cache alone."""
    from bottleneck_core.cli.flags import read_flags
    from bottleneck_core.config import RunConfig
    from bottleneck_core.config.settings import CacheSettings

    settings, _ = read_flags(rest, prog=PROG, description="")
    return RunConfig.resolve(**settings), bool(set(settings) - set(CacheSettings.model_fields))


def _check_questions(words: Words) -> None:
    """What is taken off a budget means nothing without one."""
    taken = [
        f"--{name}" for name in ("weights", "activations", "reserve", "params") if getattr(words, name) is not None
    ]
    taken += ["--total"] if words.total != Words.total else []
    if taken and not (words.budget or words.gpu):
        raise UserError(f"{', '.join(taken)} belongs to a question of what fits: give --budget or --gpu too")


def _context(words: Words, model: Any) -> int:
    if words.context is not None:
        return tokens(words.context)
    block = model.get("block_size") if isinstance(model, Mapping) else model.block_size
    if block is None:
        raise UserError("--context is missing: give the tokens of a request, as --context 128k")
    return int(block)


def _policy(words: Words, model: Any) -> dict[str, Any]:
    """The kv flags over the model's own settings. A new --kv-cache drops the model's kinds by tensor."""
    settings: dict[str, Any] = {}
    for field in dataclasses.fields(Words):
        value = getattr(words, field.name)
        if not field.name.startswith("kv_") or field.name == "kv_page" or value is None:
            continue
        if "cache" in field.name or field.name == "kv_edge_kind":
            if value not in FORMATS:
                flag = f"--{field.name.replace('_', '-')}"
                raise UserError(f"{flag} must be one of {', '.join(FORMATS)}, got {value}")
            settings[field.name] = value
        else:
            least = 1 if "qblock" in field.name else 0
            settings[field.name] = whole_number(value, f"--{field.name.replace('_', '-')}", least)
    from bottleneck_core.config.settings import CacheSettings

    own = model if isinstance(model, Mapping) else model.model_dump()
    kept = {name: value for name, value in own.items() if name in CacheSettings.model_fields}
    if "kv_cache" in settings:
        kept = {name: value for name, value in kept.items() if not name.startswith("kv_cache_")}
    return kept | settings


def _answers(words: Words, source: Any, context: int, batch: int, policy: dict[str, Any], page: int) -> dict[str, Any]:
    """What fits: the budget, the longest context at this batch, the largest batch at this context, a policy."""
    from bottleneck_core import sizing

    if words.budget and words.gpu:
        raise UserError("--budget and --gpu are given together: keep one")
    budget = sizing.budget_of(
        source,
        memory_size(words.budget) if words.budget else None,
        gpu=words.gpu,
        weights=words.weights,
        activations=memory_size(words.activations, "--activations") if words.activations else None,
        reserve=decimal(words.reserve, "--reserve"),
        params=None if words.params is None else round(decimal(words.params, "--params") or 0),
    )
    state: Any = words.state_dtype
    asked: dict[str, Any] = {"page": page, "total": words.total, "state_kind": state}
    try:
        choice = sizing.cheapest_policy(source, context, budget, batch=batch, **asked)
        policy_answer: dict[str, Any] | None = {
            "settings": choice.settings,
            "rank": choice.rank,
            "bytes": choice.memory.totals[words.total],
        }
    except UserError:
        policy_answer = None
    return {
        "budget": {name: getattr(budget, name) for name in ("total", "weights", "activations", "reserve", "cache")},
        "budget_derivation": list(budget.lines()),
        "longest_context": sizing.longest_context(source, budget, batch=batch, policy=policy, **asked),
        "largest_batch": sizing.largest_batch(source, context, budget, policy=policy, **asked),
        "cheapest_policy": policy_answer,
    }
