"""What llama.cpp and vLLM set aside, against sums worked out by hand from their rules."""

from __future__ import annotations

from bottleneck_core.memory import kv_memory

ROW = 64  # bytes a token and layer: K and V, 2 heads of 8 values, fp16
LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
}
GEMMA = LLAMA | {"model_type": "gemma3_text", "head_dim": 8, "sliding_window": 1000, "sliding_window_pattern": 4}


def test_full_attention() -> None:
    size = kv_memory(LLAMA, 1000, batch=3)
    assert size.engines == {
        "llama.cpp": 3 * 4 * 1024 * ROW,  # 1,000 cells padded to 4 x 256
        "vllm": 3 * 4 * 63 * 16 * ROW,  # 62.5 blocks of 16
    }
    assert size.totals["engine_reserved"] == size.engines["llama.cpp"]
    assert size.totals["conservative"] == size.totals["logical"]


def test_windows_of_llama_cpp() -> None:
    # One full layer of 5,120 cells (a multiple of 256); three of min(5,120, 1,000 + 512) = 1,512, padded to 1,536.
    assert kv_memory(GEMMA, 5001).engines["llama.cpp"] == (5120 + 3 * 1536) * ROW
    # Shorter than the window: no more than the context.
    assert kv_memory(GEMMA, 700).engines["llama.cpp"] == 4 * 768 * ROW


def test_windows_that_llama_cpp_does_not_know() -> None:
    # Mistral's architecture there is Llama's: every layer holds the context.
    model = LLAMA | {"model_type": "mistral", "sliding_window": 1000}
    assert kv_memory(model, 5001).engines["llama.cpp"] == 4 * 5120 * ROW
    assert kv_memory(model, 5001).engines["vllm"] == 4 * 192 * 16 * ROW


def test_windows_of_vllm() -> None:
    # One full layer: 313 blocks. Three sliding ones: min(999 + 2,048, 5,001) = 3,047 tokens, 191 blocks, and 1 more.
    assert kv_memory(GEMMA, 5001).engines["vllm"] == (313 + 3 * 192) * 16 * ROW


def test_a_window_of_vllm_counts_the_newest_token_once() -> None:
    # min(1,008 + 2,048, 5,001) = 3,056 tokens are 191 blocks exactly; with 1,009 they would be 192.
    assert kv_memory(GEMMA | {"sliding_window": 1009}, 5001).engines["vllm"] == (313 + 3 * 192) * 16 * ROW


def test_groups_of_vllm_are_padded() -> None:
    # Every second of 5 layers: 2 full, 3 sliding. 3 is not below 1.5 x 2: groups of 2, so 4 sliding.
    model = GEMMA | {"num_hidden_layers": 5, "sliding_window_pattern": 2}
    assert kv_memory(model, 5001).engines["vllm"] == (2 * 313 + 4 * 192) * 16 * ROW
    # 3 full, 4 sliding of 7: below 1.5 times, so groups of 4.
    model = GEMMA | {"num_hidden_layers": 7, "sliding_window_pattern": 2}
    assert kv_memory(model, 5001).engines["vllm"] == (4 * 313 + 4 * 192) * 16 * ROW


def test_chunks() -> None:
    model = LLAMA | {
        "model_type": "llama4_text",
        "head_dim": 8,
        "attention_chunk_size": 1000,
        "no_rope_layer_interval": 4,
    }
    size = kv_memory(model, 5001)
    assert size.totals["logical"] == (5001 + 3 * 1000) * ROW
    assert size.engines["llama.cpp"] == (5120 + 3 * 1536) * ROW
    assert size.engines["vllm"] == (313 + 3 * 191) * 16 * ROW  # 1,000 + 2,048 tokens in 190.5 blocks


def test_blocks_of_vllm_hold_a_recurrent_state() -> None:
    # Two attention layers of 64 B a token; two recurrent ones of 4 x 8 x 4 fp32 + (32 + 16) x 3 bf16 = 800 B, which
    # takes 12.5 tokens: one block of 16. With an eightfold state, 4,384 B or 68.5 tokens: blocks of 80.
    linear = {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 4,
        "linear_conv_kernel_dim": 4,
    }
    model = LLAMA | {"model_type": "qwen3_next", "head_dim": 8, "full_attention_interval": 2, **linear}
    assert kv_memory(model, 100, 2).engines["vllm"] == 2 * (2 * 7 + 2) * 16 * ROW
    wide = model | {"linear_value_head_dim": 32}
    state = 4 * 8 * 32 * 4 + (2 * 2 * 8 + 4 * 32) * 3 * 2
    assert state == 5056  # 79 tokens
    assert kv_memory(wide, 100).engines["vllm"] == (2 * 2 + 2) * 80 * ROW
    # llama.cpp keeps both states in fp32, whatever dtype is asked for.
    cells = 2 * 256 * ROW
    for kind in ("fp32", "bf16"):
        engines = kv_memory(wide, 100, state_kind=kind).engines
        assert engines["llama.cpp"] == cells + 2 * 4 * (4 * 8 * 32 + (2 * 2 * 8 + 4 * 32) * 3)


def test_rows_of_different_size_are_not_padded() -> None:
    # Gemma 4: one full layer of 2 x 32 values x 2 B, three sliding of 64 B.
    model = GEMMA | {"model_type": "gemma4_text", "global_head_dim": 32, "num_global_key_value_heads": 1}
    model |= {"attention_k_eq_v": True, "num_kv_shared_layers": 0}
    assert kv_memory(model, 5001).engines["vllm"] == 313 * 16 * 128 + 3 * 192 * 16 * 64


def test_a_state_alone_is_itself() -> None:
    model = {
        "model_type": "mamba",
        "num_hidden_layers": 4,
        "hidden_size": 32,
        "expand": 2,
        "state_size": 16,
        "conv_kernel": 4,
    }
    size = kv_memory(model, 100, 5)
    assert size.engines["vllm"] == size.bytes == 5 * size.fixed_bytes_per_request
    assert size.slope_bytes_per_token == 0
