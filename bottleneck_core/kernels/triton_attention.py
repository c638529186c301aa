"""Causal attention of narrow heads for training, forward and backward, with a null key.

Heads of 12 values are what this project is about, and kernels made for 64 and more spend their time on zeros. Here a
head is padded to 16 inside the kernel, which leaves the exponentials as the largest part. The null key is where the
running softmax starts from, not a row in front of the keys: tiles stay aligned and nothing is copied.

Legend: T tokens, H heads, G key and value heads (G divides H), K head dim of queries and keys, V of values, KP and VP
the same padded to a power of two, M queries of a tile, N keys of a tile. Tensors lie (B, T, H, D), with any strides.
Scores are multiplied by scale and log2 e, so that exponentials are to base two; `lse` is log2 of the sum of them.
"""

# Triton's language is not Python's to a type checker: constants become constexpr, tensors compare to tensors.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _rows(base, rows, stride, T, D: tl.constexpr, DP: tl.constexpr, WHOLE: tl.constexpr):
    """(rows, DP) of a matrix (T, D), zeros outside; WHOLE: all of the rows are there."""
    columns = tl.arange(0, DP)
    at = base + rows[:, None] * stride + columns[None, :]
    if WHOLE and D == DP:
        return tl.load(at)
    if WHOLE:
        return tl.load(at, mask=columns[None, :] < D, other=0.0)
    return tl.load(at, mask=(rows < T)[:, None] & (columns < D)[None, :], other=0.0)


@triton.jit
def _vector(base, D: tl.constexpr, DP: tl.constexpr):
    """(DP,) of a vector (D,), zeros outside, in float32."""
    columns = tl.arange(0, DP)
    return tl.load(base + columns, mask=columns < D, other=0.0).to(tl.float32)


@triton.jit
def _attend(
    queries, keys, values, rows, acc, peak, total, factor, first, last, k_t, v_t, T,
    K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    N: tl.constexpr, MASK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """The running softmax of queries (M, KP) after the keys from `first` to `last`; MASK: some of them lie ahead."""
    for start in range(first, last, N):
        columns = start + tl.arange(0, N)
        s = tl.dot(queries, tl.trans(_rows(keys, columns, k_t, T, K, KP, WHOLE)))  # (M, N)
        if MASK:
            s = tl.where(columns[None, :] <= rows[:, None], s, float("-inf"))
        now = tl.maximum(peak, tl.max(s, 1) * factor)
        p = tl.exp2(s * factor - now[:, None])  # one multiply-add each
        fade = tl.exp2(peak - now)
        total = total * fade + tl.sum(p, 1)
        tile = _rows(values, columns, v_t, T, V, VP, WHOLE)
        acc = tl.dot(p.to(tile.dtype), tile, acc * fade[:, None])
        peak = now
    return acc, peak, total


@triton.jit
def attention_forward(
    q, k, v, null_k, null_v, out, lse, factor, T, H, G,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h,
    K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, NULL: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """out (B, T, H, V) and lse (B, H, T); a program has M queries of a head, the longest rows first.

    WHOLE: M and N divide T.
    """
    begin = (tl.num_programs(0) - 1 - tl.program_id(0)) * M
    b, h = (tl.program_id(1) // H).to(tl.int64), tl.program_id(1) % H
    g = h // (H // G)
    rows = begin + tl.arange(0, M)
    queries = _rows(q + b * q_b + h * q_h, rows, q_t, T, K, KP, WHOLE)  # (M, KP)
    keys, values = k + b * k_b + g * k_h, v + b * v_b + g * v_h
    if NULL:
        peak = tl.sum(queries.to(tl.float32) * _vector(null_k + g * K, K, KP)[None, :], 1) * factor
        total = tl.full((M,), 1.0, tl.float32)
        acc = tl.zeros((M, VP), tl.float32) + _vector(null_v + g * V, V, VP)[None, :]
    else:
        peak = tl.full((M,), float("-inf"), tl.float32)
        total = tl.zeros((M,), tl.float32)
        acc = tl.zeros((M, VP), tl.float32)
    diagonal = begin // N * N
    acc, peak, total = _attend(
        queries, keys, values, rows, acc, peak, total, factor, 0, diagonal, k_t, v_t, T, K, V, KP, VP, N, False, True
    )
    acc, peak, total = _attend(
        queries, keys, values, rows, acc, peak, total, factor, diagonal, begin + M, k_t, v_t, T,
        K, V, KP, VP, N, True, WHOLE,
    )  # fmt: skip
    columns = tl.arange(0, VP)
    inside = (rows < T)[:, None] & (columns < V)[None, :]
    at = out + ((b * T + rows[:, None]) * H + h) * V + columns[None, :]
    tl.store(at, (acc / total[:, None]).to(out.dtype.element_ty), mask=inside)
    tl.store(lse + (b * H + h) * T + rows, peak + tl.log2(total), mask=rows < T)


@triton.jit
def _for_queries(
    queries, into, keys, values, rows, sums, products, acc, factor, first, last, k_t, v_t, T,
    K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    N: tl.constexpr, MASK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """acc (M, KP) and what the keys from `first` to `last` add to the gradient of the queries, not yet scaled."""
    for start in range(first, last, N):
        columns = start + tl.arange(0, N)
        tile = _rows(keys, columns, k_t, T, K, KP, WHOLE)  # (N, KP)
        s = tl.dot(queries, tl.trans(tile))
        if MASK:
            s = tl.where(columns[None, :] <= rows[:, None], s, float("-inf"))
        p = tl.exp2(s * factor - sums[:, None])
        dp = tl.dot(into, tl.trans(_rows(values, columns, v_t, T, V, VP, WHOLE)))  # (M, N)
        acc = tl.dot((p * (dp - products[:, None])).to(tile.dtype), tile, acc)
    return acc


@triton.jit
def attention_backward_queries(
    q, k, v, null_k, null_v, out, lse, d_out, dq, delta, d_nulls, factor, scale, T, H, G,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h, o_b, o_t, o_h,
    K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, NULL: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """dq (B, T, H, K), and for the keys' pass delta (B, H, T), the product of output and its gradient.

    Of the null key and value each program gives its part, (programs, B * H, KP + VP) in float32, which are added later:
    so their gradients do not depend on the order of the programs. `d_out` has strides o_b, o_t, o_h; `out` is as
    `attention_forward` wrote it.
    """
    tile_of_rows = tl.num_programs(0) - 1 - tl.program_id(0)
    begin = tile_of_rows * M
    b, h = (tl.program_id(1) // H).to(tl.int64), tl.program_id(1) % H
    g = h // (H // G)
    rows = begin + tl.arange(0, M)
    queries = _rows(q + b * q_b + h * q_h, rows, q_t, T, K, KP, WHOLE)  # (M, KP)
    into = _rows(d_out + b * o_b + h * o_h, rows, o_t, T, V, VP, WHOLE)  # (M, VP)
    outputs = _rows(out + (b * T * H + h) * V, rows, H * V, T, V, VP, WHOLE)  # (M, VP)
    sums = tl.load(lse + (b * H + h) * T + rows, mask=rows < T, other=float("inf"))  # rows outside weigh nothing
    products = tl.sum(into.to(tl.float32) * outputs.to(tl.float32), 1)
    tl.store(delta + (b * H + h) * T + rows, products, mask=rows < T)
    keys, values = k + b * k_b + g * k_h, v + b * v_b + g * v_h
    diagonal = begin // N * N
    acc = tl.zeros((M, KP), tl.float32)
    acc = _for_queries(
        queries, into, keys, values, rows, sums, products, acc, factor, 0, diagonal, k_t, v_t, T,
        K, V, KP, VP, N, False, True,
    )  # fmt: skip
    acc = _for_queries(
        queries, into, keys, values, rows, sums, products, acc, factor, diagonal, begin + M, k_t, v_t, T,
        K, V, KP, VP, N, True, WHOLE,
    )  # fmt: skip
    if NULL:
        key, value = _vector(null_k + g * K, K, KP), _vector(null_v + g * V, V, VP)
        wide, wide_into = queries.to(tl.float32), into.to(tl.float32)
        p = tl.exp2(tl.sum(wide * key[None, :], 1) * factor - sums)  # (M,)
        ds = p * (tl.sum(wide_into * value[None, :], 1) - products)
        acc += ds[:, None] * key[None, :]
        part = d_nulls + (tile_of_rows * tl.num_programs(1) + tl.program_id(1)) * (KP + VP)
        tl.store(part + tl.arange(0, KP), tl.sum(ds[:, None] * wide, 0) * scale)
        tl.store(part + KP + tl.arange(0, VP), tl.sum(p[:, None] * wide_into, 0))
    columns = tl.arange(0, KP)
    at = dq + ((b * T + rows[:, None]) * H + h) * K + columns[None, :]
    tl.store(at, (acc * scale).to(dq.dtype.element_ty), mask=(rows < T)[:, None] & (columns < K)[None, :])


@triton.jit
def _for_keys(
    keys, values, queries, into, sums, products, columns, for_keys, for_values, factor, first, last, q_t, o_t, T,
    K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    M: tl.constexpr, MASK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """The gradients of keys (N, KP) and values (N, VP) after the queries from `first` to `last`, keys' not scaled."""
    for start in range(first, last, M):
        rows = start + tl.arange(0, M)
        tile = _rows(queries, rows, q_t, T, K, KP, WHOLE)  # (M, KP)
        tile_into = _rows(into, rows, o_t, T, V, VP, WHOLE)  # (M, VP)
        total = tl.load(sums + rows, mask=rows < T, other=float("inf"))
        product = tl.load(products + rows, mask=rows < T, other=0.0)
        s = tl.dot(keys, tl.trans(tile))  # (N, M)
        if MASK:
            s = tl.where(columns[:, None] <= rows[None, :], s, float("-inf"))
        p = tl.exp2(s * factor - total[None, :])
        for_values = tl.dot(p.to(tile_into.dtype), tile_into, for_values)
        dp = tl.dot(values, tl.trans(tile_into))  # (N, M)
        for_keys = tl.dot((p * (dp - product[None, :])).to(tile.dtype), tile, for_keys)
    return for_keys, for_values


@triton.jit
def attention_backward_keys(
    q, k, v, lse, d_out, delta, dk, dv, factor, scale, T, H, G,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h, o_b, o_t, o_h,
    K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """dk (B, T, G, K) and dv (B, T, G, V); a program has N keys of a head, those that most queries see first."""
    begin = tl.program_id(0) * N
    b, g = (tl.program_id(1) // G).to(tl.int64), tl.program_id(1) % G
    columns = begin + tl.arange(0, N)
    keys = _rows(k + b * k_b + g * k_h, columns, k_t, T, K, KP, WHOLE)  # (N, KP)
    values = _rows(v + b * v_b + g * v_h, columns, v_t, T, V, VP, WHOLE)  # (N, VP)
    for_keys = tl.zeros((N, KP), tl.float32)
    for_values = tl.zeros((N, VP), tl.float32)
    first = begin // M * M
    beyond = (begin + N + M - 1) // M * M  # from this query on, all keys of the tile lie behind
    for h in range(g * (H // G), (g + 1) * (H // G)):
        queries, into = q + b * q_b + h * q_h, d_out + b * o_b + h * o_h
        sums, products = lse + (b * H + h) * T, delta + (b * H + h) * T
        for_keys, for_values = _for_keys(
            keys, values, queries, into, sums, products, columns, for_keys, for_values, factor,
            first, tl.minimum(beyond, T), q_t, o_t, T, K, V, KP, VP, M, True, WHOLE,
        )  # fmt: skip
        for_keys, for_values = _for_keys(
            keys, values, queries, into, sums, products, columns, for_keys, for_values, factor,
            beyond, T, q_t, o_t, T, K, V, KP, VP, M, False, WHOLE,
        )  # fmt: skip
    inside = (columns < T)[:, None]
    place = (b * T + columns[:, None]) * G + g
    at_k, at_v = tl.arange(0, KP)[None, :], tl.arange(0, VP)[None, :]
    tl.store(dk + place * K + at_k, (for_keys * scale).to(dk.dtype.element_ty), mask=inside & (at_k < K))
    tl.store(dv + place * V + at_v, for_values.to(dv.dtype.element_ty), mask=inside & (at_v < V))
