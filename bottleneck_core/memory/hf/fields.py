"""Reading a Hugging Face configuration without guessing: what is absent has its class's default, or is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bottleneck_core.memory.hf.defaults import ALIASES, DEFAULTS, SIZES


class Fields:
    """The fields of one `config.json`, or of its `nested` text part, by their Hugging Face names.

    `assumed` collects the names whose defaults were used: the derivation says them.
    """

    def __init__(self, config: Mapping[str, Any], nested: bool = False) -> None:
        self.config = config
        self.nested = nested
        self.model_type = str(config["model_type"])
        self.assumed: set[str] = set()

    def has(self, name: str) -> bool:
        """Whether the field is there (null too), or its class has a default that may stand in for it."""
        if name in self.config or ALIASES.get(name) in self.config:
            return True
        defaults = DEFAULTS.get(self.model_type, {})
        return name in defaults and (self.nested or name not in SIZES or defaults[name] is None)

    def get(self, name: str) -> Any:
        """The field as it is written, else the default of its class, else None."""
        if name in self.config:
            return self.config[name]
        if ALIASES.get(name) in self.config:
            return self.config[ALIASES[name]]
        if not self.has(name):
            return None
        self.assumed.add(name)
        return DEFAULTS[self.model_type][name]

    def need(self, *names: str) -> tuple[int, ...]:
        """The whole numbers >= 1 of these names. Raises ValueError that names all that are absent or null."""
        values = {name: self.get(name) for name in names}
        absent = [name for name, value in values.items() if value is None]
        if absent:
            raise ValueError(
                f"the {self.model_type} configuration lacks {', '.join(absent)}: give the model's own config.json"
            )
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"{name} of the {self.model_type} configuration must be a whole number >= 1: {value!r}"
                )
        return tuple(values.values())

    def one(self, name: str) -> int:
        return self.need(name)[0]

    def optional(self, name: str) -> int | None:
        """The number, or None where it is absent or null."""
        return None if self.get(name) is None else self.one(name)

    def count(self, name: str) -> int:
        """The whole number >= 0; 0 where it is null."""
        value = self.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise ValueError(f"{name} of the {self.model_type} configuration must be a whole number >= 0: {value!r}")
        return value or 0

    def flag(self, name: str) -> bool:
        return bool(self.get(name))

    def shape(self, *more: str) -> tuple[int, ...]:
        """Layers, query heads, key heads (null: as many as query heads) and `more`, all that is absent in one error."""
        names = ["num_hidden_layers", "num_attention_heads", *more]
        if not self.has("num_key_value_heads"):
            names.insert(2, "num_key_value_heads")
        values = dict(zip(names, self.need(*names), strict=True))
        values["num_key_value_heads"] = self.optional("num_key_value_heads") or values["num_attention_heads"]
        return tuple(
            values[name] for name in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", *more)
        )

    def names(self, name: str, length: int | None = None) -> list[str] | None:
        """A list of words such as `layer_types`, or None. Raises ValueError where it is not `length` long."""
        value = self.config.get(name)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or (length is not None and len(value) != length):
            raise ValueError(
                f"{name} of the {self.model_type} configuration must list all {length or ''} layers, one word each"
            )
        return [str(word) for word in value]

    def head_dim(self, *, explicit: bool = False) -> int:
        """`head_dim`, else hidden_size / num_attention_heads, unless the family has it `explicit`.

        hidden_size / num_attention_heads is wrong for families that choose the two apart (Qwen3, Gemma, gpt-oss).
        """
        if explicit or self.get("head_dim") is not None:
            return self.one("head_dim")
        hidden, heads = self.need("hidden_size", "num_attention_heads")
        return divided(self.model_type, hidden, heads)

    def lines(self) -> tuple[str, ...]:
        """The defaults that were used, one a line."""
        known = DEFAULTS.get(self.model_type, {})
        return tuple(
            f"{_said(name, known[name])} (default of {self.model_type})" for name in known if name in self.assumed
        )


def _said(name: str, value: Any) -> str:
    if name == "num_key_value_heads" and value is None:
        return "num_key_value_heads as num_attention_heads"
    return f"{name} {json.dumps(value)}"


def divided(model_type: str, hidden: int, heads: int) -> int:
    """Head dim of `hidden` values in `heads` heads. Raises ValueError where it is not whole."""
    if hidden % heads:
        raise ValueError(f"the {model_type} configuration has {hidden} values in {heads} heads: give head_dim")
    return hidden // heads
