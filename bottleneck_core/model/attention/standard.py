"""Multi-head attention (arXiv:1706.03762); with another width or fewer key heads it is other variants' base.

Legend: B batch, T tokens, C residual width, H heads, G key and value heads, D head dim.
"""

from __future__ import annotations

from torch import Tensor

from bottleneck_core.config import ModelConfig
from bottleneck_core.model.attention.base import Attention, Implementation, Projected, amplified, linear, zeros
from bottleneck_core.model.rope import Rotary


class StandardAttention(Attention):
    """Queries, keys and values as wide as the residual stream: d_model values each, H heads of d_model / H.

    `width` is the total width of the queries; the subclasses in `bottleneck.py` and `gqa.py` change it and
    the number of key heads, nothing else.
    """

    def __init__(
        self,
        config: ModelConfig,
        rotary: Rotary | None,
        impl: Implementation = "fast",
        width: int | None = None,
    ) -> None:
        width = width or config.d_model
        super().__init__(config, width, rotary, impl)
        self.head_dim = width // config.n_head
        self.q_proj = linear(config.d_model, width)
        self.k_proj = None if config.tie_qk else linear(config.d_model, self.kv_heads * self.head_dim)
        self.null_k = zeros(self.kv_heads, self.head_dim) if config.null_attn else None

    def project(self, x: Tensor, start: int | Tensor = 0) -> Projected:
        if self.k_proj is None:  # tied: the keys are the queries without their temperature
            k, v = self.project_jointly(x, [(self.q_proj, None), (self.v_proj, None)])
            q = amplified(k, self.gain())
        else:
            projections = [(self.q_proj, self.gain()), (self.k_proj, None), (self.v_proj, None)]
            q, k, v = self.project_jointly(x, projections)
        v = self.split(v, self.kv_heads)  # (B, G, T, D)
        return Projected(
            q=self.rotate(self.split(q, self.n_head), start).to(v.dtype),  # (B, H, T, D)
            k=self.rotate(self.split(k, self.kv_heads), start),  # (B, G, T, D)
            v=v,
            scale=self.head_dim**-0.5,
            null_k=self.null_k,
            null_v=self.null_v,
        )

    def query_key_weights(self) -> dict[str, Tensor]:
        return {"q": self.q_proj.weight, "k": (self.k_proj or self.q_proj).weight}
