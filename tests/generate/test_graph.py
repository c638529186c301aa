"""Decoding by static steps against the eager engine: on the CPU as they are, on a GPU as captured graphs."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch

from bottleneck_core.errors import UserError
from bottleneck_core.generate import Engine, Plan, Sampler, Sampling, graph, static
from bottleneck_core.generate.graph import Graphs, capacity_for
from bottleneck_core.kernels import Tuning
from bottleneck_core.kvcache.tensor import CachedTensor
from bottleneck_core.memory import CachePolicy, kv_memory
from bottleneck_core.model import GPT
from tests.model.tiny_models import MODES, scrambled, tiny

pytest.importorskip("triton")

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
GRAPHS: Graphs = "auto" if ON_GPU else "steps"
PAGE = 16
PLAN = Plan(fused="triton2pass", tuning=Tuning(block_n=16, splits=2))  # few programs: the interpreter takes its time
GREEDY, DRAWN = Sampling(temperature=0), Sampling(temperature=3, top_k=15, top_p=0.95)
MIXED = {"k": "q8_0", "k_sem": "q4_0", "k_geo": "q8_0", "v": "nf4"}
POLICIES = {
    "native": None,
    "fp16": CachePolicy(kind="fp16"),
    "q8_0": CachePolicy(kind="q8_0", residual=0),
    "q4_0, window": CachePolicy(kind="q4_0", residual=5),
    "nf4, hadamard": CachePolicy(kind="nf4", residual=0, hadamard=True),
    "mixed": CachePolicy(kinds=MIXED, residual=3, hadamard=True),
    "edges, fp8": CachePolicy(kind="fp8", residual=4, first_layers=1, edge_kind="bf16"),
}
ONE = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7]]  # the 16th token and a new page come soon
THREE = [*ONE, [2, 7, 1, 8, 2, 8], [1, 4, 1, 4, 2, 1, 3, 5, 6]]

pytestmark = pytest.mark.filterwarnings("ignore:the text grows beyond:UserWarning")


def model_of(mode: str, dtype: torch.dtype = torch.float32, **changes: Any) -> GPT:
    return scrambled(tiny(mode, null_attn=True, **changes), dtype=dtype).to(DEVICE)


def pair(model: GPT, policy: CachePolicy | None, plan: Plan = PLAN) -> tuple[Engine, Engine]:
    """An eager engine and one of static steps."""
    return tuple(Engine(model, policy, plan=plan, page=PAGE, graphs=graphs) for graphs in ("none", GRAPHS))  # type: ignore[return-value]


def assert_same_state(ours: Engine, theirs: Engine) -> None:
    """Tokens, sizes and every stored row."""
    assert ours.tokens == theirs.tokens
    assert ours.cache.length == theirs.cache.length
    assert ours.cache.allocated_bytes == theirs.cache.allocated_bytes
    for mine, other in zip(tensors(ours), tensors(theirs), strict=True):
        if not mine.quantised:
            assert_near(*(tensor.read(0, ours.cache.length, torch.float32) for tensor in (mine, other)))
            continue
        pairs = zip(mine.pages, other.pages, strict=True)
        stored = torch.cat([(a.codes.view(torch.uint8) == b.codes.view(torch.uint8)).flatten() for a, b in pairs])
        assert stored.double().mean() > 0.995
        if mine.ring is not None and other.ring is not None:
            assert_near(mine.ring, other.ring)


def assert_near(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-3)  # a sum's last digit may lead to fp16's neighbour


def tensors(engine: Engine) -> list[CachedTensor]:
    return [tensor for layer in engine.cache.layers for tensor in layer.values()]


@pytest.mark.parametrize(("prompts", "sampling"), [(ONE, GREEDY), (THREE, DRAWN)], ids=["one, greedy", "three, drawn"])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("mode", MODES)
def test_static_steps_are_the_eager_engine(
    mode: str, policy: CachePolicy | None, prompts: list[list[int]], sampling: Sampling
) -> None:
    """Same seed, same tokens, same cache; requests of different length, over the end of a page."""
    if not ON_GPU and prompts is THREE and mode in ("standard", "bottleneck"):
        pytest.skip("gqa and decoupled attention have all that these have, and the interpreter takes its time")
    eager, ours = pair(model_of(mode, n_layer=2 if ON_GPU or prompts is ONE else 1), policy)
    wanted = list(eager.generate(prompts, 4, sampling=sampling, seed=2))
    assert list(ours.generate(prompts, 4, sampling=sampling, seed=2)) == wanted
    assert eager.graph_fallback and ours.graph_fallback is None and ours.fallback is None
    assert_same_state(ours, eager)
    predicted = kv_memory(ours.model.config, ours.cache.length, len(prompts), policy or CachePolicy(kind="fp32"), PAGE)
    assert ours.cache.allocated_bytes == predicted.bytes


@pytest.mark.parametrize("rope", [False, True])
def test_without_nulls_and_positions_and_in_one_pass(rope: bool) -> None:
    model = scrambled(tiny("decoupled", rope=rope, embed_dim=10, tie_qk=True), dtype=torch.float32).to(DEVICE)
    eager, ours = pair(model, CachePolicy(kind="q8_0", residual=2), Plan(fused="triton1pass"))
    assert list(ours.generate(THREE, 5, sampling=GREEDY)) == list(eager.generate(THREE, 5, sampling=GREEDY))
    assert ours.graph_fallback is None


def test_a_text_outgrows_its_capture_and_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    prepare = static.StaticCache.__init__

    def counted(self: Any, model: GPT, cache: Any, capacity: int) -> None:
        made.append(capacity)
        prepare(self, model, cache, capacity)

    monkeypatch.setattr(graph, "LEAST_GROWTH", 16)
    monkeypatch.setattr(graph, "SHARES", 3)
    monkeypatch.setattr(static, "SHARES", 3)
    monkeypatch.setattr(static.StaticCache, "__init__", counted)
    eager, ours = pair(model_of("bottleneck", n_layer=1), CachePolicy(kind="q4_0", residual=4))
    wanted = list(eager.generate(ONE, 24, sampling=DRAWN))
    assert list(ours.generate(ONE, 24, sampling=DRAWN)) == wanted
    assert made == [16, 32, 48]
    assert_same_state(ours, eager)


@pytest.mark.parametrize("tokens", [1, 100, 4095, 4096, 131_072, 131_073, 147_456, 10**6])
def test_a_capture_is_good_for_some_more_tokens(tokens: int) -> None:
    capacity = capacity_for(tokens)
    assert tokens < capacity <= tokens + max(4096, tokens // 8)


def test_a_filling_window_is_waited_for() -> None:
    eager, ours = pair(model_of("standard", n_layer=1), CachePolicy(kind="q8_0", residual=PAGE + 1))
    wanted = list(eager.generate(ONE, 7, sampling=DRAWN))
    filling = []
    for count, ids in enumerate(ours.generate(ONE, 7, sampling=DRAWN)):
        assert ids == wanted[count]
        filling.append(bool(ours.graph_fallback and "filling" in ours.graph_fallback))
    assert filling == [False, True, True, True, False, False, False], "the first comes from the prompt, of 14 tokens"
    assert_same_state(ours, eager)


def test_a_text_that_is_left_goes_on_as_if_it_had_not() -> None:
    """The step in flight leaves nothing behind, though its row has taken a slot of the window and a page."""
    eager, ours = pair(model_of("gqa"), CachePolicy(kind="q8_0", residual=6))
    for engine in (eager, ours):
        drawn = engine.generate(ONE, 20, sampling=GREEDY)
        text = [*ONE[0], *(next(drawn)[0] for _ in range(3))]
        drawn.close()  # type: ignore[attr-defined]
        assert engine.cache.length == len(ONE[0]) + 2 == PAGE, "the last token is not cached yet"
        assert engine.cache.allocated_bytes == kv_memory(engine.model.config, PAGE, 1, engine.policy, PAGE).bytes
        for tensor in tensors(engine):  # a slot that the step in flight has taken does not count as the old row's
            newest = max(PAGE - 6, engine.cache.ring_from)
            recent, stored = (read(newest, PAGE, torch.float32) for read in (tensor.read_recent, tensor.read))
            assert (recent - stored).norm() < 0.02 * stored.norm()
        following = list(engine.generate([text], 4, sampling=GREEDY))
        engine.cache.truncate(PAGE - 2)  # within the window
        engine.tokens = [engine.tokens[0][: PAGE - 2]]
        ours_then = list(engine.generate([text], 4, sampling=GREEDY))
        assert following and ours_then
        if engine is eager:
            wanted = following, ours_then
        else:
            assert (following, ours_then) == wanted
    assert_same_state(ours, eager)


def test_stop_tokens_end_a_text_one_step_late_unseen() -> None:
    eager, ours = pair(model_of("standard", n_layer=1), None)
    free = list(eager.generate(THREE, 8, sampling=GREEDY))
    stop = [int(free[2][0] or 0), int(free[3][1] or 0), int(free[1][2] or 0)]
    for engine in (eager, ours):
        engine.tokens = []
    wanted = list(eager.generate(THREE, 8, sampling=GREEDY, stop=stop))
    assert list(ours.generate(THREE, 8, sampling=GREEDY, stop=stop)) == wanted and len(wanted) < 8
    assert_same_state(ours, eager)


def test_a_fork_amid_a_text_disturbs_neither() -> None:
    """Pages are shared with the fork until one of the two writes, a static step included."""
    model, policy = model_of("bottleneck", n_layer=1), CachePolicy(kind="q8_0", residual=3)
    eager, ours = pair(model, policy)
    wanted = list(eager.generate(ONE, 6, sampling=GREEDY))
    forks = []
    for count, ids in enumerate(ours.generate(ONE, 6, sampling=GREEDY)):
        assert ids == wanted[count]
        if count in (1, 3):
            forks.append((ours.cache.fork(), list(ours.tokens[0]), count))
    assert_same_state(ours, eager)
    for cache, held, count in forks:
        other = Engine(model, policy, plan=PLAN, page=PAGE, graphs="none")
        other._set(cache)
        other.tokens = [held]
        idx = torch.tensor([[wanted[count][0]]], device=DEVICE)
        assert int(other.feed(idx)[0, -1].argmax()) == wanted[count + 1][0]
    fork = ours.cache.fork()
    before = fork.layers[0]["k"].read(0, fork.length, torch.float32)
    ours.cache.truncate(fork.length - 2)  # what is written now stands where the fork still reads
    list(ours.decode([7], Sampler(GREEDY, 0, 1), 2))
    assert ours.graph_fallback is None
    assert torch.equal(fork.layers[0]["k"].read(0, fork.length, torch.float32), before)


def test_another_plan_from_the_next_token_on() -> None:
    """Two plans in turn, and one that static steps cannot follow; after a change no step is begun ahead of its turn."""
    plans = [PLAN, Plan(fused="triton2pass", tuning=Tuning(block_n=16, splits=1)), Plan(fused="none")]
    eager, ours = pair(model_of("standard", n_layer=1), None)
    wanted = list(eager.generate(ONE, 15, sampling=DRAWN))
    turns = [0, 0, 0, 1, 0, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0]
    ahead, reasons = [], []
    for ids, expected, turn in zip(ours.generate(ONE, 15, sampling=DRAWN), wanted, turns, strict=True):
        assert ids == expected
        ahead.append(0 if ours._graphed is None else ours._graphed.in_flight)
        reasons.append(bool(ours.graph_fallback))
        ours.use(plans[turn])
    # The first, three of plan 0, the one in flight, each of two by itself, two of plan 1, the one in flight, two eager
    # ones, one by itself, plan 0 stays, the last.
    assert ahead == [0, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0]
    assert reasons == [False] * 10 + [True] * 2 + [False] * 3


def test_what_cannot_be_stored_ends_the_text_with_a_sentence() -> None:
    model = model_of("standard", n_layer=1)
    engine = Engine(model, CachePolicy(kind="fp16"), plan=PLAN, page=PAGE, graphs=GRAPHS)
    drawn = engine.generate(ONE, 9, sampling=GREEDY)
    assert next(drawn) and next(drawn)
    with torch.no_grad():
        model.blocks[0].attn.v_proj.weight.mul_(1e6)
    with warnings.catch_warnings(), pytest.raises(UserError, match="--kv-cache fp32"):
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, in the interpreter
        list(itertools.islice(drawn, 3))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"graphs": "none"}, "not asked"),
        ({"plan": Plan(fused="none")}, "no fused kernel"),
        ({"policy": CachePolicy(kind="q5_0", residual=0)}, "q5_0"),
        ({"dtype": torch.float64}, "float64"),
        ({"page": 24}, "page"),
        ({"policy": CachePolicy(kind="q8_0", residual=40)}, "filling"),
        ({"graphs": "auto"}, "CUDA device"),
        ({"graphs": "steps", "plan": Plan()}, "CUDA device"),
    ],
)
def test_what_no_graph_decodes_says_why(changes: dict[str, Any], word: str) -> None:
    if ON_GPU and word == "CUDA device":
        pytest.skip("there is one")
    given = {"graphs": GRAPHS, "plan": PLAN, "page": PAGE, **changes}
    model = model_of("standard", given.pop("dtype", torch.float32), n_layer=1)
    engine = Engine(model, given.pop("policy", None), **given)
    assert len(list(engine.generate(ONE, 2, sampling=GREEDY))) == 2
    assert engine.graph_fallback and word in engine.graph_fallback
