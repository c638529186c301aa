"""What is started and what it will take, as values: drafts, their commands, times from runs that were measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import bottleneck_core as bc
from bottleneck_core.config import RunConfig
from dashboard.train import devices as train_devices
from dashboard.train.draft import Draft, decode, encode, planned_runs
from dashboard.train.plan import plan
from dashboard.train.schema import OWN, fields
from dashboard.train.speed import machine_of, measured, pace


def test_a_draft_survives_its_address():
    draft = Draft(
        size=None,
        exp="paper_gqa",
        settings={"analysis_layers": "0,-1", "data": "a:b,c/ü%2F.bin", "kv_head": "none"},
        name="x",
        nproc=2,
        sweep="lr",
        values="1e-3; 2e-3",
        seeds="1,2",
    )
    assert decode(encode(draft)) == (draft, [])


def test_a_sweep_is_every_value_with_every_seed_under_free_names(tmp_path):
    (tmp_path / "nano_bottleneck_lr1e-3_seed1").mkdir()
    draft = Draft(sweep="lr", values="1e-3, 2e-3,1e-3", seeds="1,2", settings={"lr": "-5"})
    runs = planned_runs(draft, tmp_path)
    assert [(run.config.lr, run.config.seed) for run in runs] == [(1e-3, 1), (1e-3, 2), (2e-3, 1), (2e-3, 2)]
    assert [run.name for run in runs] == [
        "nano_bottleneck_lr1e-3_seed1_2",
        *(f"nano_bottleneck_lr{lr}_seed{seed}" for lr, seed in (("1e-3", 2), ("2e-3", 1), ("2e-3", 2))),
    ]
    with pytest.raises(bc.UserError, match="--lr must be > 0"):
        planned_runs(replace(draft, values="1e-3,0"), tmp_path)
    with pytest.raises(bc.UserError, match="needs values"):
        planned_runs(replace(draft, values=" ,"), tmp_path)
    with pytest.raises(bc.UserError, match="too many"):
        planned_runs(replace(draft, seeds=",".join(map(str, range(40)))), tmp_path)


@pytest.mark.parametrize("name", [name for name in fields() if name not in OWN])
def test_words_of_the_command_mean_what_the_form_says(name, tmp_path):
    """What the command line makes of the words is what the draft resolves to."""
    from bottleneck_core.cli.flags import read_flags

    field = fields()[name]
    default = Draft().defaults[name]
    text = {
        "switch": str(not default).lower(),
        "choice": next((c for c in field.choices if c != default), ""),
        "number": "2",
        "text": "0,-1",
    }[field.kind]
    draft = Draft(settings={name: text})
    try:
        (run,) = planned_runs(draft, tmp_path)
    except bc.UserError:
        return  # a shape that cannot be built is no command
    given, _ = read_flags(run.argv[1:], prog="train", description="")
    read = RunConfig.resolve(**given)
    assert read.model_copy(update={"out_dir": None, "given": ()}) == run.config.model_copy(
        update={"out_dir": None, "given": ()}
    )


# Time


def run_row(**changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    config = RunConfig.resolve(size="nano", exp="paper_bottleneck", vocab_size=256)
    device = train_devices.device_of("cpu")
    assert device is not None
    row = {"id": "a", "tok_s": 10_000.0, "model": config.model_dump()} | changes
    manifest = {
        "runtime": {"device": "cpu", "amp": None, "world_size": 1},
        "hardware": {"cpu": device.model, "usable_cores": train_devices.usable_cores()},
    }
    return row, manifest


def test_time_is_the_median_of_the_closest_size_scaled_by_flops():
    cpu = train_devices.device_of("cpu")
    assert cpu is not None
    runs = []
    for tok_s in (8_000.0, 10_000.0, 30_000.0):
        row, manifest = run_row(tok_s=tok_s)
        run = measured(row, manifest)
        assert run is not None and run.machine == machine_of(cpu)
        runs.append(run)
    other = replace(runs[0], machine="another", tok_s=1e9)
    big = replace(runs[0], flops=runs[0].flops * 100, tok_s=1e8)
    found = pace([*runs, other, big], runs[0].flops * 2, cpu, reduced=False)
    assert found is not None and found.measured == 10_000 and found.tok_s == 5_000
    assert pace([other], runs[0].flops, cpu, reduced=False) is None
    assert pace(runs, runs[0].flops, cpu, reduced=True) is None
    assert pace(runs, runs[0].flops, cpu, reduced=False, processes=2) is None

    config = RunConfig.resolve(size="nano", exp="paper_bottleneck", steps=100)
    sized = plan(config, None, cpu, runs)
    assert sized.seconds == pytest.approx(100 * 16 * 256 / 10_000)


@pytest.mark.parametrize("broken", [{"runtime": None}, {"hardware": 3}, {"runtime": {"device": "mps"}}])
def test_a_manifest_that_says_too_little_is_left_out(broken):
    row, manifest = run_row()
    assert measured(row, manifest | broken) is None
    assert measured(row | {"model": {"vocab_size": "?"}}, manifest) is None


def test_memory_is_derived_for_what_will_run():
    card = train_devices.Device(name="cuda:0", model="X", memory=80 << 30)
    config = RunConfig.resolve(size="tiny", exp="paper_gqa")

    def mode(**flags: Any) -> str | None:
        memory = plan(RunConfig.resolve(size="tiny", exp="paper_gqa", **flags), None, card, []).memory
        return memory.mode if memory else None

    assert mode() == "bf16-compiled" and mode(speed="off") == "fp32" and mode(amp=False) is None
    assert mode(amp=True, compile=True, speed="off") == "bf16-compiled"
    halves = [plan(config, None, card, [], n).memory for n in (1, 2)]
    assert halves[0] and halves[1] and halves[1].activations * 2 == halves[0].activations


def test_cards_are_read_from_nvidia_smi():
    text = "0, NVIDIA H100 80GB HBM3, 81559, 1024, 87\n1, Odd, 100, [N/A], [N/A]\nfailed\n"
    assert train_devices.read_cards(text) == [
        (0, "NVIDIA H100 80GB HBM3", 81559 << 20, 1 << 30, 0.87),
        (1, "Odd", 100 << 20, None, None),
    ]
