"""Captured graphs, on a GPU: nothing waits, numbers are the eager step's, one capture serves many texts.

`test_graph` runs there as well, with captured graphs in place of bare steps.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from bottleneck_core.generate import Engine, Plan, Sampler, graph, static
from bottleneck_core.generate.graph import GraphedDecoder
from bottleneck_core.memory import CachePolicy
from bottleneck_core.model import build_model
from tests.generate.test_graph import DRAWN, GREEDY, ONE, PAGE, model_of, tensors
from tests.model.tiny_models import MODES, tiny

pytest.importorskip("triton")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
    pytest.mark.filterwarnings("ignore:the text grows beyond:UserWarning"),
]


@contextmanager
def no_waiting() -> Iterator[None]:
    """An error where the host waits for the device without an event."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that this mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_launching_never_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for a new page either, nor for new numbers."""
    monkeypatch.setattr(graph, "SHARES", 20)
    monkeypatch.setattr(static, "SHARES", 20)
    engine = Engine(model_of("decoupled"), CachePolicy(kind="q4_0", residual=8), plan=Plan(), page=PAGE)
    sampler = Sampler(DRAWN, 0, 1)
    engine.prefill(ONE)
    more = engine.decode([1], sampler, 3 * PAGE)
    next(more)
    with no_waiting():
        assert len(list(more)) == 3 * PAGE - 1
    assert engine.graph_fallback is None


@pytest.mark.parametrize("kind", ["fp16", "q4_0"])
@pytest.mark.parametrize("mode", MODES)
def test_a_replayed_graph_takes_the_eager_step_s_numbers(mode: str, kind: str) -> None:
    """bf16, a model of size tiny's layers, default tuning, 3,000 tokens: logits of the step are not kept, so the rows
    that it stores are compared, of every layer."""
    shape = {"standard": {}, "gqa": {"attn_dim": 512, "kv_head": 2}, "bottleneck": {"attn_dim": 96}}
    dims = shape.get(mode, {"sem_dim": 32, "geo_dim": 64, "attn_dim": 96})
    config = tiny(mode, n_layer=3, d_model=512, n_head=8, block_size=4096, embed_dim=512, **{"kv_head": None, **dims})
    model = build_model(config, device="cuda", dtype=torch.bfloat16)
    prompt = torch.randint(0, 23, (2, 3000), generator=torch.Generator().manual_seed(0)).tolist()
    rows = {}
    for graphs in ("none", "auto"):
        engine = Engine(model, CachePolicy(kind=kind), graphs=graphs)
        engine.prefill(prompt)
        for ids in ([5, 6], [7, 8], [9, 10]):  # given, not drawn: a near tie must not decide what is compared
            next(engine.decode(ids, Sampler(GREEDY, 0, 2), 1))
        assert (engine.graph_fallback is None) == (graphs == "auto")
        assert engine.cache.length == 3003
        rows[graphs] = [tensor.read(2990, 3003, torch.float32) for tensor in tensors(engine)]
    for ours, theirs in zip(rows["auto"], rows["none"], strict=True):
        assert (ours - theirs).norm() <= 0.02 * theirs.norm()


def test_one_graph_serves_many_texts_of_a_cache() -> None:
    engine = Engine(model_of("standard"), CachePolicy(kind="q8_0", residual=4), plan=Plan(), page=PAGE)
    first = list(engine.generate(ONE, 6, sampling=GREEDY))
    decoder = engine._graphed
    assert isinstance(decoder, GraphedDecoder) and len(decoder._steps) == 1
    assert list(engine.generate(ONE, 6, sampling=GREEDY)) == first
    assert engine._graphed is decoder and len(decoder._steps) == 1
    list(engine.generate(ONE, 6, sampling=DRAWN))
    assert len(decoder._steps) == 2
