"""Reading a Hugging Face configuration without guessing: what is absent is named, all of it in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Fields:
    """The fields of one `config.json` (or of its nested text part), by their Hugging Face names."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.model_type = str(config["model_type"])

    def need(self, *names: str) -> tuple[int, ...]:
        """The whole numbers >= 1 of these names. Raises ValueError that names all that are absent or null."""
        absent = [name for name in names if self.config.get(name) is None]
        if absent:
            raise ValueError(
                f"the {self.model_type} configuration lacks {', '.join(absent)}: give the model's own config.json"
            )
        for name in names:
            value = self.config[name]
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} of the {self.model_type} configuration must be a whole number >= 1: {value}")
        return tuple(self.config[name] for name in names)

    def one(self, name: str) -> int:
        return self.need(name)[0]

    def optional(self, name: str) -> int | None:
        """The number, or None where it is absent or null."""
        return None if self.config.get(name) is None else self.one(name)

    def known(self, name: str) -> int | None:
        """The number, or None where it is null on purpose; an absent one is an error: the model may have a window."""
        if name not in self.config:
            raise ValueError(
                f"the {self.model_type} configuration lacks {name}: give it, null where the model has none"
            )
        return self.optional(name)

    def flag(self, name: str) -> bool:
        return bool(self.config.get(name))

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

    def head_dim(self, name: str = "head_dim", *, explicit: bool = False) -> int:
        """`head_dim`, else hidden_size / num_attention_heads, unless the family has it `explicit`.

        hidden_size / num_attention_heads is wrong for families that choose the two apart (Qwen3, Gemma, gpt-oss).
        """
        if explicit or self.config.get(name) is not None:
            return self.one(name)
        hidden, heads = self.need("hidden_size", "num_attention_heads")
        return divided(self.model_type, hidden, heads)


def divided(model_type: str, hidden: int, heads: int) -> int:
    """Head dim of `hidden` values in `heads` heads. Raises ValueError where it is not whole."""
    if hidden % heads:
        raise ValueError(f"the {model_type} configuration has {hidden} values in {heads} heads: give head_dim")
    return hidden // heads
