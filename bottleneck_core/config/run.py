"""`RunConfig`: every setting of one run, resolved from presets and what was given explicitly."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError, field_validator

from bottleneck_core.config.model import ModelConfig, Settings, flag_of
from bottleneck_core.config.presets import EXPERIMENTS, experiment_preset, size_preset
from bottleneck_core.config.settings import (
    CacheSettings,
    DataSettings,
    InstrumentSettings,
    RunSettings,
    RuntimeSettings,
    SampleSettings,
    TrainSettings,
    TuneSettings,
)
from bottleneck_core.errors import UserError

GROUPS: dict[str, type[Settings]] = {
    "run": RunSettings,
    "data": DataSettings,
    "model": ModelConfig,
    "training": TrainSettings,
    "runtime": RuntimeSettings,
    "instrumentation": InstrumentSettings,
    "KV cache": CacheSettings,
    "sampling": SampleSettings,
    "self-optimiser": TuneSettings,
}


class RunConfig(
    RunSettings,
    DataSettings,
    ModelConfig,
    TrainSettings,
    RuntimeSettings,
    InstrumentSettings,
    CacheSettings,
    SampleSettings,
    TuneSettings,
):
    """One run, flat: a setting is an attribute under its field name (`config.d_model`, `config.n_layer`).

    Build it with `RunConfig.resolve`. `given` names the fields that were set explicitly, whatever their value: they
    beat presets, decide what `--speed auto` may choose, and are marked on the training form.
    """

    given: tuple[str, ...] = Field((), description="fields that were given explicitly")

    @field_validator("given")
    @classmethod
    def _sorted(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(names)))

    @classmethod
    def resolve(cls, size: str | None = None, exp: str | None = None, **flags: Any) -> RunConfig:
        """The configuration that presets and flags give; an explicit flag beats a preset, also at its default value.

        Flags go by their command-line names with underscores (`layers=4`, `block=128`) or by the field names
        (`n_layer=4`). Raises UserError, one sentence, for unknown names and values out of bounds.
        """
        explicit = {_field_of(name): value for name, value in flags.items()}
        for name, value in (("size", size), ("exp", exp)):
            if value is not None:
                explicit[name] = value
        _check_choices(explicit)
        if explicit.get("exp") == "paper_all":
            raise UserError("--exp paper_all is four runs: choose one of " + ", ".join(EXPERIMENTS))
        settings = preset_settings(explicit) | explicit
        try:
            config = cls(**settings, given=tuple(explicit))
        except ValidationError as error:
            raise UserError(describe(error)) from None
        return config.model_copy(update={"out_dir": config.out_dir or config.automatic_folder})

    @classmethod
    def resolve_all(cls, size: str | None = None, exp: str | None = None, **flags: Any) -> list[RunConfig]:
        """As `resolve`, with `paper_all` unfolded into its four runs below `--out-dir` (or `--run-root`)."""
        if exp != "paper_all":
            return [cls.resolve(size=size, exp=exp, **flags)]
        parent = flags.pop("out_dir", None)
        if parent is not None:
            flags["run_root"] = parent
        return [cls.resolve(size=size, exp=name, **flags) for name in EXPERIMENTS]

    @property
    def run_id(self) -> str:
        """Automatic id: `{size}_{experiment without paper_}[_{tag}]`."""
        variant = self.exp.removeprefix("paper_") if self.exp else self.attn_mode
        return "_".join(part for part in (self.size or "custom", variant, self.run_tag) if part)

    @property
    def automatic_folder(self) -> str:
        return f"{self.run_root.rstrip('/')}/{self.run_id}"

    @property
    def folder(self) -> str:
        """The run's folder, as given or automatic."""
        return self.out_dir or self.automatic_folder

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer without its alias."""
        return "gpt2" if self.tokenizer == "tiktoken" else self.tokenizer

    @property
    def checkpoint_every(self) -> int:
        return self.save_every or self.eval_every

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimiser step, over all micro-steps and processes."""
        return self.batch_size * self.grad_accum * self.block_size

    def with_vocab(self, vocab_size: int) -> RunConfig:
        return self.model_copy(update={"vocab_size": vocab_size})

    @property
    def assumed_vocab_size(self) -> int:
        """The vocabulary where no data is at hand: what was given, 256 for bytes, GPT-2's 50,257 else."""
        return self.vocab_size or (256 if self.tokenizer == "byte" else 50257)


def preset_settings(explicit: Mapping[str, Any]) -> dict[str, Any]:
    """What `size` and `exp` of `explicit` set, given the other explicit settings (an experiment reads the widths)."""
    size, exp = explicit.get("size"), explicit.get("exp")
    settings = size_preset(size) if size else {}
    shape = {name: RunConfig.model_fields[name].default for name in ("d_model", "n_head")} | settings
    try:
        d_model, n_head = (int(explicit.get(name, shape[name])) for name in ("d_model", "n_head"))
    except (TypeError, ValueError):
        return settings  # not numbers: validation of the whole names the flag
    if size:
        settings["embed_dim"] = d_model
    if exp in EXPERIMENTS and d_model > 0 and n_head > 0:
        settings |= experiment_preset(exp, size, d_model, n_head)
    return settings


def _field_of(name: str) -> str:
    field = {"layers": "n_layer", "block": "block_size"}.get(name, name)
    if field not in RunConfig.model_fields or field == "given":
        known = [flag_of(known)[2:].replace("-", "_") for known in RunConfig.model_fields]
        near = difflib.get_close_matches(name, known, n=1)
        raise UserError(f"unknown setting {name}" + (f": did you mean {near[0]}?" if near else ""))
    return field


def _check_choices(explicit: Mapping[str, Any]) -> None:
    """Presets are looked up before validation, so their names are checked first."""
    for name in ("size", "exp"):
        try:
            RunSettings.model_validate({name: explicit.get(name)})
        except ValidationError as error:
            raise UserError(describe(error)) from None


_BOUNDS = {
    "greater_than_equal": (">=", "ge"),
    "greater_than": (">", "gt"),
    "less_than_equal": ("<=", "le"),
    "less_than": ("<", "lt"),
}
_KINDS = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
}


def describe(error: ValidationError) -> str:
    """The first problem of a validation error as one sentence that names the flag and the fix."""
    first = error.errors(include_url=False)[0]
    context = first.get("ctx", {})
    if not first["loc"]:  # raised by a validator over several fields, as a sentence of its own
        return str(context.get("error", first["msg"]))
    flag, given = flag_of(str(first["loc"][0])), first["input"]
    if first["type"] in _BOUNDS:
        sign, key = _BOUNDS[first["type"]]
        return f"{flag} must be {sign} {context[key]:g}, got {given}"
    if first["type"] == "literal_error":
        return f"{flag} must be one of {context['expected'].replace(' or ', ', ')}, got {given}".replace("'", "")
    if first["type"] in _KINDS:
        return f"{flag} must be {_KINDS[first['type']]}, got {given}"
    return f"{flag}: {first['msg']}"
