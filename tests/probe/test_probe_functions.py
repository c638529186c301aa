"""Single metric functions: bounds that hold for any attention, and the lists of layers and heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bottleneck_core.errors import UserError
from bottleneck_core.model.attention.base import Projected
from bottleneck_core.probe.attention import attend, pair_products, redundancy, row_metrics
from bottleneck_core.probe.selection import parse_selection
from bottleneck_core.probe.spectra import effective_rank, largest_by_squaring, singular_values, stable_rank


@st.composite
def projections(draw) -> Projected:
    """Random queries and keys of any shape, from even attention to one-hot and beyond exp's range."""
    G, repeats, T, K = (draw(st.integers(1, n)) for n in (3, 3, 9, 4))
    seed, strength = draw(st.integers(0, 2**32)), draw(st.sampled_from([0.0, 0.1, 2.0, 50.0, 1e4]))
    generator = torch.Generator().manual_seed(seed)
    q, k, v, null = (
        torch.randn(shape, generator=generator, dtype=torch.float64) * strength**0.5
        for shape in ((2, G * repeats, T, K), (2, G, T, K), (2, G, T, K), (G, K))
    )
    has_null = draw(st.booleans())
    sem_width = draw(st.integers(0, K - 1))
    return Projected(q, k, v, 1.0, null if has_null else None, null if has_null else None, sem_width)


@given(projections(), st.integers(1, 12), st.integers(0, 12), st.data())
@settings(max_examples=80, deadline=None)
def test_bounds_of_row_metrics(projected, topk, window, data):
    T = projected.q.shape[2]
    first = data.draw(st.integers(0, T - 1))
    rows = attend(projected, slice(0, 2), first, T)
    metrics = row_metrics(rows, topk=topk, local_window=window)
    slack = 1e-9
    total = rows.probs.sum(-1) + metrics["null_mass"]
    assert torch.allclose(total, torch.ones_like(total))
    for name, values in metrics.items():
        assert values.isfinite().all(), name
        assert (values >= -slack).all(), name
        if name.endswith("_mass") or name == "entropy_norm":
            assert (values <= 1 + slack).all(), name
    limit = torch.arange(first + 1, T + 1, dtype=torch.float64) + (projected.null_k is not None)
    assert (metrics["entropy"] <= limit.log() + slack).all()
    assert (metrics["distance"] <= torch.arange(first, T, dtype=torch.float64) + slack).all()
    assert (metrics["topk_mass"] >= (topk / limit).clamp(max=1) - slack).all()
    assert (metrics["local_mass"] <= 1 - metrics["null_mass"] + slack).all()
    wider = row_metrics(rows, topk=topk + 1, local_window=window + 1)
    assert (wider["topk_mass"] >= metrics["topk_mass"] - slack).all()
    assert (wider["local_mass"] >= metrics["local_mass"] - slack).all()


@given(projections(), st.data())
@settings(max_examples=50, deadline=None)
def test_rows_do_not_depend_on_the_chunk(projected, data):
    T = projected.q.shape[2]
    first = data.draw(st.integers(0, T - 1))
    stop = data.draw(st.integers(first + 1, T))
    whole, part = attend(projected, slice(0, 2), 0, T), attend(projected, slice(1, 2), first, stop)
    assert torch.allclose(part.probs, whole.probs[1:, :, first:stop, :stop])
    assert torch.allclose(part.entropy, whole.entropy[1:, :, first:stop], atol=1e-9)
    assert (whole.probs[:, :, first:stop, stop:] == 0).all()


@given(st.integers(0, 2**32), st.integers(1, 9), st.sampled_from([0.01, 1.0, 30.0]))
@settings(max_examples=80, deadline=None)
def test_bounds_of_ranks(seed, size, strength):
    generator = torch.Generator().manual_seed(seed)
    logits = strength * torch.randn(3, size, size, generator=generator, dtype=torch.float64)
    hidden = torch.ones(size, size, dtype=torch.bool).triu(1)
    maps = logits.masked_fill(hidden, -torch.inf).softmax(-1)
    values = singular_values(maps)
    ranks = effective_rank(values)
    assert (ranks >= 1 - 1e-9).all() and (ranks <= size + 1e-9).all()
    assert (values.diff(dim=-1) <= 0).all()
    stable = stable_rank(maps)
    assert (stable >= 1 - 1e-9).all() and (stable <= size + 1e-9).all()


def test_ranks_of_known_matrices():
    identity, rank_one = torch.eye(5), torch.outer(torch.arange(1.0, 6.0), torch.ones(5))
    broken = torch.full((5, 5), torch.nan)
    infinite = torch.eye(5).index_fill(0, torch.tensor([2]), torch.inf)
    values = singular_values(torch.stack([identity, rank_one, broken, infinite]))
    assert values.dtype == torch.float64
    assert torch.isnan(values).all(-1).tolist() == [False, False, True, True]
    np.testing.assert_allclose(effective_rank(values[:2]), [5, 1], rtol=1e-6)
    np.testing.assert_allclose(stable_rank(torch.diag(torch.tensor([2.0, 1.0, 1.0]))), 6 / 4)
    assert effective_rank(singular_values(torch.zeros(3, 3))).isnan() and stable_rank(torch.zeros(3, 3)).isnan()
    assert stable_rank(torch.stack([identity, broken, infinite])).isnan().tolist() == [False, True, True]


def test_small_singular_values_are_exact():
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.linalg.qr(torch.randn(20, 20, generator=generator, dtype=torch.float64)).Q for _ in range(2))
    expected = torch.logspace(0, -10, 20, dtype=torch.float64)  # a Gram matrix keeps them above 1e-8 only
    values = singular_values(one @ expected.diag() @ other)
    np.testing.assert_allclose(values, expected, rtol=1e-4)


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (40, 40)])
def test_stable_rank_keeps_its_accuracy_on_a_narrow_spectrum(shape):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64) * torch.logspace(-9, 0, shape[1])
    values = np.linalg.svd(weight.numpy(), compute_uv=False)
    np.testing.assert_allclose(stable_rank(weight), (values**2).sum() / values[0] ** 2, rtol=1e-12)


@given(projections())
@settings(max_examples=40, deadline=None)
def test_bounds_of_redundancy(projected):
    rows = attend(projected, slice(0, 2), 0, projected.q.shape[2])
    if rows.probs.shape[1] > 1 and rows.null is None:
        cosines = redundancy(pair_products(rows))
        assert (cosines >= -1e-9).all() and (cosines <= 1 + 1e-9).all()
    twins = rows.probs[:, :1].expand(-1, 3, -1, -1)
    if rows.null is None:
        same = redundancy(pair_products(type(rows)(0, twins, None, rows.entropy)))
        np.testing.assert_allclose(same, 1)


@pytest.mark.parametrize(
    ("chosen", "count", "expected"),
    [
        ("0,-1", 6, (0, 5)),
        ("0,-1", 1, (0,)),
        (" 3 , 1,-6,3", 6, (0, 1, 3)),
        ([2, -1], 4, (2, 3)),
        ("", 4, ()),
        ([], 4, ()),
    ],
)
def test_selection(chosen, count, expected):
    assert parse_selection(chosen, count, "layer") == expected


@pytest.mark.parametrize("chosen", ["6", "-7", "0,,1", "1.5", "0-2", "x", [6]])
def test_selection_refuses(chosen):
    with pytest.raises(UserError, match=r"^analysis layers .*"):
        parse_selection(chosen, 6, "layer")


@pytest.mark.parametrize("gap", [0.5, 1e-3, 1e-6, 0.0])
@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
def test_the_largest_eigenvalue_by_squaring_whatever_the_second_is(gap: float, scale: float) -> None:
    draw = torch.Generator().manual_seed(5)
    basis = torch.linalg.qr(torch.randn(3, 40, 40, dtype=torch.float64, generator=draw)).Q
    values = torch.cat((torch.tensor([1.0, 1.0 - gap]), torch.linspace(0, 0.9, 38))).double() * scale
    found = largest_by_squaring(basis @ torch.diag_embed(values.expand(3, -1)) @ basis.mT)
    np.testing.assert_allclose(found, scale, rtol=1e-6)


def test_the_largest_eigenvalue_of_nothing_is_no_number() -> None:
    assert largest_by_squaring(torch.zeros(4, 4, dtype=torch.float64)).isnan()
