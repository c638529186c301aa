"""Policies as text: both directions are exact inverses, and a mistake is one sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck_core.errors import UserError
from bottleneck_core.memory import FORMATS, CachePolicy
from bottleneck_core.memory.policy_text import parse_policy, policy_label

TENSORS = st.sampled_from(("k", "v", "k_sem", "k_geo"))
KINDS = st.sampled_from(tuple(FORMATS))
POLICIES = st.builds(
    CachePolicy,
    kind=KINDS,
    qblock=st.integers(1, 256),
    residual=st.integers(0, 4096),
    kinds=st.dictionaries(TENSORS, KINDS),
    qblocks=st.dictionaries(TENSORS, st.integers(1, 256)),
    first_layers=st.integers(0, 3),
    last_layers=st.integers(0, 3),
    edge_kind=KINDS,
    layer_kinds=st.dictionaries(st.integers(0, 30), st.dictionaries(TENSORS, KINDS, min_size=1)),
    hadamard=st.booleans(),
)


@given(POLICIES)
def test_every_policy_comes_back_from_its_label(policy: CachePolicy) -> None:
    label = policy_label(policy)
    assert parse_policy(label) == policy
    assert policy_label(parse_policy(label)) == label


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("fp16", CachePolicy()),
        ("q8_0", CachePolicy(kind="q8_0")),
        ("k=q8_0,v=q4_0", CachePolicy(kinds={"k": "q8_0", "v": "q4_0"})),
        ("q4_0,residual=64,qblock=16", CachePolicy(kind="q4_0", residual=64, qblock=16)),
        (
            "q4_0,first=1,last=1,edge=fp16",
            CachePolicy(kind="q4_0", first_layers=1, last_layers=1, edge_kind="fp16"),
        ),
        ("nf4,hadamard", CachePolicy(kind="nf4", hadamard=True)),
        ("q4_0,k_geo=fp16,qblock_v=8", CachePolicy(kind="q4_0", kinds={"k_geo": "fp16"}, qblocks={"v": 8})),
        ("q8_0,k@3=fp32", CachePolicy(kind="q8_0", layer_kinds={3: {"k": "fp32"}})),
    ],
)
def test_spellings(text: str, policy: CachePolicy) -> None:
    assert parse_policy(text) == policy
    assert policy_label(policy) == text


def test_order_spaces_and_case_do_not_matter() -> None:
    assert policy_label(parse_policy(" hadamard , V = Q4_0, residual=0,k=q8_0 ")) == "k=q8_0,v=q4_0,residual=0,hadamard"
    assert parse_policy("q4_0,residual=128") == parse_policy("q4_0")


def test_q4_0_alone_keeps_its_rule_for_geometric_keys() -> None:
    assert parse_policy("q4_0").kind_of("k_geo") == "q8_0"
    assert parse_policy("k_sem=q4_0,k_geo=q4_0,v=q4_0").kind_of("k_geo") == "q4_0"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "without a kind"),
        ("q4_0,", "without a kind"),
        ("q9_0", "unknown kind 'q9_0'"),
        ("k=q9_0", "unknown kind 'q9_0'"),
        ("edge=", "without a kind"),
        ("w=q4_0", "unknown term 'w=q4_0'"),
        ("k@x=q4_0", "unknown term 'k@x=q4_0'"),
        ("q4_0,residual=-1", "whole number in 'residual=-1'"),
        ("q4_0,residual=many", "whole number in 'residual=many'"),
        ("q4_0,qblock=0", "qblock of a cache policy must be at least 1"),
        ("q4_0,q8_0", "'q8_0' where that was said before"),
        ("k=q4_0,k=q8_0", "'k=q8_0' where that was said before"),
        ("hadamard,hadamard", "'hadamard' where that was said before"),
    ],
)
def test_a_mistake_is_one_sentence(text: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        parse_policy(text)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_tensor_without_a_spelling_has_no_label() -> None:
    with pytest.raises(ValueError, match="not latent"):
        policy_label(CachePolicy(kinds={"latent": "q8_0"}))
