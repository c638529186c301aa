"""The trainer's parts on their own: schedule, optimisers, guards, runtime choice, live views."""

from __future__ import annotations

import copy
import itertools
import os
import signal
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bottleneck_core.config import RunConfig
from bottleneck_core.errors import UserError
from bottleneck_core.model import build_model
from bottleneck_core.train.guard import FiniteGuard, NonFinite, StopRequest
from bottleneck_core.train.live import Lines, sparkline
from bottleneck_core.train.muon import BatchedMuon
from bottleneck_core.train.optimizer import Optimizers, build_optimizer
from bottleneck_core.train.runtime import Runtime
from bottleneck_core.train.schedule import learning_rate

NO_SCALER = torch.amp.GradScaler("cpu", enabled=False)


def config(**flags: Any) -> RunConfig:
    small: dict[str, Any] = dict(
        layers=2, d_model=32, n_head=2, d_ff=48, attn_dim=16, embed_dim=32, block=16, vocab_size=50
    )
    return RunConfig.resolve(**(small | flags))


def test_constant_schedule_is_constant() -> None:
    c = config(lr=1e-3, steps=10)
    assert {learning_rate(c, step) for step in range(10)} == {1e-3}


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_schedules_warm_up_peak_and_end_at_min_lr(schedule: str) -> None:
    c = config(lr=1e-3, min_lr=1e-4, steps=100, warmup_steps=10, lr_schedule=schedule)
    rates = [learning_rate(c, step) for step in range(100)]
    assert rates[:10] == pytest.approx([1e-4 * (i + 1) for i in range(10)])
    assert rates[10] == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-4)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    if schedule == "wsd":
        assert rates[79] == 1e-3 > rates[81]
    else:
        assert rates[54] == pytest.approx((1e-3 + 1e-4) / 2, rel=0.02)


@given(st.sampled_from(["constant", "cosine", "wsd"]), st.integers(0, 60), st.integers(1, 60), st.integers(0, 80))
def test_rate_stays_between_zero_and_lr(schedule: str, warmup: int, steps: int, step: int) -> None:
    c = config(lr=1.0, min_lr=0.1, lr_schedule=schedule, warmup_steps=warmup, steps=steps)
    assert 0 < learning_rate(c, step) <= 1.0


def test_adamw_is_the_papers_recipe_by_hand() -> None:
    c = config(lr=1e-2, weight_decay=0.1)
    model = build_model(c, dtype=torch.float64)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, c)
    optimizer.set_lr(1e-2)
    idx = torch.arange(32).reshape(2, 16)
    model(idx, idx).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    optimizer.step(NO_SCALER)
    for name, parameter in model.named_parameters():
        g = gradients[name]
        # first step: both moments are bias-corrected to g and g^2; decay applies to every parameter
        expected = before[name] * (1 - 1e-2 * 0.1) - 1e-2 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-6, atol=1e-9)


def test_muon_takes_the_blocks_matrices_only() -> None:
    model = build_model(config(optimizer="muon", null_attn=True))
    muon, adamw = build_optimizer(model, config(optimizer="muon")).parts
    in_muon = {id(p) for group in muon.param_groups for p in group["params"]}
    in_adamw = {id(p) for group in adamw.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        is_hidden_matrix = name.startswith("blocks.") and parameter.ndim == 2 and name.endswith("weight")
        assert (id(parameter) in in_muon) == is_hidden_matrix, name
        assert (id(parameter) in in_adamw) != is_hidden_matrix, name


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_optimizer_state_goes_on_exactly_after_loading(name: str) -> None:
    c = config(optimizer=name)
    model, idx = build_model(c), torch.arange(32).reshape(2, 16)
    optimizer = build_optimizer(model, c)

    def step(model: torch.nn.Module, optimizer: Optimizers) -> None:
        model(idx, idx).backward()
        optimizer.step(NO_SCALER)
        optimizer.zero_grad()

    for _ in range(3):
        step(model, optimizer)
    twin = build_model(c, seed=99)
    twin.load_state_dict(model.state_dict())
    other = build_optimizer(twin, c)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # a file would not share tensors
    step(model, optimizer)
    step(twin, other)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_guard_names_the_step_and_lags_only_as_far_as_told() -> None:
    good, bad = torch.tensor(1.0), torch.tensor(float("inf"))
    with pytest.raises(NonFinite, match="gradient norm is not finite at step 3"):
        FiniteGuard(lag=0, check_norm=True).watch(3, good, bad)
    lagging = FiniteGuard(lag=1, check_norm=True)
    lagging.watch(0, bad, good)
    with pytest.raises(NonFinite, match="loss is not finite at step 0"):
        lagging.settle()
    FiniteGuard(lag=0, check_norm=False).watch(0, good, bad)  # fp16: the scaler skips overflown steps


def test_signals_are_read_and_handlers_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest(None) as stop:
        assert stop.code == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason(stop.code) == "sigterm"
    assert signal.getsignal(signal.SIGTERM) is before


def test_second_ctrl_c_ends_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest(None):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_time_limit() -> None:
    with StopRequest(1e-9) as stop:
        assert stop.reason(stop.code) == "max_minutes"


def test_speed_auto_leaves_the_cpu_in_float32() -> None:
    runtime = Runtime.choose(config(device="cpu"))
    assert (runtime.amp_dtype, runtime.compile_mode) == (None, None)
    assert Runtime.choose(config(device="cpu", amp=True)).amp_dtype == torch.bfloat16


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "cuda:x"])
def test_absent_device_is_a_sentence(device: str) -> None:
    with pytest.raises(UserError, match=f"--device {device}"):
        Runtime.choose(config(device=device))


def test_lines_and_sparkline(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(steps=10)
    lines.event("train", 0, {"loss": 5.0, "tok_s": 1000.0})
    lines.event("eval", 5, {"val_loss": 4.0, "val_ppl": 54.6})
    assert capsys.readouterr().out.splitlines() == [
        "step 0/10  loss 5.0000  1,000 tok/s",
        "step 5/10  validation loss 4.0000  perplexity 54.60",
    ]
    assert sparkline([1.0, 2.0, 3.0, float("nan")]) == "▁▅█"
    assert len(sparkline(list(map(float, range(1000))))) <= 60


@pytest.mark.parametrize("lr", [1e-2, torch.tensor(1e-2)])
def test_muon_by_batches_is_torchs_muon(lr: float | torch.Tensor) -> None:
    """Tall, wide and square matrices, several of a shape; moved alike to the rounding of bf16."""
    draw = torch.Generator().manual_seed(3)
    shapes = [(12, 8), (8, 12), (12, 8), (8, 8), (12, 8)]
    start = [torch.randn(shape, generator=draw) for shape in shapes]
    options = {"lr": lr, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    both = []
    for kind in (torch.optim.Muon, BatchedMuon):
        parameters = [torch.nn.Parameter(x.clone()) for x in start]
        optimizer, again = kind(parameters, **options), torch.Generator().manual_seed(4)
        for _ in range(4):
            for p in parameters:
                p.grad = torch.randn(p.shape, generator=again)
            optimizer.step()
        both.append((parameters, optimizer))
    (theirs, _), (ours, optimizer) = both
    for x, expected, found in zip(start, theirs, ours, strict=True):
        assert (found - expected).norm() < 1e-2 * (expected - x).norm()
    assert set(optimizer.state[ours[0]]) == {"momentum_buffer"}
