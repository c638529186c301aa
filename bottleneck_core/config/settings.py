"""Settings of a run beside the network: data, optimisation, runtime, instrumentation, cache, sampling, tuning.

Each class is one group of the training form and of `train --help`; `RunConfig` joins them. This file and `model.py` are
the only place where a setting, its default, its bounds and its help live.
"""

from __future__ import annotations

from typing import Literal

from bottleneck_core.config.model import Settings, setting

CacheKind = Literal["fp16", "fp32", "bf16", "fp8", "q8_0", "q5_0", "q4_0", "nf4"]


class RunSettings(Settings):
    """Where the run lives and which preset it starts from."""

    size: Literal["nano", "tiny", "small", "medium", "large", "1b"] | None = setting(None, "size preset")
    exp: Literal["paper_baseline", "paper_bottleneck", "paper_decoupled", "paper_gqa", "paper_all"] | None = setting(
        None, "experiment preset: attention mode, its switches and dims; paper_all runs the four in turn"
    )
    run_root: str = setting("runs", "parent of automatic run folders")
    run_tag: str | None = setting(None, "suffix of an automatic run id")
    out_dir: str | None = setting(None, "run folder; unset: named after the presets under --run-root")
    resume: str | None = setting(
        None,
        "continue the run in its folder (auto), or from a checkpoint file or run folder (PATH)",
        seed=False,
    )
    init_from: str | None = setting(None, "checkpoint or run folder whose weights the run starts from", seed=False)


class DataSettings(Settings):
    """What is read."""

    data: str | None = setting(None, "token file to train on; unset: the built-in corpus")
    data_format: Literal["auto", "text", "npy", "bin", "pt"] = setting("auto", "format of the token file")
    data_dtype: str = setting("uint16", "element type of a bin file")
    tokenizer: Literal["word", "byte", "gpt2", "tiktoken"] = setting("word", "tokenizer; tiktoken is gpt2")
    val_frac: float = setting(0.1, "share of tokens at the end used for validation", gt=0, lt=1)


class TrainSettings(Settings):
    """How the weights move."""

    steps: int = setting(6000, "optimiser steps", ge=0)
    batch_size: int = setting(8, "sequences a micro-step, over all processes", ge=1)
    grad_accum: int = setting(1, "micro-steps a step", seed=False, ge=1)
    lr: float = setting(3e-4, "learning rate", gt=0)
    lr_schedule: Literal["constant", "cosine", "wsd"] = setting(
        "constant", "constant; cosine to --min-lr; wsd: linear to --min-lr over the last fifth", seed=False
    )
    warmup_steps: int = setting(0, "steps of linear warmup", seed=False, ge=0)
    min_lr: float = setting(0.0, "learning rate at the end of cosine and wsd", seed=False, ge=0)
    optimizer: Literal["adamw", "muon"] = setting(
        "adamw", "muon: hidden matrices by Muon, the rest by AdamW", seed=False
    )
    beta1: float = setting(0.9, "AdamW's first moment", seed=False, ge=0, lt=1)
    beta2: float = setting(0.999, "AdamW's second moment", seed=False, ge=0, lt=1)
    weight_decay: float = setting(0.1, "decoupled weight decay, on all parameters", ge=0)
    grad_clip: float = setting(1.0, "largest global gradient norm; 0: off", ge=0)
    grad_checkpoint: bool = setting(False, "recompute activations in the backward pass", seed=False)
    seed: int = setting(1337, "seed of initialisation, data order and probe (separate streams)", ge=0)
    save_every: int | None = setting(None, "steps between checkpoints; unset: --eval-every", seed=False, ge=1)
    max_minutes: float | None = setting(None, "save and stop after this many minutes of one start", seed=False, gt=0)


class RuntimeSettings(Settings):
    """What it runs on."""

    device: str | None = setting(None, "torch device; unset: cuda, else mps, else cpu")
    speed: Literal["auto", "off"] = setting(
        "auto", "auto: bf16 and compile on CUDA unless --[no-]amp, --[no-]compile are given", seed=False
    )
    amp: bool = setting(False, "mixed precision")
    amp_dtype: Literal["bf16", "fp16"] = setting("bf16", "dtype of mixed precision")
    compile: bool = setting(False, "torch.compile")
    compile_mode: Literal["default", "reduce-overhead", "max-autotune"] = setting("default", "its mode")
    cuda_graph: bool = setting(
        True, "replay the compiled step as a CUDA graph where that can be (one GPU, no dropout)", seed=False
    )
    loss_chunk: int = setting(
        16384,
        "tokens that have logits at a time (CUDA, half precision); fewer: less memory, more time",
        seed=False,
        ge=1,
    )
    shard: bool = setting(
        False,
        "under torchrun: each process keeps a part of weights, gradients and optimiser state (FSDP) instead of a copy, "
        "and the checkpoint is last.dcp",
        seed=False,
    )


class InstrumentSettings(Settings):
    """What is written down."""

    eval_every: int = setting(200, "steps between evaluations (also at step 0 and at the end)", ge=1)
    eval_iters: int = setting(20, "batches of train and of validation an evaluation", ge=1)
    log_every: int = setting(100, "steps between train events", ge=1)
    instrument: Literal["off", "basic", "medium", "full"] = setting(
        "full",
        "off: checkpoints only; basic (= medium): events, summary, picture; full: also ranks, singular values and "
        "analysis.h5",
    )
    analysis_every: int = setting(100, "steps between probes (also 0 and the end); 0: off", ge=0)
    analysis_max_tokens: int = setting(256, "longest probe window, in tokens", ge=1)
    analysis_layers: str = setting("0,-1", "layers whose maps, ranks and singular values are stored; -1: the last")
    analysis_heads: str = setting("0", "heads of the same")
    analysis_topk: int = setting(8, "k of the top-k mass", ge=1)
    analysis_local_window: int = setting(32, "w of the local mass", ge=0)
    analysis_save_scores: bool = setting(
        False, "decoupled: store semantic and geometric logits of the chosen layers and heads"
    )
    live_plot: bool = setting(False, "live view of the run")
    tb: bool = setting(False, "TensorBoard scalars")


class CacheSettings(Settings):
    """The KV cache: formats by tensor. Unset kinds and blocks follow `kv_cache` and `kv_qblock`."""

    kv_cache: CacheKind = setting("fp16", "kind of all cached tensors")
    kv_cache_k: CacheKind | None = setting(None, "kind of k")
    kv_cache_v: CacheKind | None = setting(None, "kind of v")
    kv_cache_k_sem: CacheKind | None = setting(None, "kind of k_sem")
    kv_cache_k_geo: CacheKind | None = setting(None, "kind of k_geo")
    kv_qblock: int = setting(32, "values a quantisation block", ge=1)
    kv_qblock_k: int | None = setting(None, "block of k", ge=1)
    kv_qblock_v: int | None = setting(None, "block of v", ge=1)
    kv_qblock_k_sem: int | None = setting(None, "block of k_sem", ge=1)
    kv_qblock_k_geo: int | None = setting(None, "block of k_geo", ge=1)
    kv_residual: int = setting(128, "newest tokens also kept in fp16", ge=0)
    kv_decode_block: int = setting(1024, "cached tokens read at a time in streaming decode", ge=1)
    kv_first_layers: int = setting(0, "so many first layers are kept in kv_edge_kind", ge=0, seed=False)
    kv_last_layers: int = setting(0, "so many last layers are kept in kv_edge_kind", ge=0, seed=False)
    kv_edge_kind: CacheKind = setting("fp16", "kind of the first and last layers named above", seed=False)
    kv_hadamard: bool = setting(False, "rotate queries and keys before they are stored, to spread outliers", seed=False)
    kv_page: int = setting(256, "tokens a page: the cache grows page by page", ge=1, seed=False)
    kv_fused: Literal["none", "auto", "triton1pass", "triton2pass"] = setting("auto", "fused decode kernel")


class SampleSettings(Settings):
    """How text is drawn from a checkpoint."""

    ckpt: str | None = setting(None, "checkpoint to sample from")
    prompt_tokens: str = setting("0", "prompt as ids, or text where a tokenizer is known")
    max_new_tokens: int = setting(50, "tokens to generate", ge=1)
    temperature: float = setting(1.0, "sampling temperature", ge=0)
    top_k: int | None = setting(None, "keep the k most likely", ge=1)


class TuneSettings(Settings):
    """What the self-optimiser of the cache tries, and how it decides."""

    self_opt: Literal["none", "startup", "online"] = setting(
        "none", "none; startup: choose before decoding; online: re-probe while decoding"
    )
    self_opt_cache: str | None = setting(None, "file that remembers choices")
    self_opt_scope: Literal["decode", "cache", "all"] = setting("all", "tune the decode plan, the cache policy, both")
    self_opt_decode_blocks: str = setting("256,512,1024,2048", "candidates for kv_decode_block")
    self_opt_block_n: str = setting("128", "kernel tile candidates")
    self_opt_warps: str = setting("4,8", "warps candidates")
    self_opt_stages: str = setting("2,3", "pipeline stage candidates")
    self_opt_warmup: int = setting(1, "untimed runs a candidate", ge=0)
    self_opt_iters: int = setting(3, "timed runs a candidate", ge=1)
    self_opt_interval: int = setting(256, "online: steps between probes", ge=1)
    self_opt_hysteresis: float = setting(0.03, "switch only when faster by this share", ge=0)
    self_opt_verbose: bool = setting(False, "say what is tried")
    self_opt_verify: bool = setting(False, "compare outputs with the base plan")
    self_opt_verify_tol: float = setting(0.005, "allowed absolute difference", ge=0)
    self_opt_residuals: str = setting("0,32,64,128", "residual candidates")
    self_opt_qblocks: str = setting("16,32,64", "block candidates")
    self_opt_k_sem_kinds: str = setting("q4_0,nf4,q8_0,fp16", "kinds tried for k_sem")
    self_opt_k_geo_kinds: str = setting("q8_0,q4_0,fp16", "kinds tried for k_geo")
    self_opt_v_kinds: str = setting("q4_0,q8_0,fp16", "kinds tried for v")
    self_opt_mem_budget_mb: float | None = setting(
        None, "cache budget in MB; unset: the base policy's bytes plus the overhead share", gt=0
    )
    self_opt_mem_overhead_frac: float = setting(0.1, "that share", ge=0)
    self_opt_policy_prefix_len: int | None = setting(
        None, "cached length used when timing policies; unset: from the prompt", ge=1
    )
    self_opt_policy_warmup: int = setting(1, "untimed runs a policy", ge=0)
    self_opt_policy_iters: int = setting(3, "timed runs a policy", ge=1)
    self_opt_policy_hysteresis: float = setting(0.02, "move only when faster by this share", ge=0)
    self_opt_prefer_low_mem_within: float = setting(0.02, "prefer less memory within this share of time", ge=0)
    self_opt_policy_quality: bool = setting(False, "guard the policy by quality")
    self_opt_calib_tokens: str | None = setting(None, "token file for the guard")
    self_opt_calib_prefill: int = setting(64, "prefix tokens of the guard", ge=1)
    self_opt_calib_decode: int = setting(8, "scored tokens of the guard", ge=1)
    self_opt_quality_tol: float = setting(0.5, "allowed largest logit difference", ge=0)
