"""Presets, precedence, and the views under which run summaries show a configuration."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck_core.config import EXPERIMENTS, RunConfig, model_view, training_args
from bottleneck_core.errors import UserError

SIZES = {
    "nano": (128, 4, 4, 512, 256, 16, 600),
    "tiny": (512, 6, 8, 2048, 1024, 16, 6000),
    "small": (768, 12, 12, 3072, 1024, 8, 10000),
    "medium": (1024, 24, 16, 4096, 2048, 4, 15000),
    "large": (1536, 24, 16, 6144, 2048, 2, 20000),
    "1b": (2048, 18, 16, 8192, 2048, 1, 20000),
}
DIMS = {  # size: attn, sem, geo, kv_head
    "nano": (24, 8, 16, 1),
    "tiny": (96, 32, 64, 2),
    "small": (144, 48, 96, 3),
    "medium": (192, 64, 128, 4),
    "large": (288, 96, 192, 4),
    "1b": (384, 128, 256, 4),
}


@pytest.mark.parametrize("size", SIZES)
def test_size_preset(size: str) -> None:
    c = RunConfig.resolve(size=size, attn_mode="standard")
    shape = (c.d_model, c.n_layer, c.n_head, c.d_ff, c.block_size, c.batch_size, c.steps)
    assert shape == SIZES[size]
    assert c.embed_dim == c.d_model


@pytest.mark.parametrize("size", SIZES)
def test_experiment_dims(size: str) -> None:
    attn, sem, geo, kv_head = DIMS[size]
    baseline = RunConfig.resolve(size=size, exp="paper_baseline")
    assert (baseline.attn_mode, baseline.attn_dim, baseline.sem_dim, baseline.geo_dim) == (
        "standard",
        512,
        32,
        64,
    )
    bottleneck = RunConfig.resolve(size=size, exp="paper_bottleneck")
    assert (bottleneck.attn_dim, bottleneck.null_attn, bottleneck.tie_qk) == (attn, True, False)
    decoupled = RunConfig.resolve(size=size, exp="paper_decoupled")
    assert (decoupled.sem_dim, decoupled.geo_dim, decoupled.attn_dim) == (sem, geo, attn)
    assert (decoupled.null_attn, decoupled.tie_qk) == (True, True)
    gqa = RunConfig.resolve(size=size, exp="paper_gqa")
    assert (gqa.kv_head, gqa.attn_dim, gqa.null_attn) == (kv_head, gqa.d_model, False)


def test_experiment_without_size_takes_shares_of_d_model() -> None:
    assert RunConfig.resolve(exp="paper_bottleneck").attn_dim == 96
    assert RunConfig.resolve(exp="paper_decoupled", d_model=1024).geo_dim == 128
    with pytest.raises(UserError, match="--attn-dim to 3/16 of --d-model, and 100 does not divide"):
        RunConfig.resolve(exp="paper_bottleneck", d_model=100, n_head=4)


def test_explicit_flag_beats_preset_also_at_the_schema_default() -> None:
    assert RunConfig.resolve(size="nano", lr=3e-4).lr == 3e-4
    assert RunConfig.resolve(size="tiny", exp="paper_bottleneck", null_attn=False).null_attn is False
    assert RunConfig.resolve(size="tiny", embed_dim=256).embed_dim == 256
    assert RunConfig.resolve(size="tiny", d_model=768, attn_mode="standard").embed_dim == 768
    assert RunConfig.resolve(size="tiny", d_model=768, exp="paper_bottleneck").attn_dim == 96


def test_model_config_names_are_aliases() -> None:
    assert RunConfig.resolve(layers=3, block=64) == RunConfig.resolve(n_layer=3, block_size=64)


def test_the_seed_run_resolves_to_its_own_summary(shared: Path) -> None:
    text = (shared / "data/seed-run-summary.md").read_text(encoding="utf-8")
    model, args = map(json.loads, re.findall(r"```json\n(.*?)```", text, re.DOTALL))
    config = RunConfig.resolve(
        data="fineweb_100m.tokens", data_format="text", size="tiny", exp="paper_bottleneck", live_plot=True
    )
    assert model_view(config) == model
    assert training_args(config) == args


def test_defaults_choices_and_names_are_the_seeds(shared: Path) -> None:
    seed = json.loads((shared / "seed_flags.json").read_text(encoding="utf-8"))
    ours = training_args(RunConfig.resolve())
    assert ours.keys() == seed.keys()
    assert {k: v for k, v in ours.items() if k != "out_dir"} == {
        k: flag["default"] for k, flag in seed.items() if k != "out_dir"
    }
    for name, flag in seed.items():
        for choice in flag.get("choices", ()):
            if name not in ("mode", "exp"):
                given = {name: choice} | ({"attn_mode": "standard"} if name == "size" else {})
                assert training_args(RunConfig.resolve(**given))[name] == choice


def test_negatives_tell_what_was_given() -> None:
    off = training_args(RunConfig.resolve(rope=False, learned_temp=False))
    assert (off["no_rope"], off["rope"], off["no_learned_temp"]) == (True, False, True)
    on = training_args(RunConfig.resolve(rope=True))
    assert (on["no_rope"], on["rope"]) == (False, True)
    assert training_args(RunConfig.resolve(exp="paper_bottleneck", null_attn=False))["no_null_attn"] is True


def test_paper_all_is_four_runs_below_out_dir() -> None:
    runs = RunConfig.resolve_all(size="nano", exp="paper_all", out_dir="runs/all", seed=7)
    assert [run.exp for run in runs] == list(EXPERIMENTS)
    assert [run.folder for run in runs] == [
        f"runs/all/nano_{name}" for name in ("baseline", "bottleneck", "decoupled", "gqa")
    ]
    assert {run.seed for run in runs} == {7}


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"grad_clip": -1}, "--grad-clip must be >= 0, got -1"),
        ({"steps": "abc"}, "--steps must be a whole number, got abc"),
        ({"lr": "nan"}, "--lr must be a finite number, got nan"),
        ({"beta1": 1}, "--beta1 must be < 1, got 1"),
        ({"attn_mode": "mla"}, "--attn-mode must be one of standard, bottleneck, decoupled, gqa, got mla"),
        ({"size": "huge"}, "--size must be one of nano, tiny, small, medium, large, 1b, got huge"),
        ({"attn_mode": "standard", "n_head": 7}, "--d-model must divide by --n-head 7, got 512"),
        ({"attn_mode": "gqa", "kv_head": 3}, "--kv-head must divide --n-head 8, got 3"),
        ({"attn_mode": "gqa", "tie_qk": True}, "--tie-qk needs as many key heads as query heads"),
        ({"attn_mode": "bottleneck", "attn_dim": 24}, "--attn-dim / --n-head must be even, got 3"),
        ({"d_modl": 64}, "unknown setting d_modl: did you mean d_model?"),
    ],
)
def test_a_mistake_is_one_sentence(flags: dict, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        RunConfig.resolve(**flags)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_odd_rope_width_is_fine_without_rope_and_where_unused() -> None:
    assert RunConfig.resolve(attn_mode="bottleneck", attn_dim=24, rope=False).attn_dim == 24
    assert RunConfig.resolve(attn_mode="standard", d_model=96, n_head=12).attn_dim == 512  # unused: not judged


@given(
    exp=st.sampled_from(EXPERIMENTS),
    size=st.sampled_from(sorted(SIZES)),
    flags=st.fixed_dictionaries({}, optional={"steps": st.integers(0, 9), "seed": st.integers(0, 9)}),
)
def test_config_survives_json(exp: str, size: str, flags: dict) -> None:
    config = RunConfig.resolve(size=size, exp=exp, **flags)
    assert RunConfig(**json.loads(config.model_dump_json())) == config
    assert set(config.given) == {"size", "exp", *flags}
