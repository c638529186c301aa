"""The KV calculator without its page: what is asked and its address, what is answered and measured."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

import bottleneck_core as bc
from bottleneck_core.errors import UserError
from bottleneck_core.memory import FORMATS, GPUS, WEIGHT_BITS, CachePolicy, layers_of
from dashboard.kv import config as kv_config
from dashboard.kv import measure as kv_measure
from dashboard.kv.models import model_behind
from dashboard.kv.result import CONTEXTS, as_csv, as_json, fit_of, fit_sentence, part_rows, result_of, total_rows
from dashboard.kv.scenario import FIRST, TENSORS, TOTALS, Scenario, Source, View, decode, encode

from .kv_cases import DECOUPLED, LLAMA, TINY

# The address

kinds = some.sampled_from(list(FORMATS))
policies = some.builds(
    CachePolicy,
    kind=kinds,
    qblock=some.integers(1, 65_536),
    residual=some.integers(0, 10**7),
    kinds=some.dictionaries(some.sampled_from(TENSORS), kinds),
    qblocks=some.dictionaries(some.sampled_from(TENSORS), some.integers(1, 65_536)),
    first_layers=some.integers(0, 1000),
    last_layers=some.integers(0, 1000),
    edge_kind=kinds,
    layer_kinds=some.dictionaries(
        some.integers(0, 9999), some.dictionaries(some.sampled_from(TENSORS), kinds, min_size=1), max_size=3
    ),
)
sources = some.one_of(
    some.builds(Source, kind=some.sampled_from(["preset", "model"]), name=some.text(max_size=20)),
    some.builds(Source, kind=some.just("run"), name=some.text(max_size=20), root=some.none() | some.text(max_size=9)),
    some.builds(
        Source,
        kind=some.just("config"),
        name=some.sampled_from(["", kv_config.read_config(json.dumps(LLAMA))]),
    ),
)
scenarios = some.builds(
    Scenario, source=sources, policy=some.none() | policies, params=some.none() | some.integers(1, 10**15)
)
views = some.builds(
    View,
    scenarios=some.lists(scenarios, min_size=1, max_size=4).map(tuple),
    context=some.integers(1, 10**7),
    batch=some.integers(1, 100_000),
    card=some.sampled_from([*GPUS, "80GiB"]),
    weights=some.sampled_from(list(WEIGHT_BITS)),
    activations=some.integers(0, 2**40),
    reserve=some.integers(0, 99).map(lambda percent: percent / 100),
    fits=some.sampled_from(TOTALS),
    by=some.sampled_from(["tensors", "layers"]),
    shares=some.booleans(),
)


@given(views)
def test_an_address_means_the_view_that_it_was_written_for(view):
    assert decode(encode(view)) == (view, [])


@given(
    some.dictionaries(
        some.sampled_from([*encode(FIRST), "a.k", "a.model", "a.config", "a.layers", "reserve"]), some.text()
    )
)
def test_no_address_is_too_strange(query):
    view, problems = decode(query)
    assert view.scenarios and all(isinstance(sentence, str) for sentence in problems)


def test_addresses_are_short_and_readable():
    policy = CachePolicy(kinds={"k": "q8_0", "v": "q4_0"}, residual=64)
    view = replace(FIRST, scenarios=(Scenario(source=DECOUPLED), Scenario(source=TINY, policy=policy)), batch=4)
    assert encode(view) == {
        "context": "128000",
        "batch": "4",
        "a.preset": "tiny.paper_decoupled",
        "b.preset": "tiny.paper_bottleneck",
        "b.cache": "fp16",
        "b.k": "q8_0",
        "b.v": "q4_0",
        "b.residual": "64",
    }


def test_what_makes_no_sense_is_left_out_and_said():
    view, problems = decode({"context": "0", "batch": "x", "a.model": "gemma-3-27b", "a.k": "q9", "a.layers": "k"})
    assert (view.context, view.batch) == (128_000, 1)
    assert view.scenarios[0].source == Source(kind="model", name="gemma-3-27b")
    assert sorted(problem.split()[0].split("=")[0] for problem in problems) == ["a.k", "a.layers", "batch", "context"]


def test_public_models_have_no_residual_unless_said():
    for query, residual in (({"a.model": "gemma-3-27b"}, 0), ({"a.preset": "tiny.paper_gqa"}, 128)):
        policy = decode(query | {"a.cache": "q8_0"})[0].scenarios[0].policy
        assert policy is not None and policy.residual == residual


# Configurations from elsewhere


def test_only_the_fields_that_matter_are_kept():
    kept = json.loads(kv_config.read_config(json.dumps(LLAMA | {"_name_or_path": "x", "eos_token_id": [1, 2]})))
    assert set(kept) == set(LLAMA) - {"architectures", "vocab_size", "rope_theta"}
    assert layers_of(kept) == layers_of(LLAMA)


def test_one_of_our_configurations_keeps_what_its_weights_are_counted_from():
    config = bc.RunConfig.resolve(size="tiny", exp="paper_bottleneck", kv_cache="q8_0").model_dump(mode="json")
    source = Source(kind="config", name=kv_config.read_config(json.dumps(config | {"vocab_size": 50_257})))
    model = model_behind(source)
    assert model.own.kind == "q8_0" and model.params == 45_800_112
    assert "optimizer" not in source.name


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "this is no JSON"),
        ("{'a': 1}", "this is no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "one JSON object"),
        ("{}", "model_type"),
        ('{"model_type": "nobody"}', "unknown architecture nobody"),
        ('{"model_type": "llama", "num_hidden_layers": NaN}', "NaN is no JSON number"),
        (json.dumps(LLAMA | {"num_hidden_layers": 10**9}), "num_hidden_layers of the configuration is too large"),
        (json.dumps(LLAMA | {"hidden_size": 10**300}), "hidden_size of the configuration is too large"),
        (json.dumps(LLAMA | {"num_hidden_layers": "32"}), "must be a whole number"),
        (json.dumps(LLAMA | {"model_type": {}}), "wrong type"),
        ("{" + " " * kv_config.MOST_CHARACTERS + "}", "are no config.json"),
    ],
)
def test_what_is_no_configuration_is_one_sentence(text, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        kv_config.read_config(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize(
    "packed", ["?", "abcd", "eNoDAA", kv_config.pack_config("[]" * 10), kv_config.pack_config(" " * 10**7)]
)
def test_a_damaged_link_is_one_sentence(packed):
    with pytest.raises(UserError):
        kv_config.unpack_config(packed)


# Answers


@pytest.mark.parametrize(
    "source", [TINY, DECOUPLED, Source(kind="model", name="gemma-3-27b"), Source(kind="model", name="jamba-v0.1")]
)
@pytest.mark.parametrize("policy", [None, CachePolicy(kind="q8_0", residual=100, first_layers=1)])
def test_answers_are_those_of_the_library(source, policy):
    view = replace(FIRST, context=5000, batch=3)
    model = model_behind(source)
    result = result_of("a", model, policy or model.own, view)
    size = bc.kv_memory(model.config, 5000, 3, policy)
    assert result.size == size
    assert sum(part.bytes for part in result.tensors) == sum(part.bytes for part in result.layer_types) == size.bytes
    assert sum(part.layers for part in result.layer_types) == len(model.layers.layers)
    for context, length in list(zip(result.contexts, result.curve, strict=True))[::9]:
        assert length == bc.kv_memory(model.config, context, 3, policy).bytes


def test_the_curve_is_exact_between_its_points():
    model = model_behind(Source(kind="model", name="gemma-3-27b"))
    result = result_of("a", model, model.own, FIRST)
    assert 1024 in result.contexts  # the window's end
    points = list(zip(result.contexts, result.curve, strict=True))
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (x0 + x1) // 2
        assert bc.kv_memory(model.config, middle).bytes == y0 + (y1 - y0) * (middle - x0) // (x1 - x0)


def test_contexts_go_from_1_to_10_million_in_logarithmic_steps():
    assert (CONTEXTS[0], CONTEXTS[-1]) == (1, 10_000_000) and {4000, 32_000, 128_000, 1_000_000} <= set(CONTEXTS)
    assert all(after / before <= 2 for before, after in pairwise(CONTEXTS))


def test_what_fits_a_card():
    view = replace(FIRST, card="80GiB", activations=0, reserve=0.0)
    model = model_behind(TINY)
    fit = fit_of(result_of("a", model, model.own, view), view, None)
    assert fit.tokens == bc.longest_context(model.config, fit.budget) == (80 * 2**30 - 2 * 45_800_112) // 2304
    assert (fit.requests, fit.budget.weights) == (290, 2 * 45_800_112)
    assert fit_sentence(fit, view) == (
        "On a card of 80GiB, weights taken off: **37.2M tokens** at batch 1; **batch 290** at 128,000."
    )
    view = replace(view, card="T4")
    huge = result_of("a", model_behind(Source(kind="model", name="deepseek-v3")), CachePolicy(residual=0), view)
    assert "nothing is left: the weights take 1.22 TiB" in fit_sentence(fit_of(huge, view, None), view)


def test_titles_say_the_formats_that_are_not_fp16():
    model = model_behind(DECOUPLED)
    for policy, title in (
        (CachePolicy(), "B tiny decoupled"),
        (CachePolicy(kind="q8_0"), "B tiny decoupled q8_0"),
        (CachePolicy(kind="q4_0"), "B tiny decoupled q4_0/q8_0"),
        (CachePolicy(kinds={"v": "q4_0"}), "B tiny decoupled fp16/q4_0"),
    ):
        assert result_of("b", model, policy, FIRST).title == title


def test_exports_hold_exact_numbers():
    models = [model_behind(source) for source in (TINY, Source(kind="model", name="gemma-3-27b"))]
    results = [result_of(letter, model, model.own, FIRST) for letter, model in zip("ab", models, strict=True)]
    rows = list(csv.reader(io.StringIO(as_csv(results))))
    assert rows[0] == ["context", "A tiny bottleneck (bytes)", "B gemma-3-27b (bytes)"]
    assert ["128000", "294912000", str(results[1].size.bytes)] in rows and len(rows) > 60
    document = json.loads(as_json(results, {}, encode(FIRST)))
    assert document["query"]["a.preset"] == "tiny.paper_bottleneck"
    assert document["scenarios"][0]["bytes"] == 294_912_000
    assert {row["total"] for row in total_rows(results)} >= {
        "logical",
        "engine reserved",
        "conservative",
        "reserved by vllm",
    }
    by_type = [row["layer type"] for row in part_rows(results, "layers")]
    assert by_type == ["full", "sliding 1,024", "full"]


# A real allocation


@pytest.mark.e2e
@pytest.mark.parametrize(
    "policy",
    [
        CachePolicy(),
        CachePolicy(kind="q4_0", last_layers=1, layer_kinds={0: {"v": "nf4"}}),
        CachePolicy(kind="q5_0", qblock=20),
    ],
)
def test_allocations_agree(policy):
    model = model_behind(Source(kind="preset", name="nano.paper_decoupled"))
    request = kv_measure.request_of(model, policy, 3000, 2)
    assert kv_measure.measure(request) == bc.kv_memory(model.config, 3000, 2, policy).bytes
    assert request in kv_measure.measured()


def test_what_cannot_be_allocated_says_why():
    model = model_behind(TINY)
    assert kv_measure.unmeasurable(model, model.own, 1000) == ""
    assert "512 MiB" in kv_measure.unmeasurable(model, model.own, 2**30)
    assert "q4_1" in kv_measure.unmeasurable(model, CachePolicy(kinds={"v": "q4_1"}), 1000)
    assert "our models only" in kv_measure.unmeasurable(
        model_behind(Source(kind="model", name="gemma-3-27b")), model.own, 1
    )


def test_a_failed_allocation_is_one_sentence(monkeypatch):
    monkeypatch.setattr(kv_measure, "_COMMAND", [sys.executable, "-c", "raise SystemExit('no memory')"])
    with pytest.raises(UserError, match="the allocation failed: no memory"):
        kv_measure.measure("{}")
