"""`train`: train one run, or the four of `--exp paper_all`; `--print-config` shows what would run."""

from __future__ import annotations

import json
from typing import Any

from bottleneck_core.cli.flags import read_flags
from bottleneck_core.config import RunConfig, model_view, training_args
from bottleneck_core.memory import TOKENS_128K, count_parameters, kv_memory

HELP = "Train an instrumented run."


def main(argv: list[str]) -> int:
    """Exit codes: 0 done, 2 a user's mistake, 3 non-finite loss, 130 and 143 saved after SIGINT and SIGTERM."""
    given, switches = read_flags(
        argv, prog="python -m bottleneck_core train", description=HELP, switches=("print_config",)
    )
    configs = RunConfig.resolve_all(**given)
    if switches["print_config"]:
        documents = [print_config(config) for config in configs]
        print(json.dumps(documents[0] if len(documents) == 1 else documents, indent=2))
        return 0
    from bottleneck_core.train import train  # torch: only where something is trained

    for config in configs:
        code = train(config, console=True).exit_code
        if code:
            return code
    return 0


def print_config(config: RunConfig) -> dict[str, Any]:
    """The document of `--print-config`; needs no data (see `RunConfig.assumed_vocab_size`)."""
    kv = kv_memory(config, config.block_size)
    return {
        "model": model_view(config),
        "training_args": training_args(config),
        "memory": {
            "baseline_fp16_bytes": kv.baseline_fp16_bytes,
            "policy_bytes": kv.bytes,
            "policy_128k_bytes": kv_memory(config, TOKENS_128K).bytes,
            "compression": round(kv.compression, 6),
        },
        "n_params": count_parameters(config, config.assumed_vocab_size),
    }
