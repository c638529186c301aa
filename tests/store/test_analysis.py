"""The analysis file: what is written is what is read, row by row, and errors are sentences."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from analysis_rows import ATTN, CHOSEN, HEADS, LAYERS, WEIGHTS, T, assert_holds, create, row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bottleneck_core.store.analysis import AnalysisError, AnalysisFile, AnalysisWriter
from bottleneck_core.store.analysis_layout import text_of
from bottleneck_core.store.metrics import METRICS


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "analysis.h5"
    with create(path) as writer:
        assert_holds(path, [])
        for step in (0, 100, 250):
            writer.append(step, **row(step))
        assert_holds(path, [0, 100, 250])  # while this very process has it open for writing
    assert_holds(path, [0, 100, 250])

    file = AnalysisFile.open(path)
    assert file.attn_metrics == ["entropy", "erank"]  # in the order of METRICS
    assert file.weight_metrics == WEIGHTS
    assert file.maps() == [(0, 1), (2, 3)]
    assert file.score_parts == ["sem", "geo"]
    assert np.isnan(file.attn("erank")).sum() == 3 * (LAYERS * HEADS - 2)
    tokens = file.probe_tokens
    assert tokens is not None and tokens.tolist() == np.arange(2 * T).reshape(2, T).tolist()
    assert file.attn("entropy").dtype == file.map(0, 1).dtype == np.float32
    np.testing.assert_array_equal(file.map(0, 1), file.map(0, 1, step=2))
    np.testing.assert_array_equal(file.map(0, 1, step=-3), row(0)["maps"][0, 1])


def test_layout_on_disk(tmp_path: Path) -> None:
    """Names, shapes, types and attributes, as other programs find them."""
    path = tmp_path / "analysis.h5"
    with create(path) as writer:
        writer.append(7, **row(7))
    with h5py.File(path) as file:
        found: dict[str, tuple[tuple[int, ...], str]] = {}
        file.visititems(
            lambda name, item: found.update(
                {name: (item.shape, str(item.dtype))} if isinstance(item, h5py.Dataset) else {}
            )
        )
        expected: dict[str, tuple[tuple[int, ...], str]] = {
            "steps": ((1,), "int64"),
            "probe_tokens": ((2, T), "int32"),
            **{f"attn/{name}": ((1, LAYERS, HEADS), "float32") for name in ATTN},
            **{f"weights/{name}": ((1, LAYERS), "float32") for name in WEIGHTS},
        }
        for head in ("L0/H1", "L2/H3"):
            expected[f"svd/{head}"] = ((1, T), "float32")
            expected |= {f"{group}/{head}": ((1, T, T), "float16") for group in ("maps", "sem_scores", "geo_scores")}
        assert found == expected
        assert file.attrs["schema_version"] == 1
        assert file.attrs["analysis_topk"] == 8
        assert json.loads(text_of(file.attrs["config"])) == {"d_model": 128, "name": "größe"}
        for name in ATTN:
            attrs = file[f"attn/{name}"].attrs
            assert text_of(attrs["definition"]) == METRICS[name].definition
            assert text_of(attrs["unit"]) == METRICS[name].unit
        maps = file["maps/L0/H1"]
        assert isinstance(maps, h5py.Dataset)
        assert maps.compression is not None and maps.maxshape == (None, T, T)


def test_definitions_come_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "analysis.h5"
    create(path).close()
    with h5py.File(path, "r+") as file:
        file["attn/entropy"].attrs["definition"] = "as it was measured then"
    file = AnalysisFile.open(path)
    assert file.definition("entropy") == "as it was measured then"
    assert file.definition("redundancy") == METRICS["redundancy"].definition
    assert file.attrs["run"] == "r1" and file.attrs["tag"] == "null"


def test_what_is_not_given_is_nan(tmp_path: Path) -> None:
    path = tmp_path / "analysis.h5"
    with create(path) as writer:
        writer.append(0, attn={"entropy": np.zeros((LAYERS, HEADS))})
        writer.append(1, maps={(0, 1): np.zeros((T, T))})
    file = AnalysisFile.open(path)
    entropy = file.attn("entropy")
    assert (entropy[0] == 0).all() and np.isnan(entropy[1]).all()
    assert np.isnan(file.map(0, 1, step=0)).all() and (file.map(0, 1, step=1) == 0).all()
    assert np.isnan(file.weights("redundancy")).all() and np.isnan(file.svd(2, 3)).all()


def test_logits_beyond_half_precision_become_infinite(tmp_path: Path) -> None:
    path = tmp_path / "analysis.h5"
    logits = np.full((T, T), 1e6)
    with create(path) as writer:
        writer.append(0, scores={"sem": {(0, 1): logits}})
    assert np.isposinf(AnalysisFile.open(path).scores("sem", 0, 1)).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"attn": {"distance": np.zeros((LAYERS, HEADS))}}, "no /attn/distance"),
        ({"attn": {"entropy": np.zeros((HEADS, LAYERS))}}, "takes (3, 4) a row, got (4, 3)"),
        ({"maps": {(1, 1): np.zeros((T, T))}}, "no /maps/L1/H1"),
        ({"maps": {(0, 1): np.zeros((T, T + 1))}}, "/maps/L0/H1 takes"),
    ],
)
def test_a_refused_probe_writes_nothing(tmp_path: Path, arguments: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "analysis.h5"
    with create(path) as writer:
        writer.append(0, **row(0))
        good = {"weights": row(5)["weights"]}
        with pytest.raises(ValueError, match=r"no /|takes") as error:
            writer.append(5, **(good | arguments))
        assert sentence in str(error.value)
        for step in (0, -1):
            with pytest.raises(ValueError, match="does not come after step 0"):
                writer.append(step, **row(step + 10))
        assert_holds(path, [0])
        writer.append(6, **row(6))
    assert_holds(path, [0, 6])


@pytest.mark.parametrize(
    "changes",
    [
        {"attn_metrics": ["entropie"]},
        {"attn_metrics": ["redundancy"]},  # one of the layers', not of the heads'
        {"weight_metrics": ["entropy"]},
        {"chosen": [(LAYERS, 0)]},
        {"chosen": [(0, -1)]},
        {"map_size": 0},
    ],
)
def test_create_refuses_what_does_not_fit(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"METRICS defines no|do not fit"):
        create(tmp_path / "analysis.h5", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_creation_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "analysis.h5"
    with create(path) as writer:
        writer.append(3, **row(3))
    with pytest.raises(TypeError):
        create(path, attrs={"bad": object()})
    assert_holds(path, [3])
    assert [entry.name for entry in tmp_path.iterdir()] == ["analysis.h5"]


def test_leftovers_of_a_killed_creation_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "analysis.h5"
    (tmp_path / ".analysis.0123456789ab.tmp.h5").write_bytes(b"half a file")
    (tmp_path / ".other.0123456789ab.tmp.h5").write_bytes(b"of something else")
    create(path).close()
    assert {entry.name for entry in tmp_path.iterdir()} == {"analysis.h5", ".other.0123456789ab.tmp.h5"}


def test_an_open_file_does_not_show_later_rows_until_refreshed(tmp_path: Path) -> None:
    path = tmp_path / "analysis.h5"
    with create(path) as writer:
        writer.append(0, **row(0))
        file = AnalysisFile.open(path)
        writer.append(1, **row(1))
        assert file.steps.tolist() == [0] and len(file.attn("entropy")) == len(file.svd(0, 1)) == 1
        with pytest.raises(AnalysisError, match="row 1 was asked for, but it has 1"):
            file.map(0, 1, step=1)
        assert file.refresh() and not file.refresh()
        assert file.steps.tolist() == [0, 1] and len(file.attn("entropy")) == 2


def test_a_file_replaced_by_one_with_other_steps_says_so(tmp_path: Path) -> None:
    path = tmp_path / "analysis.h5"
    with create(path) as writer:
        for step in (0, 1, 2):
            writer.append(step, **row(step))
    file = AnalysisFile.open(path)
    with file, AnalysisWriter.resume(path, keep_through_step=1) as writer:
        writer.append(5, **row(5))
        assert len(file.attn("entropy")) == 3  # the handle is that of the old file, still whole
    with pytest.raises(AnalysisError, match="replaced by one with other steps"):
        file.attn("entropy")
    assert file.refresh()
    assert_holds(path, [0, 1, 5])


def test_singular_values_of_some_probes(tmp_path: Path) -> None:
    path = tmp_path / "analysis.h5"
    with create(path) as writer:
        for step in (0, 10, 20):
            writer.append(step, **row(step))
    file = AnalysisFile.open(path)
    found = file.svd_at(2, 3, [-1, 0])
    np.testing.assert_array_equal(found, [row(20)["svd"][2, 3], row(0)["svd"][2, 3]])
    assert file.heads_with_svd() == sorted(CHOSEN)


def test_questions_without_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "analysis.h5"
    with create(path, save_scores=False, probe_tokens=None) as writer:
        writer.append(0, **{key: value for key, value in row(0).items() if key != "scores"})
    file = AnalysisFile.open(path)
    assert file.score_parts == [] and file.probe_tokens is None
    questions = [
        lambda: file.attn("distance"),
        lambda: file.weights("entropy"),
        lambda: file.map(1, 1),
        lambda: file.map(0, 1, step=1),
        lambda: file.map(0, 1, step=-2),
        lambda: file.svd(9, 9),
        lambda: file.svd_at(9, 9, [0]),
        lambda: file.svd_at(0, 1, [1]),
        lambda: file.scores("sem", 0, 1),
        lambda: file.definition("distance"),
    ]
    for question in questions:
        with pytest.raises(AnalysisError, match=r"analysis\.h5: "):
            question()


def test_files_of_other_kinds(tmp_path: Path) -> None:
    def refused(path: Path, sentence: str) -> None:
        with pytest.raises(AnalysisError, match=sentence):
            AnalysisFile.open(path)
        with pytest.raises(AnalysisError, match=path.name):
            AnalysisWriter.resume(path, keep_through_step=0)

    refused(tmp_path / "absent.h5", "there is no such file")
    refused(tmp_path, "there is no such file")
    (tmp_path / "empty.h5").touch()
    refused(tmp_path / "empty.h5", "cannot be read")
    (tmp_path / "text.h5").write_text("not HDF5 at all\n" * 100)
    refused(tmp_path / "text.h5", "cannot be read")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["kernel"] = np.zeros(3)
    refused(tmp_path / "weights.h5", "neither /steps nor /analysis")
    with h5py.File(tmp_path / "steps.h5", "w") as file:
        file["steps"] = np.zeros((3, 3))
    refused(tmp_path / "steps.h5", "not a list of integers")
    with h5py.File(tmp_path / "back.h5", "w") as file:
        file["steps"] = [3, 2]
    refused(tmp_path / "back.h5", "does not increase")
    with h5py.File(tmp_path / "short.h5", "w") as file:
        file["steps"] = [1, 2]
        file["attn/entropy"] = np.zeros((1, 2, 2))
    with pytest.raises(AnalysisError, match="does not fit 2 steps"):
        AnalysisFile.open(tmp_path / "short.h5").attn("entropy")


def test_resume_keeps_what_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "analysis.h5"
    with create(path) as writer:
        for step in (0, 100, 200, 300):
            writer.append(step, **row(step))
    attrs, heads = AnalysisFile.open(path).attrs, AnalysisFile.open(path).maps()
    with AnalysisWriter.resume(path, keep_through_step=200) as writer:
        assert_holds(path, [0, 100, 200])
        with pytest.raises(ValueError, match="does not come after step 200"):
            writer.append(200, **row(200))
        writer.append(260, **row(260))
    assert_holds(path, [0, 100, 200, 260])
    after = AnalysisFile.open(path)
    assert after.attrs == attrs and after.maps() == heads
    assert after.definition("entropy") == METRICS["entropy"].definition
    with AnalysisWriter.resume(path, keep_through_step=-1) as writer:
        assert_holds(path, [])
        writer.append(0)
    assert np.isnan(AnalysisFile.open(path).attn("entropy")).all()  # the copy fills with NaN too
    assert [entry.name for entry in tmp_path.iterdir()] == ["analysis.h5"]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(1, 500)),
            st.tuples(st.just("resume"), st.integers(-1, 3000)),
        ),
        max_size=8,
    )
)
def test_any_history_ends_in_the_right_rows(tmp_path: Path, history: list[tuple[str, int]]) -> None:
    path = tmp_path / "analysis.h5"
    writer = create(path)
    steps: list[int] = []
    for action, number in history:
        if action == "append":
            steps.append((steps[-1] if steps else -1) + number)
            writer.append(steps[-1], **row(steps[-1]))
        else:
            writer.close()
            writer = AnalysisWriter.resume(path, keep_through_step=number)
            steps = [step for step in steps if step <= number]
    assert_holds(path, steps)
    writer.close()
    assert_holds(path, steps)


def test_every_metric_is_defined() -> None:
    """The names that trainer, files and pages agree on, each with text that says something."""
    per_head = "entropy entropy_norm topk_mass local_mass null_mass sink_mass prev_mass distance sem_energy_ratio"
    assert [name for name, metric in METRICS.items() if metric.per == "layer_head"] == [
        *per_head.split(),
        "geo_energy_ratio",
        "erank",
    ]
    ranks = [f"stable_rank_{part}" for part in ("q", "k", "q_sem", "k_sem", "q_geo", "k_geo")]
    per_layer = {name for name, metric in METRICS.items() if metric.per == "layer"}
    assert per_layer == {*ranks, *(f"{name}_norm" for name in ranks), "redundancy"}
    for event_key in (
        "loss",
        "ppl",
        "tok_s",
        "val_loss",
        "val_ppl",
        "grad_norm_attn_geo",
        "grad_clip_total_norm",
    ):
        assert METRICS[event_key].per == "scalar"
    for name, metric in METRICS.items():
        assert metric.name == name and metric.label and metric.unit
        assert metric.definition.endswith(".") and len(metric.definition) > 15
        low, high = metric.lower, metric.upper
        assert low is None or high is None or (low < high and math.isfinite(high))
    assert len({metric.label for metric in METRICS.values()}) == len(METRICS)
