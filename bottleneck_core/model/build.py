"""From a configuration to a model with its first weights.

Linear and embedding weights are N(0, 0.02); null keys, null values and temperatures 0; LayerNorms identities.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from bottleneck_core.config import ModelConfig, RunConfig
from bottleneck_core.model.attention import Attention, Implementation
from bottleneck_core.model.gpt import GPT

INIT_STD = 0.02


def build_model(
    config: ModelConfig,
    *,
    seed: int | None = None,
    impl: Implementation = "fast",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> GPT:
    """A new model on `device` (default: torch's) in `dtype` (default: torch's), initialised from `seed`.

    Without a seed, a run configuration's own is taken, else 1337. The same seed gives the same weights on
    every device, and torch's global random state is neither read nor moved. On the meta device nothing is
    allocated. A run configuration without a vocabulary gets the one it assumes (`RunConfig.assumed_vocab_size`); raises
    ValueError where a bare model configuration has none.
    """
    if isinstance(config, RunConfig) and config.vocab_size is None:
        config = config.with_vocab(config.assumed_vocab_size)
    with torch.device("meta"):  # the layers' own initialisers would draw from the global random state
        model = GPT(config, impl)
    if dtype is not None:
        model.to(dtype)
    model.to_empty(device=device if device is not None else torch.get_default_device())
    if isinstance(config, RunConfig):
        model.grad_checkpoint, model.loss_chunk = config.grad_checkpoint, config.loss_chunk
    init_weights(model, getattr(config, "seed", 1337) if seed is None else seed)
    return model


@torch.no_grad()
def init_weights(model: GPT, seed: int) -> None:
    """Sets every parameter to its starting value.

    Each weight has its own random stream, named by seed and parameter: layers that two variants share,
    embedding and feed-forward layers, start equal in both, and a comparison of variants at one seed differs
    in attention alone.
    """
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            _fill_normal(module.weight, f"{seed}/{name}.weight")
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, Attention):
            for parameter in module.parameters(recurse=False):  # temperature and nulls
                parameter.zero_()


def _fill_normal(weight: Tensor, stream: str) -> None:
    if weight.is_meta:
        return
    # Drawn on the CPU in float32, so that neither device nor dtype changes the numbers.
    generator = torch.Generator("cpu").manual_seed(
        int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
    )
    drawn = torch.empty(weight.shape, dtype=torch.float32, device="cpu").normal_(0.0, INIT_STD, generator=generator)
    weight.copy_(drawn)
