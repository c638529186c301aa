"""The derivation with a pocket calculator: every line that ends in a sum is worked out again."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from bottleneck_core import sizing
from bottleneck_core.config import RunConfig
from bottleneck_core.memory import kv_memory
from bottleneck_core.memory.zoo import zoo

OURS = RunConfig.resolve(size="tiny", exp="paper_decoupled", kv_cache="q4_0", kv_residual=7)
ROWS = re.compile(
    r": (a row of|keeps|\d[\d,]* tokens in pages)|^compression| \(default of "
)  # no sum, or another test's


def check(lines: tuple[str, ...]) -> int:
    """Works out what stands before each ` = `; how many lines that were."""
    sums = [line.rpartition(" = ") for line in lines if not ROWS.search(line)]
    for text, _, stated in sums:
        plain = re.sub(r"\([a-z]\w*\)", "", text.rpartition(": ")[2]).replace(" x ", " * ")  # (bf16)
        numbers = re.sub(r"[a-z]\w*|\bB\b|,", "", plain)
        assert round(eval(numbers)) == int(re.match(r"-?[\d,]+", stated)[0].replace(",", "")), text  # pyright: ignore
    return len(sums)


@given(
    name=st.sampled_from(sorted(zoo())),
    context=st.integers(1, 300_000),
    batch=st.integers(1, 4),
    kind=st.sampled_from(["fp16", "q8_0", "q4_0", "int8_per_token_head"]),
    residual=st.sampled_from([0, 64]),
    edge=st.sampled_from([0, 1]),
    page=st.sampled_from([1, 16]),
)
def test_public_models(name, context, batch, kind, residual, edge, page) -> None:
    policy = {"kv_cache": kind, "kv_residual": residual, "kv_first_layers": edge}
    size = kv_memory(zoo()[name].config, context, batch, policy, page)
    assert check(size.derivation) >= 7
    assert f"= {size.bytes_per_token:,} B" in next(x for x in size.derivation if x.startswith("first token"))
    assert f"= {size.slope_bytes_per_token:,} B" in next(x for x in size.derivation if x.startswith("one more"))


@given(context=st.integers(1, 3000), batch=st.integers(1, 4), page=st.sampled_from([1, 16, 256]))
def test_our_models(context, batch, page) -> None:
    size = kv_memory(OURS, context, batch, page=page)
    assert check(size.derivation) == 12
    assert all(f"= {value:,} B" in "\n".join(size.derivation) for value in size.totals.values())


def test_a_budget() -> None:
    lines = sizing.budget_of("llama-3.1-70b", gpu="h200").lines()
    assert check(lines) == 3
    assert lines[0] == "weights: 70,553,706,496 x 16 bits (bf16) / 8 = 141,107,412,992 B"
    assert lines[-1].endswith("= -6,501,816,730 B, nothing")
