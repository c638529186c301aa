"""The model as its callers see it: loss, dropout, checkpointing, names, groups, counts, initialisation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_models import MODES, scrambled, tiny, tokens

from bottleneck_core.config import ModelConfig, RunConfig
from bottleneck_core.model import GPT, Attention, Block, build_model, count_parameters, parameter_groups

SHARED = Path(os.environ.get("BOTTLENECK_SHARED", Path(__file__).parents[3] / "shared"))
GOLDEN = SHARED / "kv_golden.json"
EVERY_MODE = pytest.mark.parametrize("mode", MODES)


def test_loss_is_the_mean_cross_entropy_in_the_models_precision() -> None:
    model = scrambled(tiny("bottleneck"))
    idx, targets = tokens(2, 9), tokens(2, 9, seed=2)
    by_hand = -model(idx).log_softmax(-1).gather(-1, targets[..., None]).mean()
    torch.testing.assert_close(model(idx, targets), by_hand)
    assert model(idx, targets).dtype == torch.float64
    assert scrambled(tiny("bottleneck"), dtype=torch.bfloat16)(idx, targets).dtype == torch.float32


def test_forward_is_made_of_its_public_parts() -> None:
    model, idx = scrambled(tiny("decoupled", embed_dim=10)), tokens(2, 9)
    x = model.embed_tokens(idx)
    assert x.shape == (2, 9, 16)
    for block in model.blocks:
        assert isinstance(block, Block)
        h = block.attn_norm(x)
        x = x + block.attn.out_proj(block.attn.attend(block.attn.project(h)))
        x = x + block.mlp(block.mlp_norm(x))
    assert torch.equal(model.unembed(x), model(idx))
    assert model(idx).shape == (2, 9, 23)


def test_output_embedding_is_the_input_embedding() -> None:
    model = scrambled(tiny("standard"))
    x = torch.randn(1, 3, 16, dtype=torch.float64)
    torch.testing.assert_close(model.unembed(x), F.linear(model.norm(x), model.embed.weight))


@pytest.mark.parametrize("rope", [False, True])
def test_sequences_may_outgrow_the_block(rope: bool) -> None:
    model = scrambled(tiny("decoupled", rope=rope, block_size=4))
    long = model(tokens(1, 30))
    roomy = scrambled(tiny("decoupled", rope=rope, block_size=64))
    assert torch.equal(long, roomy(tokens(1, 30)))


@EVERY_MODE
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_checkpointing_changes_no_bit(mode: str, dropout: float) -> None:
    idx, targets = tokens(2, 9), tokens(2, 9, seed=2)

    def loss_and_gradients(grad_checkpoint: bool) -> tuple[torch.Tensor, list[torch.Tensor | None], int]:
        model = scrambled(tiny(mode, dropout=dropout, null_attn=True), dtype=torch.float32).train()
        model.grad_checkpoint = grad_checkpoint
        runs: list[int] = []
        model.blocks[0].mlp_norm.register_forward_hook(lambda *_: runs.append(1))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            loss = model(idx, targets)
            loss.backward()
        return loss, [parameter.grad for parameter in model.parameters()], len(runs)

    kept, kept_gradients, once = loss_and_gradients(False)
    recomputed, recomputed_gradients, twice = loss_and_gradients(True)
    assert (once, twice) == (1, 2)
    assert torch.equal(kept, recomputed)
    for one, other in zip(kept_gradients, recomputed_gradients, strict=True):
        assert one is not None and other is not None and torch.equal(one, other)


@EVERY_MODE
def test_dropout_works_in_training_only(mode: str) -> None:
    model, plain = scrambled(tiny(mode, dropout=0.5)), scrambled(tiny(mode))
    idx = tokens(2, 9)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert torch.equal(model.eval()(idx), plain.eval()(idx))
        model.train()
        attention, mlp = model.blocks[0].attn, model.blocks[0].mlp
        x = torch.randn(2, 9, 16, dtype=torch.float64)
        for dropped in (model.embed_tokens(idx), mlp(x)):
            assert 0.3 < (dropped == 0).double().mean() < 0.7
        assert not torch.equal(attention(x), attention(x))
        assert torch.equal(model.eval().blocks[0].attn(x), plain.eval().blocks[0].attn(x))


def test_state_has_these_names_and_no_others() -> None:
    model = scrambled(tiny("decoupled", n_layer=1, null_attn=True, embed_dim=10))
    block = "blocks.0"
    assert set(model.state_dict()) == {
        "embed.weight",
        "in_proj.weight",
        "out_proj.weight",
        "norm.weight",
        "norm.bias",
        f"{block}.attn_norm.weight",
        f"{block}.attn_norm.bias",
        f"{block}.mlp_norm.weight",
        f"{block}.mlp_norm.bias",
        f"{block}.attn.temperature",
        f"{block}.attn.null_k_sem",
        f"{block}.attn.null_k_geo",
        f"{block}.attn.null_v",
        f"{block}.attn.q_sem_proj.weight",
        f"{block}.attn.k_sem_proj.weight",
        f"{block}.attn.q_geo_proj.weight",
        f"{block}.attn.k_geo_proj.weight",
        f"{block}.attn.v_proj.weight",
        f"{block}.attn.out_proj.weight",
        f"{block}.mlp.gate_proj.weight",
        f"{block}.mlp.up_proj.weight",
        f"{block}.mlp.down_proj.weight",
    }


def test_tied_and_switched_off_parts_have_no_state() -> None:
    config = tiny("bottleneck", n_layer=1, tie_qk=True, learned_temp=False, mlp="gelu")
    attention = {name for name in build_model(config).state_dict() if ".attn." in name or ".mlp." in name}
    assert {name.removeprefix("blocks.0.") for name in attention} == {
        "attn.q_proj.weight",
        "attn.v_proj.weight",
        "attn.out_proj.weight",
        "mlp.up_proj.weight",
        "mlp.down_proj.weight",
    }


def test_checkpoints_of_wrapped_models_load() -> None:
    model = scrambled(tiny("bottleneck"))
    state = model.state_dict()
    blocks_compiled = {name.replace("blocks.0.", "blocks.0._orig_mod."): value for name, value in state.items()}
    for wrapped in (
        torch.compile(model, backend="eager").state_dict(),
        {f"module.{name}": value for name, value in state.items()},
        {f"module._orig_mod.{name}": value for name, value in state.items()},
        blocks_compiled,
    ):
        assert set(wrapped) != set(state)
        names = list(wrapped)
        fresh = build_model(model.config, dtype=torch.float64)
        fresh.load_state_dict(wrapped)
        assert torch.equal(fresh(tokens(1, 5)), model(tokens(1, 5)))
        assert list(wrapped) == names, "the caller's dictionary was changed"


@EVERY_MODE
def test_parameter_groups_share_out_the_model(mode: str) -> None:
    model = build_model(tiny(mode, null_attn=True, embed_dim=10))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {group: {names[id(p)] for p in members} for group, members in parameter_groups(model).items()}
    assert sum(len(groups[group]) for group in ("embed", "attn", "ffn")) == len(names)
    assert groups["embed"] | groups["attn"] | groups["ffn"] == set(names.values())
    assert {"in_proj.weight", "norm.bias", "embed.weight"} <= groups["embed"]
    assert {"blocks.1.attn.temperature", "blocks.1.attn_norm.bias"} <= groups["attn"]
    assert {"blocks.1.mlp.up_proj.weight", "blocks.1.mlp_norm.bias"} <= groups["ffn"]
    if mode != "decoupled":
        assert set(groups) == {"embed", "attn", "ffn"}
        return
    for part in ("sem", "geo"):
        members = {f"blocks.{i}.attn.{name}" for i in range(2)
                   for name in (f"q_{part}_proj.weight", f"k_{part}_proj.weight", f"null_k_{part}")}  # fmt: skip
        assert groups[f"attn_{part}"] == members <= groups["attn"]


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"needs {GOLDEN}")
@pytest.mark.parametrize("size", ["tiny", "small", "medium", "large"])
@pytest.mark.parametrize("exp", ["paper_baseline", "paper_bottleneck", "paper_decoupled", "paper_gqa"])
def test_parameter_counts_are_the_published_ones(size: str, exp: str) -> None:
    golden = json.loads(GOLDEN.read_text())["param_counts_vocab_50257"]
    config = RunConfig.resolve(size=size, exp=exp, vocab_size=50257)
    assert count_parameters(build_model(config, device="meta")) == golden[size][exp]


def test_first_weights_have_the_published_statistics() -> None:
    config = tiny("decoupled", d_model=64, d_ff=200, embed_dim=48, null_attn=True, vocab_size=500, mlp="gelu")
    model = build_model(config, seed=3)
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("null", "temperature", "norm.bias")):
            assert not parameter.any(), name
        elif "norm.weight" in name:
            assert bool((parameter == 1).all()), name
        else:
            spread = 4 / parameter.numel() ** 0.5  # four standard errors
            assert parameter.std().item() == pytest.approx(0.02, rel=spread), name
            assert abs(parameter.mean().item()) < 0.02 * spread, name


def test_initialisation_has_its_own_random_state() -> None:
    config = tiny("decoupled", null_attn=True)
    state = torch.get_rng_state()
    first = build_model(config, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        again = build_model(config, seed=5)
    other = build_model(config, seed=6)
    for one, same, different in zip(*(m.parameters() for m in (first, again, other)), strict=True):
        assert torch.equal(one, same)
        assert torch.equal(one, different) == (one.dim() == 1 or not one.any())


def test_weights_do_not_depend_on_precision_or_on_other_layers() -> None:
    standard = dict(build_model(tiny("standard"), seed=5).named_parameters())
    decoupled = dict(build_model(tiny("decoupled"), seed=5, dtype=torch.float64).named_parameters())
    for name in ("embed.weight", "blocks.1.mlp.up_proj.weight"):
        assert torch.equal(standard[name].double(), decoupled[name])
    drawn = [p.flatten()[:8] for name, p in standard.items() if p.dim() == 2]
    assert len({tuple(values.tolist()) for values in drawn}) == len(drawn), "two weights share a stream"


def test_a_run_configuration_brings_its_seed_and_checkpointing() -> None:
    flags: dict[str, Any] = {"layers": 1, "d_model": 16, "n_head": 2, "d_ff": 8, "attn_dim": 4, "embed_dim": 16}
    run = RunConfig.resolve(vocab_size=23, seed=7, grad_checkpoint=True, **flags)
    model = build_model(run)
    assert model.grad_checkpoint
    assert torch.equal(model.embed.weight, build_model(run, seed=7).embed.weight)
    assert not torch.equal(model.embed.weight, build_model(run, seed=8).embed.weight)
    bare = ModelConfig(**{name: getattr(run, name) for name in ModelConfig.model_fields})
    assert torch.equal(build_model(bare).embed.weight, build_model(run, seed=1337).embed.weight)


@pytest.mark.parametrize("build", [build_model, GPT])
def test_a_missing_vocabulary_is_named(build: Any) -> None:
    with pytest.raises(ValueError, match="needs a vocabulary"):
        build(tiny("standard", vocab_size=None))


def test_meta_models_hold_no_memory() -> None:
    model = build_model(RunConfig.resolve(size="1b", exp="paper_baseline", vocab_size=50257), device="meta")
    assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    assert isinstance(model.blocks[17].attn, Attention)
