"""The part of a run's configuration that fixes the network: what `build_model` and the memory accounting read.

Widths named `*_dim` are totals over all heads. Field names follow nanoGPT (`n_layer`, `block_size`); the flags that the
command line offers for two of them keep their older names (`--layers`, `--block`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bottleneck_core.config.attention import MODES, AttentionMode

# Choices are the registered modes; a static checker sees text.
if TYPE_CHECKING:
    AttentionName = str
else:
    AttentionName = Literal[tuple(MODES)]


def setting(default: Any, help: str, *, flag: str | None = None, seed: bool = True, **bounds: Any) -> Any:
    """A field with its default, bounds and help.

    `flag` is its spelling on the command line where that is not the field's name; `seed` tells whether the setting
    belongs to the training arguments that run summaries list (the others are extensions).
    """
    return Field(default, description=help, json_schema_extra={"flag": flag, "seed": seed}, **bounds)


class Settings(BaseModel):
    """Base of every group of settings: immutable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelConfig(Settings):
    """Shape of the network. Raises pydantic's ValidationError with one sentence for a shape that cannot be built."""

    vocab_size: int | None = setting(None, "vocabulary size; unset: the token file's, see the README", ge=2)
    n_layer: int = setting(6, "number of blocks", flag="layers", ge=1)
    d_model: int = setting(512, "width of the residual stream", ge=1)
    n_head: int = setting(8, "attention heads", ge=1)
    d_ff: int = setting(2048, "width of the feed-forward layer", ge=1)
    block_size: int = setting(256, "context length in training, in tokens", flag="block", ge=1)
    embed_dim: int = setting(512, "width of the token embedding; projected where it differs from d_model", ge=1)
    attn_mode: AttentionName = setting("bottleneck", "attention variant")
    kv_head: int | None = setting(None, "gqa: number of key and value heads; unset: n_head", ge=1)
    attn_dim: int = setting(
        512, "width of Q, K and V (bottleneck), of V (decoupled), of Q (gqa); unused in standard", ge=1
    )
    sem_dim: int = setting(32, "decoupled: width of the semantic queries and keys", ge=1)
    geo_dim: int = setting(64, "decoupled: width of the geometric queries and keys", ge=1)
    rope: bool = setting(True, "rotary position embedding (decoupled: on the geometric part only)")
    rope_base: float = setting(10000.0, "base of the rotary frequencies", gt=0)
    tie_qk: bool = setting(False, "keys use the projection of the queries")
    null_attn: bool = setting(False, "a learned null key and value per layer, visible to every query")
    learned_temp: bool = setting(True, "learned temperature per head", seed=True)
    mlp: Literal["swiglu", "gelu"] = setting("swiglu", "kind of feed-forward layer")
    dropout: float = setting(0.0, "on embeddings, attention weights and feed-forward output", ge=0, lt=1)

    @property
    def attention(self) -> AttentionMode:
        """What the attention mode is made of."""
        return MODES[self.attn_mode]

    @property
    def kv_heads(self) -> int:
        """Key and value heads that attention really has: `kv_head` in gqa, `n_head` elsewhere."""
        return (self.kv_head or self.n_head) if self.attention.grouped else self.n_head

    @property
    def head_dims(self) -> dict[str, int]:
        """Total widths that this attention mode uses, by the setting that holds them."""
        return {name: getattr(self, name) for name in self.attention.settings}

    @property
    def rotary_head_dim(self) -> int:
        """Head dim that rotary embedding turns."""
        return self.head_dims[self.attention.rotated] // self.n_head

    @model_validator(mode="after")
    def _can_be_built(self) -> ModelConfig:
        for name, width in self.head_dims.items():
            if width % self.n_head:
                raise ValueError(f"{flag_of(name)} must divide by --n-head {self.n_head}, got {width}")
        if self.attention.grouped:
            if self.n_head % self.kv_heads:
                raise ValueError(f"--kv-head must divide --n-head {self.n_head}, got {self.kv_heads}")
            if self.tie_qk:
                raise ValueError(
                    f"--tie-qk needs as many key heads as query heads: not available with {self.attn_mode}"
                )
        if self.rope and self.rotary_head_dim % 2:
            raise ValueError(
                f"rotary embedding rotates pairs: {flag_of(self.attention.rotated)} / --n-head must be even, got "
                f"{self.rotary_head_dim} (change one of them or give --no-rope)"
            )
        return self


def flag_of(field: str) -> str:
    """`d_model` -> `--d-model`, `n_layer` -> `--layers`."""
    renamed = {"n_layer": "layers", "block_size": "block"}.get(field, field)
    return "--" + renamed.replace("_", "-")
