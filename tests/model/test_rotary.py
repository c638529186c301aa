"""Rotary embedding: what it computes, its table's precision, growth and life through casts and moves."""

from __future__ import annotations

import pytest
import torch

from bottleneck_core.model.rope import Rotary


def float64_rotary(dim: int, positions: int = 64, base: float = 10000.0) -> Rotary:
    return Rotary(dim, base, positions).double()


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dim", [2, 6, 12])
def test_halves_are_turned_as_complex_numbers(dim: int) -> None:
    x = random(2, 3, 7, dim)
    position = torch.arange(5, 12, dtype=torch.float64)
    frequency = 500.0 ** (-2.0 / dim * torch.arange(dim // 2, dtype=torch.float64))
    turned = torch.complex(*x.chunk(2, dim=-1)) * torch.exp(1j * position[:, None] * frequency)
    expected = torch.cat((turned.real, turned.imag), dim=-1)
    torch.testing.assert_close(float64_rotary(dim, base=500.0)(x, start=5), expected)


def test_products_depend_on_the_distance_alone() -> None:
    rotary, q, k = float64_rotary(8), random(1, 1, 1, 8), random(1, 1, 1, 8, seed=1)

    def product(query_position: int, key_position: int) -> float:
        return (rotary(q, query_position) * rotary(k, key_position)).sum().item()

    assert product(9, 4) == pytest.approx(product(50, 45), abs=1e-12)
    assert product(9, 4) != pytest.approx(product(9, 5), abs=1e-3)
    assert product(9, 4) != pytest.approx(product(4, 9), abs=1e-3)  # direction counts


def test_the_table_grows_by_doubling_to_the_same_values() -> None:
    grown, whole = Rotary(12, positions=10), Rotary(12, positions=80)
    x = random(1, 2, 50, 12).float()
    assert torch.equal(grown(x, start=3), whole(x, start=3))
    assert grown.cos.shape == (80, 6)
    assert torch.equal(grown.cos, whole.cos) and torch.equal(grown.sin, whole.sin)


def test_reserved_positions_need_no_growth() -> None:
    rotary = Rotary(4, positions=8)
    rotary.reserve(100)
    table = rotary.cos
    rotary(random(1, 1, 100, 4))
    assert table.size(0) == 128 and rotary.cos is table


def test_float32_table_is_exact_far_out() -> None:
    rotary = Rotary(64, positions=131072)
    frequency = 10000.0 ** (-torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    assert rotary.cos.dtype == torch.float32
    torch.testing.assert_close(rotary.cos[131071].double(), (131071 * frequency).cos(), rtol=0, atol=1e-7)


def test_casts_recompute_the_table() -> None:
    rotary = Rotary(8, positions=32)
    exact = Rotary(8, positions=32).double()
    assert exact.cos.dtype == torch.float64
    assert (exact.cos.float().double() - exact.cos).abs().max() > 0  # not a widened float32 table
    assert torch.equal(rotary.bfloat16().cos, exact.cos.float())
    assert torch.equal(rotary.double().sin, exact.sin)
    with torch.device("meta"):
        built_on_meta = Rotary(8, positions=32)
    assert torch.equal(built_on_meta.to_empty(device="cpu").cos, exact.cos.float())


def test_bf16_input_is_turned_in_float32() -> None:
    rotary, x = Rotary(8), random(1, 2, 20, 8).bfloat16()
    assert torch.equal(rotary(x, 900), rotary(x.float(), 900).bfloat16())


def test_growth_in_inference_mode_leaves_training_possible() -> None:
    rotary = Rotary(4, positions=8)
    with torch.inference_mode():
        rotary(random(1, 1, 20, 4).float())
    x = random(1, 1, 20, 4).float().requires_grad_()
    rotary(x).square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * x)  # a rotation keeps lengths


@pytest.mark.parametrize("dim", [2, 4, 12])
def test_output_keeps_a_heads_values_side_by_side(dim: int) -> None:
    """Fused kernels want stride 1 along the head dim; it was lost where halves have one column."""
    x = random(2, 20, 8 * dim).view(2, 20, 8, dim).transpose(1, 2)
    assert float64_rotary(dim)(x).stride(-1) == 1


def test_odd_head_dim_is_refused() -> None:
    with pytest.raises(ValueError, match="must be even, got 3"):
        Rotary(3)
