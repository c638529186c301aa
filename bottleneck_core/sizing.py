"""Sizes of whatever a user has at hand: a configuration, a run, a Hugging Face config.json, a public model by name.

A source is a RunConfig, a dict with the Model Config names or with Hugging Face's, a Run, the path of a run folder or
of a config.json, or the name of a public model (`model_zoo`). Mistakes are UserError, one sentence.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bottleneck_core import memory
from bottleneck_core.errors import UserError
from bottleneck_core.memory import Budget, CachePolicy, KVMemory, PolicyChoice
from bottleneck_core.memory.budget import (
    DEFAULT_ACTIVATIONS,
    DEFAULT_RESERVE,
    DEFAULT_WEIGHTS,
    WEIGHT_BITS,
    device_memory,
    weights_bytes,
)
from bottleneck_core.memory.hf import is_hf_config
from bottleneck_core.memory.layers import StateKind
from bottleneck_core.memory.zoo import PublicModel, public_model, zoo, zoo_rows

if TYPE_CHECKING:
    import pandas as pd

Policy = CachePolicy | Mapping[str, Any] | None
T = TypeVar("T")


def kv_memory(
    source: Any,
    context: int,
    batch: int = 1,
    policy: Policy = None,
    page: int = 1,
    state_kind: StateKind | None = None,
) -> KVMemory:
    """Bytes of the KV cache of `source` at `context` tokens for `batch` requests.

    `policy`: a CachePolicy, or a dict of `kv_*` settings; unset: the source's own, else fp16. Public models have no
    residual window unless kv_residual is given. Storage is counted in whole pages of `page` tokens. `state_kind` is
    the dtype of recurrent states (fp32, bf16, fp16), by default the reference implementation's.
    """
    model = model_of(source)
    return _one_sentence(lambda: memory.kv_memory(model, context, batch, _policy(policy), page, state_kind))


def longest_context(
    source: Any,
    budget: int | Budget | None = None,
    *,
    gpu: str | None = None,
    batch: int = 1,
    policy: Policy = None,
    page: int = 1,
    total: str = "logical",
    state_kind: StateKind | None = None,
    **taken: Any,
) -> int | None:
    """Most tokens for each of `batch` requests; 0 where not one fits, None where the length costs nothing.

    `budget`, `gpu` and `taken` as in `budget_of`. `total` is the size that has to fit: logical, engine_reserved or
    conservative.
    """
    model, space = model_of(source), budget_of(source, budget, gpu=gpu, **taken).cache
    return _one_sentence(lambda: memory.longest_context(model, space, batch, _policy(policy), page, total, state_kind))


def largest_batch(
    source: Any,
    context: int,
    budget: int | Budget | None = None,
    *,
    gpu: str | None = None,
    policy: Policy = None,
    page: int = 1,
    total: str = "logical",
    state_kind: StateKind | None = None,
    **taken: Any,
) -> int | None:
    """Most requests of `context` tokens each; 0 where not one fits. See `longest_context`."""
    model, space = model_of(source), budget_of(source, budget, gpu=gpu, **taken).cache
    return _one_sentence(lambda: memory.largest_batch(model, space, context, _policy(policy), page, total, state_kind))


def cheapest_policy(
    source: Any,
    context: int,
    budget: int | Budget | None = None,
    *,
    gpu: str | None = None,
    batch: int = 1,
    page: int = 1,
    total: str = "logical",
    state_kind: StateKind | None = None,
    **taken: Any,
) -> PolicyChoice:
    """The policy of the least expected loss of quality that fits, in the order of `memory.QUALITY_ORDER`.

    That order is by bits a value, values before keys; it is no measurement. Raises UserError where none fits.
    """
    model, space = model_of(source), budget_of(source, budget, gpu=gpu, **taken).cache
    return _one_sentence(
        lambda: memory.cheapest_policy(model, space, context, batch, page=page, total=total, state_kind=state_kind)
    )


def budget_of(
    source: Any,
    budget: int | Budget | None = None,
    *,
    gpu: str | None = None,
    weights: str | None = None,
    activations: int | None = None,
    reserve: float | None = None,
    params: int | None = None,
) -> Budget:
    """What is left for the cache.

    A number of bytes is the cache's alone, unless `weights` (a dtype), `activations` (bytes) or `reserve` (a share)
    are given to be taken off. Of a named GPU bf16 weights, 1 GiB of activations and a tenth as reserve are taken off
    unless given. `params` are the model's weights where `parameters_of` does not know them.
    """
    if isinstance(budget, Budget):
        return budget
    if (budget is None) == (gpu is None):
        raise UserError("give either a budget in bytes or a GPU by name")
    whole = budget if budget is not None else _one_sentence(lambda: device_memory(str(gpu)))
    if gpu is not None:
        weights = weights or DEFAULT_WEIGHTS
        activations = DEFAULT_ACTIVATIONS if activations is None else activations
        reserve = DEFAULT_RESERVE if reserve is None else reserve
    if not 0 <= (reserve or 0) < 1 or (activations or 0) < 0 or whole < 0:
        raise UserError("a budget needs bytes >= 0, activations >= 0 and a reserve from 0 to below 1")
    size, sums = 0, []
    if weights is not None:
        count = parameters_of(source) if params is None else params
        if count is None:
            raise UserError("the number of weights is not known: give params (--params), as 8.03e9")
        size = _one_sentence(lambda: weights_bytes(count, weights))
        sums.append(f"weights: {count:,} x {float(WEIGHT_BITS[weights]):g} bits ({weights}) / 8 = {size:,} B")
    kept = round(whole * (reserve or 0))
    if reserve:
        sums.append(f"reserve: {reserve:g} x {whole:,} = {kept:,} B")
    return Budget(total=whole, weights=size, activations=activations or 0, reserve=kept, sums=tuple(sums))


def parameters_of(source: Any) -> int | None:
    """Weights of a model: as listed for a public one, counted from the configuration for ours, None where it is not
    complete (a run without a vocabulary size, a Hugging Face configuration)."""
    if isinstance(source, str) and not os.path.exists(source) and source.strip().lower() in zoo():
        return public_model(source).params
    if isinstance(source, PublicModel):
        return source.params
    model = _network_of(source)
    if isinstance(model, Mapping):
        vocab = None if is_hf_config(model) else model.get("vocab_size")
    else:
        vocab = getattr(model, "assumed_vocab_size", None) or getattr(model, "vocab_size", None)
    if not vocab:
        return None
    try:
        return memory.count_parameters(model, vocab)
    except (ValueError, TypeError):  # a foreign run whose configuration lacks a part
        return None


def index(roots: Iterable[str | os.PathLike[str]] | str | os.PathLike[str]) -> list[dict[str, Any]]:
    """`store.index` with what a run did not record but its shape tells: `n_params`, and `kv_bytes_128k` in fp16."""
    return look(roots)[0]


def look(
    roots: Iterable[str | os.PathLike[str]] | str | os.PathLike[str],
    seconds: float | None = None,
    first: Collection[str] = (),
) -> tuple[list[dict[str, Any]], int]:
    """As `index`, but reading what is new takes not much more than `seconds`; and how many runs are left for later.

    Runs whose id is in `first` are not among these.
    """
    from bottleneck_core.store.index import look as recorded

    rows, unread = recorded(roots, seconds, first)
    for row in rows:  # they are shared: what is derived once stays
        if row.get("model") and row.get("n_params") is None:
            row["n_params"] = parameters_of(row["model"])
        if row.get("model") and row.get("kv_bytes_128k") is None:
            with contextlib.suppress(UserError):
                row["kv_bytes_128k"] = kv_memory(row["model"], memory.TOKENS_128K).bytes
    return rows, unread


def model_zoo() -> pd.DataFrame:
    """The public models known by name, one row each: name, family, layers, kind, bytes_per_token (fp16, the first
    token), slope_bytes_per_token (one more at long context), fixed_bytes_per_request, params, source, confirmed."""
    import pandas as pd

    return pd.DataFrame(zoo_rows())


def model_of(source: Any) -> Any:
    """The configuration behind a source: an object or dict that `memory` takes. Raises UserError."""
    if isinstance(source, (str, os.PathLike)):
        return _model_of_path(source)
    return getattr(source, "config", source)  # a Run's flat dict


def _network_of(source: Any) -> Any:
    """As `model_of`; a run's vocabulary is the data's where its settings leave it open."""
    if isinstance(source, (str, os.PathLike)) and Path(source).is_dir():
        model = model_of(source)
        if is_hf_config(model) or model.get("vocab_size"):
            return model
        from bottleneck_core.store.run import load_run

        source = load_run(source)
    return getattr(source, "model", None) or model_of(source)


def _model_of_path(source: str | os.PathLike[str]) -> Any:
    path = Path(source)
    if path.is_file():
        return _config_file(path)
    if path.is_dir():
        config = path / "config.json"
        if config.is_file() and any(key in (found := _config_file(config)) for key in ("attn_mode", "model_type")):
            return found  # without the readers of events, which take longer than the whole answer
        from bottleneck_core.store.run import load_run

        return load_run(path).config
    if isinstance(source, str) and not {"/", "\\"} & set(source):
        return _one_sentence(lambda: public_model(source)).config
    raise UserError(f"{path} is neither a run folder nor a config.json, nor the name of a public model (kv --list)")


def _config_file(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no readable JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no configuration: a config.json is one JSON object")
    return found


def _policy(policy: Policy) -> Policy:
    """A dict's names are checked: a misspelt one would silently mean fp16."""
    if isinstance(policy, Mapping):
        from bottleneck_core.config.settings import CacheSettings

        unknown = [name for name in policy if name.startswith("kv_") and name not in CacheSettings.model_fields]
        if set(unknown) - {"kv_head"}:
            raise UserError(f"unknown cache setting {unknown[0]}: known are {', '.join(CacheSettings.model_fields)}")
    return policy


def _one_sentence(ask: Callable[[], T]) -> T:
    """A ValueError of `memory` is a user's mistake here."""
    try:
        return ask()
    except ValueError as error:
        raise UserError(str(error)) from None
