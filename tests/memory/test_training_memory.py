"""Training memory: terms worked out by hand for a small configuration, and what has to grow with what."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bottleneck_core.config import RunConfig
from bottleneck_core.memory import count_parameters, training_memory
from bottleneck_core.model import build_model

GIB = 2**30
MODES = ("paper_baseline", "paper_bottleneck", "paper_decoupled", "paper_gqa")


def small(**settings):
    """Two layers of 8 values in 2 heads, 12 hidden, blocks of 4 tokens, 1 sequence, 65 words: padded to 128."""
    shape = {"n_layer": 2, "d_model": 8, "n_head": 2, "d_ff": 12, "block_size": 4, "embed_dim": 8, "batch_size": 1}
    return RunConfig.resolve(**{**shape, "attn_mode": "standard", **settings})


def test_terms_of_bf16() -> None:
    memory = training_memory(small(), 65)
    n = count_parameters(small(), 65)
    assert (memory.weights, memory.gradients, memory.optimizer, memory.copies) == (4 * n, 4 * n, 8 * n, 2 * n)
    # Per token of a block: norms 2 x 8 x 8 = 128; q, k, v 24 x 2 and tempered q 8 x 4: 80; rotated q and k 32;
    # output 16 and two log-sum-exps 8; gate, up and their product 72. The last norm: 48.
    assert memory.activations == 4 * (2 * (128 + 80 + 32 + 24 + 72) + 48)
    assert memory.logits == 4 * 128 * 2 + 4 * 8 * 2  # and the gradients of what they are made of
    first_gradient = 4 * 128 * 8
    assert memory.peaks["loss"] == 14 * n + memory.activations + memory.logits + first_gradient
    assert memory.peaks["optimizer step"] == 16 * n
    assert memory.total == max(memory.peaks.values())


def test_terms_of_fp32() -> None:
    memory = training_memory(small(), 65, mode="fp32")
    # norms 2 x (8 + 8) x 4 = 128; q, k, v 96; rotated q and k 64; output 32 and log-sum-exps 8; three times 12: 144.
    assert memory.activations == 4 * (2 * (128 + 96 + 64 + 40 + 144) + 64)
    assert memory.logits == 3 * 4 * 128 * 4
    assert memory.copies == 2 * 8 * (24 + 24) * 4 + 128 * 8 * 4
    null = training_memory(small(null_attn=True), 65, mode="fp32")
    # The values with their null row instead of the projections, and the output without that row's.
    assert null.activations - memory.activations == 4 * 2 * (32 - 96 + 32)


@pytest.mark.parametrize(
    "settings",
    [
        {"exp": "paper_baseline"},
        {"exp": "paper_baseline", "mlp": "gelu", "learned_temp": False},
        {"exp": "paper_bottleneck"},
        {"exp": "paper_bottleneck", "tie_qk": True, "null_attn": False},
        {"exp": "paper_decoupled"},
        {"exp": "paper_decoupled", "tie_qk": False},
    ],
    ids=str,
)
def test_fp32_is_what_autograd_keeps(settings: dict[str, Any]) -> None:
    config = RunConfig.resolve(size="nano", vocab_size=256, tokenizer="byte", batch_size=2, **settings)
    model = build_model(config)
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, keep):
        x = model.embed_tokens(torch.zeros(2, config.block_size, dtype=torch.int64))
        for block in model.blocks:
            x = block(x)
        keep(model.unembedded(x))  # for the head
    memory = training_memory(config, 256, 2, mode="fp32")
    expected = memory.activations + memory.copies - 4 * 256 * config.embed_dim  # the padded embedding is CUDA's
    assert sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) == pytest.approx(expected, rel=0.005)


def test_grouped_heads_are_repeated_in_fp32_alone() -> None:
    gqa = {"attn_mode": "gqa", "attn_dim": 8, "kv_head": 1}
    # q 8, k 4, v 4. fp32: q, k and v as wide as q 96, output 40. bf16: 32 + 32, kernel 24, output 24.
    assert training_memory(small(**gqa), 65, mode="fp32").activations == 4 * (2 * (128 + 96 + 40 + 144) + 64)
    assert training_memory(small(**gqa), 65).activations == 4 * (2 * (128 + 64 + 24 + 24 + 72) + 48)


def test_heads_are_padded_to_be_equal_where_they_are_wide() -> None:
    narrow = {"attn_mode": "decoupled", "sem_dim": 2, "geo_dim": 4, "attn_dim": 8}
    # q and k 6 values, v 8: projected 20 x 2 and tempered q 24; rotated q and k 24.
    assert training_memory(small(**narrow), 65).activations == 4 * (2 * (128 + 64 + 24 + 24 + 72) + 48)
    wide = {"attn_mode": "decoupled", "sem_dim": 20, "geo_dim": 40, "attn_dim": 80}
    # projected 200 x 2 and tempered q 240; the kernel takes 80 of each, and gives as many.
    assert training_memory(small(**wide), 65).activations == 4 * (2 * (128 + 640 + 480 + 168 + 72) + 48)


def test_few_logits_at_a_time_in_parts_as_equal_as_they_can_be() -> None:
    whole, parts = (training_memory(small(batch_size=5, loss_chunk=chunk), 65) for chunk in (20, 8))
    assert whole.logits - parts.logits == 2 * 128 * (20 - 7)


def test_checkpointing_keeps_block_inputs_and_one_block() -> None:
    plain, checkpointed = (training_memory(small(grad_checkpoint=on), 65) for on in (False, True))
    assert checkpointed.activations == 4 * (2 * 8 * 4 + 336 + 48) < plain.activations
    assert checkpointed.logits == plain.logits


def test_accumulated_gradients_are_there_at_the_loss() -> None:
    once, twice = (training_memory(small(grad_accum=k), 65, mode="fp32") for k in (1, 2))
    assert twice.peaks["loss"] - once.peaks["loss"] == once.gradients


def test_muon_has_one_moment_for_hidden_matrices() -> None:
    n, hidden = count_parameters(small(), 65), 2 * (4 * 8 * 8 + 3 * 8 * 12)
    assert training_memory(small(optimizer="muon"), 65).optimizer == 8 * n - 4 * hidden


# Measured peaks of the compiled bf16 step of tiny on an H200, in GiB, to one decimal.
@pytest.mark.parametrize(
    ("exp", "batch", "measured"),
    [
        ("paper_baseline", 16, 4.8),
        ("paper_bottleneck", 16, 4.2),
        ("paper_decoupled", 16, 4.2),
        ("paper_gqa", 16, 4.5),
        ("paper_baseline", 64, 13.5),
        ("paper_bottleneck", 64, 11.2),
    ],
)
def test_within_ten_per_cent_of_measured_peaks(exp: str, batch: int, measured: float) -> None:
    config = RunConfig.resolve(size="tiny", exp=exp)
    assert training_memory(config, 50257, batch).total / GIB == pytest.approx(measured, rel=0.1)


@given(exp=st.sampled_from(MODES), batch=st.integers(1, 20), mode=st.sampled_from(["fp32", "bf16-compiled"]))
def test_more_sequences_take_more(exp, batch, mode) -> None:
    config = RunConfig.resolve(size="nano", exp=exp)
    one, more = training_memory(config, 256, batch, mode), training_memory(config, 256, batch + 1, mode)
    assert more.activations * batch == one.activations * (batch + 1)
    assert more.total >= one.total
    assert one.total == max(one.peaks.values())


def test_other_modes_are_not_guessed() -> None:
    wrong: object = "bf16"
    with pytest.raises(ValueError, match="no derivation for the mode bf16"):
        training_memory(small(), 65, mode=wrong)  # pyright: ignore[reportArgumentType]
