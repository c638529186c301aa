"""Models that several tests of the KV calculator size."""

from __future__ import annotations

from dashboard.kv.scenario import Source

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "rope_theta": 5e5,
}
TINY = Source(kind="preset", name="tiny.paper_bottleneck")
DECOUPLED = Source(kind="preset", name="tiny.paper_decoupled")
