"""Memory of training one of our configurations on one GPU: what is held for good, and what backward needs saved.

Two ways of running are derived, op by op from `model/`: fp32 without compilation, and bf16 autocast compiled with the
kernels of `kernels/` (fused loss, SwiGLU, attention of narrow heads). Legend: B batch, T tokens of a block, C d_model,
F d_ff, E embed_dim, V vocabulary padded to 64 (as `GPT.unembed` pads it on CUDA) or 128 (the fused loss), Q, K, U total
widths of queries, keys and values as projected, q, k, u of the same as the attention kernel takes them (heads repeated
for gqa in fp32, head dims padded to be equal where heads are wide), L layers, H heads, N parameters.

The peak is the larger of two moments. At the loss nothing has been freed yet: weights, optimiser state, copies of
weights, all saved activations and the logits with their gradients. In the optimiser step: weights, gradients, state.
Not counted: the CUDA context, the allocator's rounding, kernels' workspaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bottleneck_core.memory.layers import (
    cached_widths,
    mode_of,
    optional_setting,
    output_width,
    query_width,
    setting_of,
)
from bottleneck_core.memory.parameters import count_parameters

Mode = Literal["fp32", "bf16-compiled"]
VOCAB_MULTIPLE = {"fp32": 64, "bf16-compiled": 128}
NARROW = 32  # head dims up to this have a kernel of their own in half precision
LOSS_CHUNK = 16384  # the default of --loss-chunk


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Bytes. `total` is the largest of `peaks`, whose entries say which parts they add; `derivation` shows each."""

    mode: Mode
    parameters: int
    weights: int
    gradients: int
    optimizer: int
    copies: int
    activations: int
    logits: int
    peaks: dict[str, int]
    total: int
    derivation: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """The legend's numbers."""

    tokens: int
    layers: int
    heads: int
    d_model: int
    d_ff: int
    embed: int
    vocab: int
    projected: tuple[int, int, int]  # Q, K, U; K is 0 where keys use the queries' projection
    kernel: tuple[int, int, int]  # q, k, u
    output: int  # of the kernel, all heads
    merged: int  # the same as `out_proj` reads it, without padding
    narrow: bool
    loss_chunk: int
    null: bool
    swiglu: bool
    tempered: bool


def training_memory(
    model: Any, vocab_size: int, batch: int | None = None, mode: Mode = "bf16-compiled"
) -> TrainingMemory:
    """Memory of a training step of `model` (object or dict with the setting names) at `batch` sequences.

    `batch` is by default its batch_size; `grad_checkpoint`, `grad_accum` and `optimizer` are read where they are there.
    Raises ValueError for another mode: nothing is guessed for eager autocast or compiled fp32.
    """
    if mode not in ("fp32", "bf16-compiled"):
        raise ValueError(f"no derivation for the mode {mode}: choose fp32 or bf16-compiled")
    shape = _shape(model, vocab_size, batch or setting_of(model, "batch_size"), mode)
    parameters = count_parameters(model, vocab_size)
    block, lines = (_block_fp32 if mode == "fp32" else _block_bf16)(shape)
    activations, saved = _activations(shape, block, bool(optional_setting(model, "grad_checkpoint")), mode)
    logits, head = _head(shape, mode)
    copies, copied = _copies(shape, parameters, mode)
    weights = gradients = 4 * parameters
    optimizer, states = _optimizer(model, shape, parameters)
    accumulated = gradients if (optional_setting(model, "grad_accum") or 1) > 1 else 0
    first_gradient = 4 * shape.vocab * shape.embed  # of the tied embedding, the first to be made
    at_loss = weights + optimizer + copies + accumulated + activations + logits
    at_loss += first_gradient if mode == "bf16-compiled" and not accumulated else 0
    peaks = {"loss": at_loss, "optimizer step": weights + gradients + optimizer}
    return TrainingMemory(
        mode=mode,
        parameters=parameters,
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        copies=copies,
        activations=activations,
        logits=logits,
        peaks=peaks,
        total=max(peaks.values()),
        derivation=(
            f"weights: {parameters:,} x 4 B = {weights:,} B; gradients as much in the optimiser step",
            states,
            copied,
            *lines,
            saved,
            head,
            f"at the loss: {at_loss:,} B"
            + ("" if mode == "fp32" else f", {first_gradient:,} B of it the embedding's gradient, the first to be made")
            + (f", {accumulated:,} B the gradients of earlier micro-steps" if accumulated else ""),
            f"in the optimiser step: {peaks['optimizer step']:,} B",
        ),
    )


def _shape(model: Any, vocab_size: int, batch: int, mode: Mode) -> _Shape:
    widths, heads = cached_widths(model), setting_of(model, "n_head")
    keys, values = sum(width for name, width in widths.items() if name != "v"), widths["v"]
    queries, repeated = query_width(model), mode_of(model).grouped and mode == "fp32"
    widest = max(keys, values)  # the kernel wants equal head dims, which keys and values need not have
    kernel = (queries, queries, queries) if repeated else (max(queries, widest), widest, widest)
    narrow = mode == "bf16-compiled" and max(queries, output_width(model)) <= NARROW * heads
    return _Shape(
        tokens=batch * setting_of(model, "block_size"),
        layers=setting_of(model, "n_layer"),
        heads=heads,
        d_model=setting_of(model, "d_model"),
        d_ff=setting_of(model, "d_ff"),
        embed=setting_of(model, "embed_dim"),
        vocab=-(-vocab_size // VOCAB_MULTIPLE[mode]) * VOCAB_MULTIPLE[mode],
        projected=(queries, 0 if setting_of(model, "tie_qk") else keys, values),
        kernel=(queries, keys, values) if narrow else kernel,
        output=output_width(model) if narrow else kernel[0],  # padded heads: as wide as the queries
        merged=output_width(model),
        narrow=narrow,
        loss_chunk=optional_setting(model, "loss_chunk") or LOSS_CHUNK,
        null=bool(setting_of(model, "null_attn")),
        swiglu=setting_of(model, "mlp") == "swiglu",
        tempered=bool(setting_of(model, "learned_temp")),
    )


def _block_fp32(s: _Shape) -> tuple[int, list[str]]:
    """Bytes a token that autograd keeps of one block."""
    norms = 2 * (4 + 4) * s.d_model
    q, k, u = s.kernel
    copied_values = s.null or u != s.projected[2]
    kept = not copied_values or (s.tempered and not s.projected[1])  # tied queries, for the temperature's gradient
    joint = 4 * sum(s.projected) if kept else 0
    kernel = 4 * (q + k + (u if copied_values else 0))
    cut = s.null or s.merged != q  # of the row and columns that only the kernel wanted
    out = 4 * q + 4 * s.heads + (4 * s.merged if cut else 0)
    hidden = (3 if s.swiglu else 2) * 4 * s.d_ff
    lines = [
        f"a block, norms: 2 x (input + output) x {s.d_model} x 4 B = {norms:,} B a token",
        f"a block, projections: {' + '.join(map(str, s.projected))} values x 4 B = {joint:,} B a token"
        if kept
        else "a block, projections: copied for the kernel and not kept",
        f"a block, kernel inputs: rotated q and k{', v with its null row' if copied_values else ''} = {kernel:,} B "
        "a token",
        f"a block, kernel output{' and its part without padding' if cut else ''}, log-sum-exp: "
        f"({q}{f' + {s.merged}' if cut else ''} + {s.heads}) x 4 B = {out:,} B a token",
        f"a block, feed-forward: {'gate, up, product' if s.swiglu else 'up, gelu'} x {s.d_ff} x 4 B "
        f"= {hidden:,} B a token",
    ]
    return norms + joint + kernel + out + hidden, lines


def _block_bf16(s: _Shape) -> tuple[int, list[str]]:
    """Bytes a token that the compiled forward hands to backward: pointwise results are made again, products kept."""
    norms = 2 * (4 + 2 + 2) * s.d_model
    joint = 2 * sum(s.projected) + (4 * s.projected[0] if s.tempered else 0)
    q, k, u = s.kernel
    kernel = 2 * (q + k + (0 if s.narrow else u))  # our own kernel reads the values where they were projected
    out = 2 * s.output + 4 * s.heads
    hidden = (3 if s.swiglu else 1) * 2 * s.d_ff
    lines = [
        f"a block, residual stream: 2 x (norm's input in fp32, its output and the branch's in bf16) x {s.d_model} "
        f"= {norms:,} B a token",
        f"a block, projections: {' + '.join(map(str, s.projected))} values x 2 B"
        + (f" and tempered q {s.projected[0]} x 4 B" if s.tempered else "")
        + f" = {joint:,} B a token",
        f"a block, kernel inputs: ({q} + {k}{'' if s.narrow else f' + {u}'}) x 2 B = {kernel:,} B a token",
        f"a block, kernel output and log-sum-exp: {s.output} x 2 B + {s.heads} x 4 B = {out:,} B a token",
        f"a block, feed-forward: {'gate, up, product' if s.swiglu else 'up'} x {s.d_ff} x 2 B = {hidden:,} B a token",
    ]
    return norms + joint + kernel + out + hidden, lines


def _activations(s: _Shape, block: int, checkpointed: bool, mode: Mode) -> tuple[int, str]:
    final = (8 if mode == "fp32" else 6) * s.d_model  # the last norm's input and output
    if checkpointed:
        size = s.tokens * (s.layers * 4 * s.d_model + block + final)
        return size, (
            f"activations: {s.tokens:,} tokens x ({s.layers} block inputs x {s.d_model} x 4 B + one block's {block:,} B"
            f" made again + last norm {final:,} B) = {size:,} B"
        )
    size = s.tokens * (s.layers * block + final)
    return size, (
        f"activations: {s.tokens:,} tokens x ({s.layers} blocks x {block:,} B + last norm {final:,} B) = {size:,} B"
    )


def _head(s: _Shape, mode: Mode) -> tuple[int, str]:
    """Logits and loss. Eager cross-entropy holds three fp32 copies at once: forward the logits, their copy without the
    padding and the log-probabilities, backward the latter and two gradients. Fused, a chunk of tokens has bf16 logits,
    which their gradient replaces, beside the gradient of all its inputs."""
    if mode == "fp32":
        size = 3 * 4 * s.tokens * s.vocab
        return size, f"logits and loss: 3 x {s.tokens:,} tokens x {s.vocab:,} x 4 B = {size:,} B"
    chunk = -(-s.tokens // -(-s.tokens // s.loss_chunk))
    size = 2 * chunk * s.vocab + 2 * s.tokens * s.embed
    return size, (
        f"logits and loss: {chunk:,} tokens x {s.vocab:,} x 2 B + {s.tokens:,} gradients x {s.embed} x 2 B = {size:,} B"
    )


def _copies(s: _Shape, parameters: int, mode: Mode) -> tuple[int, str]:
    """Copies of weights that backward keeps: joined projections and the padded embedding, or everything in bf16."""
    if mode == "bf16-compiled":
        return 2 * parameters, f"weights in bf16: {parameters:,} x 2 B = {2 * parameters:,} B"
    width = sum(s.projected) + (2 * s.d_ff if s.swiglu else 0)
    size = 4 * s.layers * s.d_model * width + 4 * s.vocab * s.embed
    return size, (
        f"copies: joined projections{', gates and ups' if s.swiglu else ''} {s.layers} x {s.d_model} x {width} x 4 B"
        f" + padded embedding {s.vocab:,} x {s.embed} x 4 B = {size:,} B"
    )


def _optimizer(model: Any, s: _Shape, parameters: int) -> tuple[int, str]:
    if optional_setting(model, "optimizer") != "muon":
        return 8 * parameters, f"AdamW: two moments x {parameters:,} x 4 B = {8 * parameters:,} B"
    block = s.d_model * (sum(s.projected) + output_width(model) + (3 if s.swiglu else 2) * s.d_ff)
    hidden = s.layers * block
    size = 4 * hidden + 8 * (parameters - hidden)
    return size, (
        f"Muon: one moment x {hidden:,} x 4 B; AdamW: two moments x {parameters - hidden:,} x 4 B = {size:,} B"
    )
