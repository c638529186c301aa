"""A trained model as `sample`, `evaluate` and `tune` are given it: weights, configuration, tokenizer, run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bottleneck_core.config import RunConfig
from bottleneck_core.errors import UserError

if TYPE_CHECKING:
    import torch

    from bottleneck_core.data.tokenizers import Tokenizer
    from bottleneck_core.model import GPT


@dataclass(frozen=True, kw_only=True)
class Trained:
    """`folder` is the run that the checkpoint lies in; `tokenizer` is None where its vocabulary is not at hand."""

    model: GPT
    config: RunConfig
    step: int
    checkpoint: Path
    folder: Path
    tokenizer: Tokenizer | None
    device: torch.device

    def encode(self, text: str) -> list[int]:
        """Token ids of a text. Raises UserError where there is no tokenizer, or the model does not know an id."""
        if self.tokenizer is None:
            raise UserError(
                f"the vocabulary of {self.checkpoint} is not at hand: give ids with --prompt-tokens, or put the "
                f"token file's sidecar back beside {self.config.data}"
            )
        return self.tokenizer.encode(text)


def open_trained(where: str | None, device: str | None = None, dtype: str | None = None) -> Trained:
    """The model of a checkpoint file or a run folder (its best one) on `device` (default: cuda, else mps, else cpu).

    `dtype`: "fp32" or "bf16"; by default the weights' own. Raises UserError where there is nothing to open.
    """
    if where is None:
        raise UserError("no model is given: name a run folder with --run or a checkpoint file with --ckpt")
    import torch

    from bottleneck_core.model import build_model
    from bottleneck_core.train import load_checkpoint

    target = _device(device)
    checkpoint = load_checkpoint(where)
    model = build_model(checkpoint.config, device="meta")
    model.to_empty(device="cpu")
    model.load_state_dict(checkpoint.model)
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, None: None}
    model.to(device=target, dtype=types[dtype])
    return Trained(
        model=model.eval().requires_grad_(False),
        config=checkpoint.config,
        step=checkpoint.step,
        checkpoint=checkpoint.path,
        folder=checkpoint.path.parent,
        tokenizer=_tokenizer(checkpoint.config),
        device=target,
    )


def _device(name: str | None) -> torch.device:
    import torch

    if name in (None, "auto"):
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(str(name))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError):
        raise UserError(f"--device {name} is not available here: leave it out, or give cpu") from None
    return device


def _tokenizer(config: RunConfig) -> Tokenizer | None:
    from bottleneck_core.data.prepare import default_corpus
    from bottleneck_core.data.sidecar import read_sidecar
    from bottleneck_core.data.tokenizers import get_tokenizer, load_tokenizer

    if config.tokenizer_name != "word":
        return get_tokenizer(config.tokenizer_name)
    sidecar = read_sidecar(Path(config.data) if config.data else default_corpus("word"))
    return load_tokenizer(sidecar) if sidecar else None
