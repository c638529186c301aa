"""Cached decoding against the full forward pass, and each kind against a pass over values rounded as it rounds them."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from bottleneck_core.errors import UserError
from bottleneck_core.generate import Engine, Plan
from bottleneck_core.kvcache import pack, unpack
from bottleneck_core.kvcache.rotation import rotate
from bottleneck_core.memory import CachePolicy
from bottleneck_core.model import GPT, Projected
from bottleneck_core.model.attention import reference
from tests.model.tiny_models import MODES, all_toggles, scrambled, tiny, toggle_id, tokens

KINDS = ("fp32", "fp16", "bf16", "fp8", "q8_0", "q5_0", "q4_0", "nf4")
CPU = Plan(block=5, fused="none")

# Largest difference of a logit from the full pass that each kind may make, in standard deviations of the logits, on
# the random models here, whose attention is far sharper than a trained one's. `docs/formats.md` has bounds on values.
LOGIT_BOUND = {
    "fp32": 1e-5,
    "fp16": 0.02,
    "bf16": 0.15,
    "fp8": 1.5,
    "q8_0": 0.3,
    "q5_0": 2.0,
    "q4_0": 3.0,
    "nf4": 3.0,
}


def decode(model: GPT, idx: Tensor, policy: CachePolicy | None, pieces: list[int], page: int = 4) -> Tensor:
    """Logits of idx (B, T) fed in pieces."""
    engine = Engine(model, policy, plan=CPU, page=page)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.cat([engine.feed(piece) for piece in idx.split(pieces, dim=1)], dim=1)


@pytest.mark.parametrize("config", all_toggles(), ids=toggle_id)
def test_a_native_cache_equals_the_full_pass(config: Any) -> None:
    """In float64, every mode and toggle, past the block size; prompt in pieces, then token by token."""
    model = scrambled(config)
    idx = tokens(2, config.block_size + 7)
    pieces = [3, 1, 5, *[1] * 4]
    pieces.append(idx.size(1) - sum(pieces))
    torch.testing.assert_close(decode(model, idx, None, pieces), model(idx), rtol=0, atol=1e-10)


class RoundedAttention:
    """Full attention over keys and values as a cache gives them back: an independent account of what it should do.

    Each query sees its newest `residual` positions in fp16 and older ones as they are packed, as one masked product.
    """

    def __init__(self, policy: CachePolicy, layer: int, n_layer: int, names: list[str]) -> None:
        self.policy, self.layer, self.n_layer, self.names = policy, layer, n_layer, names

    @property
    def start(self) -> int:
        return 0

    def stored(self, name: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (B, T, W) as the pages hold them, and as the window does."""
        kind = self.policy.layer_kind(name, self.layer, self.n_layer)
        packed = unpack(
            pack(rows, kind, self.policy.qblock_of(name)), kind, rows.size(-1), self.policy.qblock_of(name), rows.dtype
        )
        windowed = kind in ("fp8", "q8_0", "q5_0", "q4_0", "nf4") and self.policy.residual
        return packed, rows.half().to(rows.dtype) if windowed else packed

    def attend(self, projected: Projected) -> Tensor:
        p = projected
        width, sem, heads = p.k.size(-1), p.sem_width, p.k.size(1)
        parts = (sem, width - sem) if sem else (width,)
        q, k, null_k = p.q, p.k, p.null_k
        if self.policy.hadamard:
            q, k = rotate(q, parts), rotate(k, parts)
            null_k = None if null_k is None else rotate(null_k, parts)
        merged = [x.transpose(1, 2).flatten(2) for x in (*k.split(parts, -1), p.v)]
        pairs = [self.stored(name, rows) for name, rows in zip(self.names, merged, strict=True)]
        far, near = ([x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in side] for side in zip(*pairs, strict=True))
        position = torch.arange(q.size(2))
        windowed = position[None] > position[:, None] - self.policy.residual  # (T, S)
        groups = q.size(1) // heads
        scores = [
            reference.scores(
                Projected(q=q, k=torch.cat(side[:-1], -1), v=p.v, scale=p.scale, null_k=null_k, null_v=p.null_v)
            )
            for side in (far, near)
        ]
        null = scores[0].size(-1) - q.size(2)
        mask = torch.nn.functional.pad(windowed, (null, 0))
        weights = torch.where(mask, scores[1], scores[0]).softmax(-1)
        values = [side[-1].repeat_interleave(groups, 1) for side in (far, near)]
        out = (weights[..., null:] * ~windowed) @ values[0] + (weights[..., null:] * windowed) @ values[1]
        if p.null_v is not None:
            out = out + weights[..., :1] * p.null_v.repeat_interleave(groups, 0)[:, None]
        return out.transpose(1, 2).flatten(2)


def rounded_pass(model: GPT, idx: Tensor, policy: CachePolicy) -> Tensor:
    names = ["k_sem", "k_geo", "v"] if model.config.attn_mode == "decoupled" else ["k", "v"]
    n_layer = len(model.blocks)
    return model.continue_from([RoundedAttention(policy, i, n_layer, names) for i in range(n_layer)], idx)


POLICIES = [
    *[CachePolicy(kind=kind, residual=residual) for kind in KINDS for residual in (0, 4)],
    CachePolicy(kind="q4_0", residual=3, qblock=8, hadamard=True),
    CachePolicy(kinds={"k": "q8_0", "k_sem": "nf4", "k_geo": "fp16", "v": "q4_0"}, residual=6),
    CachePolicy(kind="q5_0", first_layers=1, edge_kind="fp32", residual=2),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: f"{p.kind}-{p.residual}-{p.qblock}{'-h' * p.hadamard}")
@pytest.mark.parametrize("pieces", [[1] * 19, [19], [8, 1, 1, 7, 2]], ids=["tokens", "whole", "pieces"])
def test_every_policy_does_what_it_says(mode: str, policy: CachePolicy, pieces: list[int]) -> None:
    """However the text is cut into pieces. Packed values are float32, so sums differ in their last digits only."""
    model = scrambled(tiny(mode, null_attn=True, n_layer=2))
    idx = tokens(2, 19)
    with torch.no_grad():
        torch.testing.assert_close(
            decode(model, idx, policy, pieces), rounded_pass(model, idx, policy), rtol=0, atol=1e-9
        )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_stays_within_its_bound(mode: str, kind: str) -> None:
    model = scrambled(tiny(mode, null_attn=True))
    idx = tokens(2, 2 * model.config.block_size)
    with torch.no_grad():
        full = model(idx)
        cached = decode(model, idx, CachePolicy(kind=kind, residual=0), [1] * idx.size(1))
    assert (cached - full).abs().max() / full.std() < LOGIT_BOUND[kind]


@pytest.mark.parametrize("mode", MODES)
def test_hadamard_rotation_changes_nothing_by_itself(mode: str) -> None:
    model = scrambled(tiny(mode, null_attn=True))
    idx = tokens(1, 12)
    with torch.no_grad():
        plain = decode(model, idx, CachePolicy(kind="fp32"), [1] * 12)
        turned = decode(model, idx, CachePolicy(kind="fp32", hadamard=True), [1] * 12)
    torch.testing.assert_close(turned, plain, rtol=0, atol=1e-4)


@pytest.mark.parametrize("width", [1, 2, 4, 6, 12, 18, 64])
def test_hadamard_is_orthogonal_and_spreads(width: int) -> None:
    turned = rotate(torch.eye(width, dtype=torch.float64), (width,))
    torch.testing.assert_close(turned @ turned.T, torch.eye(width, dtype=torch.float64))
    assert turned.abs().max() <= (width & -width) ** -0.5 + 1e-12
    parts = rotate(torch.ones(1, 12, dtype=torch.float64), (4, 8))
    assert (parts.abs() > 1e-9).sum() == 2, "each part is turned by itself"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", [None, CachePolicy(kind="q8_0", residual=3)], ids=["native", "q8_0"])
def test_prompts_of_different_length_do_not_matter_to_each_other(mode: str, policy: CachePolicy | None) -> None:
    model = scrambled(tiny(mode, null_attn=True))
    prompts = [[3, 1, 4, 1, 5, 9, 2], [2, 7], [1, 8, 2, 8, 1]]
    together, alone = Engine(model, policy, plan=CPU), [Engine(model, policy, plan=CPU) for _ in prompts]
    ids = torch.tensor([[5], [6], [0]])
    for step in range(4):
        logits = together.prefill(prompts) if step == 0 else together.feed(ids)[:, -1]
        for row, (engine, prompt) in enumerate(zip(alone, prompts, strict=True)):
            single = engine.prefill([prompt]) if step == 0 else engine.feed(ids[row : row + 1])[:, -1]
            torch.testing.assert_close(logits[row], single[0], rtol=0, atol=1e-9)


def test_a_prompt_that_begins_alike_is_read_from_there_on() -> None:
    model = scrambled(tiny("bottleneck"))
    engine = Engine(model, plan=CPU)
    engine.prefill([[1, 2, 3, 4, 5, 6]])
    pages = [page.codes.data_ptr() for page in engine.cache.layers[0]["k"].pages]
    logits = engine.prefill([[1, 2, 3, 4, 9]])
    assert [page.codes.data_ptr() for page in engine.cache.layers[0]["k"].pages] == pages
    assert engine.cache.length == 5 and engine.tokens == [[1, 2, 3, 4, 9]]
    torch.testing.assert_close(logits, model(torch.tensor([[1, 2, 3, 4, 9]]))[:, -1], rtol=0, atol=1e-10)
    engine.prefill([[1, 2, 3]])
    assert engine.cache.length == 3, "the last token is read again: its logits are asked for"
    engine.prefill([[7, 7]])
    assert engine.cache.length == 2


def test_chunks_of_a_prompt_do_not_matter() -> None:
    model = scrambled(tiny("decoupled", null_attn=True))
    policy = CachePolicy(kind="q4_0", residual=3)
    logits = [Engine(model, policy, plan=CPU).prefill([list(range(10))], chunk=chunk) for chunk in (1, 3, 10, 512)]
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0], rtol=0, atol=1e-9)


def test_beyond_the_block_size_it_warns_once_and_grows_the_table_once() -> None:
    model = scrambled(tiny("standard"))
    engine = Engine(model, plan=CPU)
    block_size = model.config.block_size
    engine.prefill([[1] * block_size])
    with pytest.warns(UserWarning, match=f"beyond {block_size} tokens"):
        engine.feed(torch.tensor([[1]]))
    assert model.rotary is not None
    table = model.rotary.cos
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(block_size - 1):
            engine.feed(torch.tensor([[1]]))
    assert model.rotary.cos is table, "one doubling is enough for twice the length"


@pytest.mark.parametrize(
    ("prompts", "words"), [([[]], "empty"), ([], "empty"), ([[1, 999]], "999"), ([[1], [-1]], "-1")]
)
def test_bad_prompts_are_sentences(prompts: list[list[int]], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Engine(scrambled(tiny("standard")), plan=CPU).prefill(prompts)


def test_a_snapshot_goes_on_where_it_was(tmp_path: Any) -> None:
    model = scrambled(tiny("gqa", null_attn=True))
    engine = Engine(model, CachePolicy(kind="q8_0", residual=2), plan=CPU)
    engine.prefill([[1, 2, 3, 4]])
    engine.save(tmp_path / "c.pt")
    other = Engine(model, plan=CPU)
    other.load(tmp_path / "c.pt")
    assert torch.equal(other.prefill([[1, 2, 3, 4, 5]]), engine.prefill([[1, 2, 3, 4, 5]]))
    with pytest.raises(UserError, match="another shape"):
        Engine(scrambled(tiny("bottleneck")), plan=CPU).load(tmp_path / "c.pt")


def test_many_continuations_of_one_prompt() -> None:
    model = scrambled(tiny("bottleneck", null_attn=True))
    engine = Engine(model, plan=CPU)
    engine.prefill([[1, 2, 3]])
    many = engine.fork([0, 0])
    logits = many.feed(torch.tensor([[4], [5]]))[:, -1]
    for row, last in enumerate((4, 5)):
        expected = model(torch.tensor([[1, 2, 3, last]]))[0, -1]
        torch.testing.assert_close(logits[row], expected, rtol=0, atol=1e-10)
    assert engine.cache.length == 3
