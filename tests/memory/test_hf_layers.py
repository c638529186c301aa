"""Public models: published sizes, one small configuration a family worked out by hand, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck_core.memory import kv_memory, layers_of
from bottleneck_core.memory.hf import READERS
from bottleneck_core.memory.zoo import zoo

FULL, SLIDING = "full_attention", "sliding_attention"


def config(model_type: str, layers: int = 4, heads: int = 4, kv: int | None = 2, hidden: int = 32, **more: Any) -> dict:
    """A small configuration: 4 layers, 4 heads of 8, 2 key heads: K and V are 16 values each, 64 B a token in fp16."""
    shape = {"num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": hidden}
    return {"model_type": model_type, **shape, **({} if kv is None else {"num_key_value_heads": kv}), **more}


LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 4,
    "linear_conv_kernel_dim": 4,
}
BAMBA = {"mamba_n_heads": 8, "mamba_n_groups": 2, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2}

# Family, configuration, fp16 bytes of the first token, of one more at long context, fixed bytes (None: not compared).
CASES: list[tuple[dict, int, int, int]] = [
    # 3 layers x K and V x 12 values x 2 B
    ({"model_type": "gpt2", "n_layer": 3, "n_head": 2, "n_embd": 12}, 144, 144, 0),
    ({"model_type": "gptj", "n_layer": 3, "n_head": 2, "n_embd": 12}, 144, 144, 0),
    # one key head of 6 values: 3 x 2 x 6 x 2
    ({"model_type": "gpt_bigcode", "n_layer": 3, "n_head": 2, "n_embd": 12, "multi_query": True}, 72, 72, 0),
    # no key heads of their own: 4 x 2 x 32 x 2
    (config("gpt_neox", kv=None), 512, 512, 0),
    (config("llama", kv=None), 512, 512, 0),
    (config("phi", kv=None, num_key_value_heads=None), 512, 512, 0),
    (config("llama"), 256, 256, 0),
    # head_dim 16 and not 32 / 4: 4 x 2 x 2 x 16 x 2
    (config("llama", head_dim=16), 512, 512, 0),
    (config("qwen3", head_dim=16), 512, 512, 0),
    (config("qwen3_moe", head_dim=16, use_sliding_window=False, sliding_window=None), 512, 512, 0),
    (config("gemma", head_dim=16), 512, 512, 0),
    (config("phi3", sliding_window=None), 256, 256, 0),
    (config("phi3", sliding_window=7), 256, 0, 0),
    (config("mistral", sliding_window=None), 256, 256, 0),
    (config("mistral", sliding_window=7), 256, 0, 0),
    (config("mixtral"), 256, 256, 0),
    (config("starcoder2", sliding_window=7), 256, 0, 0),
    # the first and the third slide: those of the four that are even and below max_window_layers
    (config("qwen2_moe", use_sliding_window=True, sliding_window=7, max_window_layers=3), 256, 128, 0),
    (config("qwen3_moe", head_dim=8, use_sliding_window=True, sliding_window=7, max_window_layers=3), 256, 0, 0),
    # without rotary embedding: the second and the fourth, which slide if they may
    (config("smollm3", no_rope_layer_interval=2, use_sliding_window=True, sliding_window=7), 256, 128, 0),
    (config("smollm3", no_rope_layer_interval=2, sliding_window=7), 256, 256, 0),
    # windowed from layer 3 on: three of four layers grow
    (config("qwen2", use_sliding_window=True, sliding_window=7, max_window_layers=3), 256, 192, 0),
    (config("qwen2", use_sliding_window=False, sliding_window=7, max_window_layers=3), 256, 256, 0),
    (config("qwen2", use_sliding_window=False, sliding_window=7, layer_types=[SLIDING] * 4), 256, 256, 0),
    # layers 0 and 2 slide; 16-value heads: 128 B a layer
    (config("gemma2", head_dim=16, sliding_window=7), 512, 256, 0),
    (config("gpt_oss", head_dim=16, sliding_window=7), 512, 256, 0),
    # the words decide where they are: one full layer
    (config("gpt_oss", head_dim=16, sliding_window=7, layer_types=[SLIDING, SLIDING, FULL, SLIDING]), 512, 128, 0),
    # every third layer of seven is full: layers 2 and 5
    (config("gemma3_text", 7, head_dim=16, sliding_window=7, sliding_window_pattern=3), 896, 256, 0),
    # every sixth: layer 5
    (config("gemma3_text", 7, head_dim=16, sliding_window=7), 896, 128, 0),
    (config("cohere2", 8, sliding_window=7), 512, 128, 0),
    (config("olmo3", 8, sliding_window=7), 512, 128, 0),
    # chunks but for layers 1 and 3
    (config("llama4_text", head_dim=8, attention_chunk_size=7, no_rope_layer_interval=2), 256, 128, 0),
    (config("llama4_text", head_dim=8, attention_chunk_size=7, no_rope_layers=[1, 1, 1, 0]), 256, 64, 0),
    (config("llama4_text", head_dim=8, attention_chunk_size=None), 256, 256, 0),
    # one key head of 8: 4 x 2 x 8 x 2
    (config("falcon", kv=None, multi_query=True, new_decoder_architecture=False), 128, 128, 0),
    (config("falcon", kv=None, multi_query=False), 512, 512, 0),
    (config("falcon", kv=None, multi_query=False, num_kv_heads=2), 256, 256, 0),
    (config("falcon", kv=None, multi_query=True, new_decoder_architecture=True, num_kv_heads=2), 256, 256, 0),
    # one latent of 12 + 4 values, once: 4 x 16 x 2
    (config("deepseek_v3", kv_lora_rank=12, qk_rope_head_dim=4), 128, 128, 0),
    (config("deepseek_v2", kv_lora_rank=12, qk_rope_head_dim=4), 128, 128, 0),
    (config("kimi_k2", kv_lora_rank=12, qk_rope_head_dim=4), 128, 128, 0),
    # 10 layers, the last 5 share: 5 own x 2 x 16 x 2, of which layer 4 is full
    (config("gemma3n_text", 10, head_dim=8, sliding_window=7, num_kv_shared_layers=5), 320, 64, 0),
    # 6 layers, the last full with 1 head of 32 (2 x 32 x 2), five sliding with 2 heads of 8 (2 x 16 x 2)
    (
        config(
            "gemma4_text",
            6,
            head_dim=8,
            sliding_window=7,
            num_kv_shared_layers=0,
            global_head_dim=32,
            num_global_key_value_heads=1,
            attention_k_eq_v=True,
        ),
        5 * 64 + 128,
        128,
        0,
    ),
    # two layers: the first as it is, the second with 4 heads of 4 where it is said layer by layer
    (
        config(
            "gemma4_text",
            2,
            head_dim=8,
            sliding_window=7,
            num_kv_shared_layers=0,
            per_layer_config={"1": {"head_dim": 4, "num_key_value_heads": 4}},
        ),
        128,
        64,
        0,
    ),
    # 2 of 4 layers full; each of the others: state 4 x 8 x 4 fp32, conv (2 x 2 x 8 + 4 x 4) x 3 bf16
    (config("qwen3_next", head_dim=8, full_attention_interval=2, **LINEAR), 128, 128, 2 * (512 + 288)),
    (config("qwen3_5_text", head_dim=8, layer_types=["linear_attention"] * 3 + [FULL], **LINEAR), 64, 64, 3 * 800),
    # lightning attention: 4 heads x 8 x 8 fp32 in three layers
    (config("minimax", head_dim=8, layer_types=[FULL] + ["linear_attention"] * 3), 64, 64, 3 * 1024),
    # attention in layer 1; three layers of 64 x 16 values and 64 x 3 inputs, bf16
    (
        config("jamba", attn_layer_period=4, attn_layer_offset=1, mamba_d_state=16, mamba_d_conv=4, mamba_expand=2),
        64,
        64,
        3 * (64 * 16 + 64 * 3) * 2,
    ),
    # 4 layers of 64 x 16 and 64 x 3
    (
        {
            "model_type": "mamba",
            "num_hidden_layers": 4,
            "hidden_size": 32,
            "expand": 2,
            "state_size": 16,
            "conv_kernel": 4,
        },
        0,
        0,
        4 * (64 * 16 + 64 * 3) * 2,
    ),
    (
        {
            "model_type": "mamba2",
            "num_hidden_layers": 4,
            "hidden_size": 32,
            "num_heads": 8,
            "head_dim": 8,
            "state_size": 16,
            "n_groups": 2,
            "conv_kernel": 4,
        },
        0,
        0,
        4 * (8 * 8 * 16 + (64 + 2 * 2 * 16) * 3) * 2,
    ),
    # 8 heads of 64 / 8 = 8 x 16 values, conv (64 + 2 x 2 x 16) x 3
    (config("bamba", attn_layer_indices=[1, 3], **BAMBA), 128, 128, 2 * (1024 + 384) * 2),
    (config("granitemoehybrid", layer_types=["mamba", "attention", "mamba", "mamba"], **BAMBA), 64, 64, 3 * 2816),
    # both in every layer; the inner width is 32: 8 heads of 4 x 16 values, conv (32 + 64) x 3
    (config("falcon_h1", mamba_d_ssm=32, mamba_d_head="auto", **BAMBA), 256, 256, 4 * (512 + 288) * 2),
    # attention on 64 values in 4 heads of 16, before one of four Mamba-2 layers: 2 x 64 x 2
    (
        config(
            "zamba2",
            kv=4,
            layers_block_type=["mamba", "hybrid", "mamba", "mamba"],
            n_mamba_heads=8,
            mamba_expand=2,
            mamba_d_state=16,
            mamba_ngroups=2,
            mamba_d_conv=4,
        ),
        256,
        256,
        4 * 2816,
    ),
    # one attention layer; M keeps 8 x 4 x 16 fp32 and (32 + 64) x 3 bf16
    (
        config(
            "nemotron_h",
            hybrid_override_pattern="M-*E",
            head_dim=8,
            mamba_num_heads=8,
            mamba_head_dim=4,
            ssm_state_size=16,
            n_groups=2,
            conv_kernel=4,
        ),
        64,
        64,
        512 * 4 + 288 * 2,
    ),
]


@pytest.mark.parametrize(("model", "first", "slope", "fixed"), CASES, ids=[case[0]["model_type"] for case in CASES])
def test_families(model: dict, first: int, slope: int, fixed: int) -> None:
    size = kv_memory(model, 1000)
    assert (size.bytes_per_token, size.slope_bytes_per_token, size.fixed_bytes_per_request) == (first, slope, fixed)
    assert size.bytes == sum(tensor.bytes for tensor in size.tensors)
    assert kv_memory(model, 1).bytes == first + fixed
    # Windows and chunks of 7 tokens: what does not grow holds exactly 7.
    assert size.bytes == 1000 * slope + 7 * (first - slope) + fixed
    assert size.totals["conservative"] == 1000 * first + fixed


def test_layers_one_by_one() -> None:
    # 4 layers, K and V of 16 values: 64 B a token; the first slides over 7 of 10 tokens and the last two share.
    model = config("gemma3n_text", head_dim=8, sliding_window=7, num_kv_shared_layers=2)
    assert kv_memory(model | {"layer_types": [SLIDING, FULL] * 2}, 10, 3).layer_bytes == (3 * 7 * 64, 3 * 10 * 64, 0, 0)


def test_every_reader_has_a_case_or_shares_one() -> None:
    covered = {READERS[case[0]["model_type"]] for case in CASES}
    assert covered == set(READERS.values())


# Published sizes (their sources are the models' own papers and cards): first token, slope.
PUBLISHED = {
    "gpt2-xl": (307200, 307200),
    "llama-2-7b": (524288, 524288),
    "llama-3.1-8b": (131072, 131072),
    "llama-3.1-70b": (327680, 327680),
    "qwen3-32b": (262144, 262144),
    "deepseek-v3": (70272, 70272),
    "gemma-3-27b": (507904, 81920),
    "gpt-oss-120b": (73728, 36864),
    "llama-4-scout": (196608, 49152),
    "qwen3-next-80b-a3b": (24576, 24576),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    size = kv_memory(zoo()[name].config, 10**6)
    assert (size.bytes_per_token, size.slope_bytes_per_token) == PUBLISHED[name]


def test_the_reference_file_agrees_from_its_own_fields(shared: Path) -> None:
    golden = json.loads((shared / "kv_golden.json").read_text(encoding="utf-8"))["models"]
    for model in golden:
        for source in (model["config"], zoo()[model["name"]].config):
            size = kv_memory(source, 10**6)
            assert (size.bytes_per_token, size.slope_bytes_per_token) == (model["bytes_per_token"], model["slope"])
            for check in model.get("checks", ()):
                gib = kv_memory(source, check["context"]).bytes / 2**30
                assert round(gib, 2) == round(check["gib"], 2), model["name"]
            for name, fixed in model.get("fixed_bytes_per_request", {}).items():
                if name.startswith("recurrent_"):
                    kind: Any = name.removeprefix("recurrent_")
                    assert kv_memory(source, 5, state_kind=kind).fixed_bytes_per_request == fixed
    assert len(golden) == 10


def test_recurrent_state_of_qwen3_next() -> None:
    # 36 layers: 32 x 128 x 128 values, fp32 by default, and 8,192 channels x 3 inputs in bf16.
    model = zoo()["qwen3-next-80b-a3b"].config
    conv = 36 * 8192 * 3 * 2
    assert kv_memory(model, 1).fixed_bytes_per_request == 36 * 524288 * 4 + conv == 77266944
    assert kv_memory(model, 1, state_kind="bf16").fixed_bytes_per_request == 36 * 524288 * 2 + conv == 39518208
    assert kv_memory(model, 1, batch=3).bytes == 3 * (77266944 + 24576)


@pytest.mark.parametrize("name", ["gemma3", "llama4", "qwen3_5_moe", "mistral3"])
def test_a_nested_text_config_is_the_model(name: str) -> None:
    nested = {
        "gemma3": config("gemma3_text", head_dim=16, sliding_window=7),
        "llama4": config("llama4_text", head_dim=8, attention_chunk_size=7, no_rope_layer_interval=2),
        "qwen3_5_moe": config("qwen3_5_moe_text", head_dim=8, full_attention_interval=2, **LINEAR),
        "mistral3": config("mistral", sliding_window=None),
    }[name]
    outer = {"model_type": name, "text_config": nested, "vision_config": {"hidden_size": 5}, "num_hidden_layers": 99}
    assert kv_memory(outer, 100) == kv_memory(nested, 100)


def test_defaults_of_the_class_are_used_and_said() -> None:
    # google/gemma-3-4b-it leaves out what equals its class: 8 heads, 4 key heads of 256, every sixth layer full.
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34, "sliding_window": 1024}
    size = kv_memory({"model_type": "gemma3", "text_config": text}, 2000)
    row = 2 * 4 * 256 * 2
    assert (size.bytes_per_token, size.slope_bytes_per_token) == (34 * row, 5 * row)
    assert size.derivation[:4] == (
        "num_attention_heads 8 (default of gemma3_text)",
        "num_key_value_heads 4 (default of gemma3_text)",
        "head_dim 256 (default of gemma3_text)",
        "sliding_window_pattern 6 (default of gemma3_text)",
    )
    # The same at the top level is a file cut short.
    with pytest.raises(ValueError, match="lacks num_attention_heads, num_key_value_heads: give"):
        kv_memory(text, 2000)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (config("llama", kv=None), "num_key_value_heads as num_attention_heads (default of llama)"),
        (config("mistral"), "sliding_window 4096 (default of mistral)"),
        (config("mixtral"), "sliding_window null (default of mixtral)"),
        (config("qwen2"), "use_sliding_window false (default of qwen2)"),
        (config("gpt_oss", head_dim=8), "sliding_window 128 (default of gpt_oss)"),
        (config("qwen3"), "head_dim 128 (default of qwen3)"),
        (config("llama4_text", head_dim=8), "attention_chunk_size 8192 (default of llama4_text)"),
        (config("qwen3_next", head_dim=8, **LINEAR), "full_attention_interval 4 (default of qwen3_next)"),
        (config("falcon"), "multi_query true (default of falcon)"),
    ],
)
def test_a_default_is_what_it_says(model: dict, said: str) -> None:
    size = kv_memory(model, 10)
    assert said in size.derivation
    name, value = said.split()[:2]
    stated = model["num_attention_heads"] if value == "as" else json.loads(value)
    explicit = kv_memory(model | {name: stated}, 10)
    assert explicit.bytes == size.bytes and said not in explicit.derivation


def test_gpt2_goes_by_its_other_names_too() -> None:
    assert kv_memory(config("gpt2", 3, 2, hidden=12), 10).bytes == 10 * 144


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"model_type": "rwkv9"}, "unknown architecture rwkv9"),
        ({"architectures": ["X"]}, "lacks model_type"),
        ({"model_type": "llama"}, "lacks num_hidden_layers, num_attention_heads"),
        (config("qwen3_moe", kv=None), "lacks num_key_value_heads, head_dim"),
        (config("qwen3", kv=None), "lacks num_key_value_heads:"),
        (config("qwen3", head_dim=None), "lacks head_dim"),
        (config("gemma2", head_dim=8, sliding_window=None), "lacks sliding_window"),
        (config("gemma3n_text", kv=None), "lacks num_key_value_heads"),
        (config("gemma3n_text"), "lacks num_kv_shared_layers"),
        ({"model_type": "gpt2", "n_layer": 3}, "lacks n_head, n_embd"),
        (config("qwen2", use_sliding_window=True, max_window_layers="all"), "max_window_layers of the qwen2"),
        (config("gemma3n_text", num_kv_shared_layers=-1), "must be a whole number >= 0: -1"),
        (config("deepseek_v3"), "lacks kv_lora_rank, qk_rope_head_dim"),
        (config("qwen3_next", head_dim=8, full_attention_interval=2), "lacks linear_num_key_heads"),
        (config("falcon_h1", mamba_d_head="auto", **BAMBA), "lacks mamba_d_ssm"),
        (config("nemotron_h"), "lacks hybrid_override_pattern"),
        (config("bamba", **BAMBA), "lacks attn_layer_indices"),
        (config("llama", layer_types=[FULL]), "must list all 4 layers"),
        (config("llama", layer_types=["magic"] * 4), "unknown layer type magic"),
        (config("llama", heads=0), "must be a whole number >= 1: 0"),
        (config("llama", layers=True), "must be a whole number"),
        (config("llama", hidden=33), "33 values in 4 heads: give head_dim"),
        (config("llama4_text", no_rope_layers=[1, 0]), "no_rope_layers of the llama4_text configuration must list"),
        ({"model_type": "llava", "text_config": {"hidden_size": 5}}, "unknown architecture llava"),
    ],
)
def test_nothing_is_guessed(model: dict, sentence: str) -> None:
    with pytest.raises(ValueError) as raised:
        kv_memory(model, 10)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


@given(
    name=st.sampled_from(sorted(zoo())),
    context=st.integers(1, 300_000),
    batch=st.integers(1, 4),
    kind=st.sampled_from(["fp16", "q8_0", "q4_0", "mxfp4", "int8_per_token_head"]),
    page=st.sampled_from([1, 16, 256]),
)
def test_zoo_sizes_are_ordered(name, context, batch, kind, page) -> None:
    model = zoo()[name].config
    size = kv_memory(model, context, batch, {"kv_cache": kind})
    assert size.bytes == sum(tensor.bytes for tensor in size.tensors) == sum(size.layer_bytes)
    assert size.totals["logical"] <= size.totals["engine_reserved"]
    assert size.totals["logical"] <= size.totals["conservative"]
    longer = kv_memory(model, context + 1, batch, {"kv_cache": kind})
    assert longer.bytes - size.bytes == size.slope_bytes_per_token * batch >= 0
    assert longer.totals["engine_reserved"] >= size.totals["engine_reserved"]
    assert 0 <= size.slope_bytes_per_token <= size.bytes_per_token
    assert kv_memory(model, context, batch, {"kv_cache": kind}, page).bytes >= size.bytes


# Weights of models whose every matrix follows from the shape that the cache reads, the feed-forward width and the
# vocabulary: exact counts of checkpoints, which no other shape gives.
COUNTED = {
    "llama-2-7b": (11008, 32000, False),
    "llama-3.1-8b": (14336, 128256, False),
    "llama-3.2-3b": (8192, 128256, True),
    "mistral-nemo-12b": (14336, 131072, False),
    "yi-34b": (20480, 64000, False),
    "smollm3-3b": (11008, 128256, True),
    "tinyllama-1.1b": (5632, 32000, False),
}


@pytest.mark.parametrize("name", COUNTED)
def test_shapes_add_up_to_the_weights_of_the_checkpoint(name: str) -> None:
    model = zoo()[name]
    feed_forward, vocab, tied = COUNTED[name]
    width, heads = model.config["hidden_size"], model.config["num_attention_heads"]
    head_dim = model.config.get("head_dim", width // heads)
    cached = kv_memory(model.config, 1).bytes_per_token // 2 // model.config["num_hidden_layers"]
    block = width * (2 * heads * head_dim + cached) + 3 * width * feed_forward + 2 * width
    total = model.config["num_hidden_layers"] * block + width + vocab * width * (1 if tied else 2)
    assert total == model.params


def test_the_zoo_holds_what_it_promises() -> None:
    models = zoo()
    assert len(models) >= 30 and set(PUBLISHED) <= set(models)
    for model in models.values():
        assert model.source.startswith("https://huggingface.co/") and model.confirmed and model.params > 10**8
        assert layers_of(model.config).family == model.config["model_type"]
