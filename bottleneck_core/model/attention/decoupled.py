"""Decoupled attention: what a token means and where it stands are scored apart and added under one softmax.

score = exp(t) * (q_sem . k_sem / sqrt(Ks) + q_geo . k_geo / sqrt(Kg)), with rotary embedding on the
geometric part only.

Legend: B batch, T tokens, C residual width, H heads, Ks and Kg semantic and geometric head dims, K = Ks +
Kg, V head dim of values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bottleneck_core.config import ModelConfig
from bottleneck_core.model.attention.base import Attention, Implementation, Projected, amplified, linear, zeros
from bottleneck_core.model.rope import Rotary


class DecoupledAttention(Attention):
    """Semantic queries and keys `sem_dim` wide, geometric ones `geo_dim`, values `attn_dim`."""

    def __init__(self, config: ModelConfig, rotary: Rotary | None, impl: Implementation = "fast") -> None:
        super().__init__(config, config.attn_dim, rotary, impl)
        self.sem_head_dim = config.sem_dim // config.n_head
        self.geo_head_dim = config.geo_dim // config.n_head
        self.q_sem_proj = linear(config.d_model, config.sem_dim)
        self.q_geo_proj = linear(config.d_model, config.geo_dim)
        self.k_sem_proj = None if config.tie_qk else linear(config.d_model, config.sem_dim)
        self.k_geo_proj = None if config.tie_qk else linear(config.d_model, config.geo_dim)
        self.null_k_sem = zeros(config.n_head, self.sem_head_dim) if config.null_attn else None
        self.null_k_geo = zeros(config.n_head, self.geo_head_dim) if config.null_attn else None

    def project(self, x: Tensor, start: int | Tensor = 0) -> Projected:
        # The two parts have different scales, so q carries them and the product over the joined columns gets
        # none: its default scale on top would count twice.
        sem_gain, geo_gain = self.gain(self.sem_head_dim**-0.5), self.gain(self.geo_head_dim**-0.5)
        if self.k_sem_proj is None or self.k_geo_proj is None:  # tied
            projections = [(self.q_sem_proj, None), (self.q_geo_proj, None), (self.v_proj, None)]
            k_sem, k_geo, v = self.project_jointly(x, projections)
            q_sem, q_geo = amplified(k_sem, sem_gain), amplified(k_geo, geo_gain)
        else:
            projections = [(self.q_sem_proj, sem_gain), (self.q_geo_proj, geo_gain)]
            projections += [(projection, None) for projection in (self.k_sem_proj, self.k_geo_proj, self.v_proj)]
            q_sem, q_geo, k_sem, k_geo, v = self.project_jointly(x, projections)
        q_sem, q_geo, k_sem, k_geo, v = (self.split(part, self.n_head) for part in (q_sem, q_geo, k_sem, k_geo, v))
        q = torch.cat((q_sem, self.rotate(q_geo, start)), dim=-1)  # (B, H, T, K)
        k = torch.cat((k_sem, self.rotate(k_geo, start)), dim=-1)  # (B, H, T, K)
        return Projected(
            q=q.to(v.dtype),
            k=k,
            v=v,
            scale=1.0,
            null_k=self._null_key(),
            null_v=self.null_v,
            sem_width=self.sem_head_dim,
        )

    def query_key_weights(self) -> dict[str, Tensor]:
        return {
            "q_sem": self.q_sem_proj.weight,
            "k_sem": (self.k_sem_proj or self.q_sem_proj).weight,
            "q_geo": self.q_geo_proj.weight,
            "k_geo": (self.k_geo_proj or self.q_geo_proj).weight,
        }

    def _null_key(self) -> Tensor | None:
        if self.null_k_sem is None or self.null_k_geo is None:
            return None
        return torch.cat((self.null_k_sem, self.null_k_geo), dim=-1)  # (H, K)
