"""`--shard`: two and three processes that share one model out compute what one does, and go on from what they saved."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import bottleneck_core as bc
from bottleneck_core.store.layout import RunPaths
from bottleneck_core.train import load_checkpoint
from bottleneck_core.train.checkpoint import find_checkpoint, find_last, read_checkpoint
from bottleneck_core.train.shard_folder import existing_folder, remove_folder

from .runs import environment, events, flags, train, write_tokens
from .test_distributed import torchrun

pytestmark = pytest.mark.e2e
KILLS = 1

# Several runs one after the other in the same processes: to start these takes longer than such a run, and a picture as
# long. The first process writes down how each run ended and how often gradients travelled.
PROGRAM = """
import json, os, sys
from pathlib import Path
import torch.distributed as dist
from bottleneck_core.cli import main
from bottleneck_core.figures import static

static.write_picture = lambda *a, **k: None
name = "reduce_scatter_single" if hasattr(dist, "reduce_scatter_single") else "reduce_scatter_tensor"  # torch 2.11
reduce_scatter, calls, ends = getattr(dist, name), [], []
setattr(dist, name, lambda *a, **k: (calls.append(1), reduce_scatter(*a, **k))[1])
for words in json.loads(Path(sys.argv[1]).read_text()):
    calls.clear()
    ends.append([main(["train", *words]), len(calls)])
if os.environ["RANK"] == "0":
    Path(sys.argv[2]).write_text(json.dumps(ends))
"""
SETTINGS: dict[str, Any] = {"steps": 6, "grad_accum": 2, "batch_size": 6, "save_every": 3}
TWICE = {"steps": 3} | {name: value for name, value in SETTINGS.items() if name != "steps"}


def run_all(folder: Path, processes: int, runs: dict[str, list[str]]) -> dict[str, tuple[int, int]]:
    """Train `runs` on so many processes; by name the exit code, and how many times gradients were reduced."""
    program, words, ends = (folder / f"{name}{processes}" for name in ("program.py", "words.json", "ends.json"))
    program.write_text(PROGRAM)
    words.write_text(json.dumps(list(runs.values())))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    finished = subprocess.run(
        [*command, str(program), str(words), str(ends)], capture_output=True, text=True, env=environment(), timeout=300
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return dict(zip(runs, map(tuple, json.loads(ends.read_text())), strict=True))


class Trained:
    """The folders that the tests below compare."""

    def __init__(self, root: Path) -> None:
        self.root = root
        data = write_tokens(root / "tokens.npy")

        def words(name: str, *more: str, **changes: Any) -> list[str]:
            return [*flags(data, root / name, "decoupled", **(SETTINGS | changes)), *more]

        def on(name: str, *more: str) -> list[str]:
            return ["--resume", str(root / name), "--steps", "6", *more]

        train(words("one"))
        train(words("one_muon", optimizer="muon"))
        train(words("from_pt", **TWICE))
        self.ends = run_all(root, 3, {"three": words("three", "--shard", **TWICE)})
        shutil.copytree(root / "three", root / "to_one")
        self.had_dcp = (root / "to_one" / "last.dcp").is_dir()
        train(on("to_one"))
        self.ends |= run_all(
            root,
            2,
            {
                "ddp": words("ddp"),
                "two": words("two", "--shard"),
                "two_muon": words("two_muon", "--shard", "--grad-checkpoint", optimizer="muon"),
                "half": words("half", "--shard", **TWICE),
                "on: half": on("half"),
                "on: three": on("three"),
                "on: from_pt": on("from_pt", "--shard"),
                "nan": words("nan", "--shard", lr=1e30, grad_clip=0, steps=50, save_every=1),
                "unbroken": self.long("unbroken"),
            },
        )
        assert {code for name, (code, _) in self.ends.items() if name != "nan"} == {0}

    def long(self, name: str) -> list[str]:
        """A run that lives long enough to be killed, and resumes."""
        settings = {"steps": 40, "dropout": 0.1, "eval_every": 10, "analysis_every": 15, "save_every": 2}
        words = flags(self.root / "tokens.npy", self.root / name, "decoupled", **settings)
        return [*words, "--shard", "--resume"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("sharded"))


def at_steps_of(one: Path, other: Path, kind: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Events of two runs at the steps of `one`: a run that ended earlier at first has observed one step more."""
    ours = events(one, kind)
    steps = {event["step"] for event in ours}
    return ours, [event for event in events(other, kind) if event["step"] in steps]


def assert_same_curves(one: Path, other: Path, rel: float = 2e-5) -> None:
    for kind, keys in {
        "train": ("loss", "grad_clip_total_norm", "grad_norm_embed", "grad_norm_attn_sem", "grad_norm_ffn"),
        "eval": ("train_loss", "val_loss"),
        "analysis": ("attn_entropy_mean", "sem_energy_ratio_mean"),
    }.items():
        pair = at_steps_of(one, other, kind)
        for key in keys:
            ours, theirs = ([event[key] for event in found] for found in pair)
            assert len(ours) > 1 and ours == pytest.approx(theirs, rel=rel), (other.name, kind, key)


@pytest.mark.parametrize("name", ["ddp", "two", "three", "from_pt", "half", "to_one"])
def test_the_curve_is_that_of_one_process(name: str, trained: Trained) -> None:
    """At equal global batch, however many processes and with or without shards, also where these change half way."""
    assert_same_curves(trained.root / "one", trained.root / name)
    assert len(events(trained.root / name, "meta")) == 1, "one writer"
    assert bc.load_run(trained.root / name).status == "done"
    ours, theirs = (load_checkpoint(trained.root / folder) for folder in ("one", name))
    assert ours.model.keys() == theirs.model.keys() and ours.step == theirs.step
    assert all((value - theirs.model[key]).abs().max() < 1e-4 for key, value in ours.model.items())


def test_accumulated_gradients_travel_once_a_step(trained: Trained) -> None:
    assert trained.ends["two"] == (0, 6 * 3), "steps x (two blocks and the root), not twice as many for two micro-steps"


def test_muon_and_recomputed_blocks_in_shards(trained: Trained) -> None:
    """Muon turns whole matrices, in bf16: a rounding there is 2e-3 of an update."""
    assert_same_curves(trained.root / "one_muon", trained.root / "two_muon", rel=2e-3)


def test_resumed_on_as_many_processes_it_is_the_same_bit_for_bit(trained: Trained) -> None:
    assert_same_run(trained.root / "two", trained.root / "half")


def test_a_run_has_one_kind_of_checkpoint(trained: Trained) -> None:
    kinds = {"one": {"last.pt"}, "ddp": {"last.pt"}, "two": {"last.dcp"}, "three": {"last.dcp"}}
    kinds |= {"from_pt": {"last.dcp"}, "to_one": {"last.pt"}}
    assert trained.had_dcp
    for name, expected in kinds.items():
        names = {path.name for path in (trained.root / name).iterdir()}
        assert {other for other in names if "last" in other} == expected, name
        assert "best.pt" in names
        said = (
            ", `best.pt`, `last.dcp`\n" if "last.dcp" in expected and name != "to_one" else ", `best.pt`, `last.pt`\n"
        )
        assert said in (trained.root / name / "summary.md").read_text(), name
    for name, way in {"one": None, "ddp": "ddp", "two": "fsdp", "to_one": None}.items():
        manifest = json.loads((trained.root / name / "manifest.json").read_text())
        assert manifest["runtime"]["distributed"] == way


def test_what_is_not_finite_stops_all_processes(trained: Trained) -> None:
    assert trained.ends["nan"][0] == 3
    bad = events(trained.root / "nan", "nonfinite")[0]
    checkpoint = load_last(trained.root / "nan")
    assert checkpoint.step == bad["step"]
    assert all(torch.isfinite(value).all() for value in checkpoint.model.values())
    assert events(trained.root / "nan")[-1]["reason"] == "nonfinite"


def test_weights_are_read_from_a_folder_like_from_a_file(trained: Trained, tmp_path: Path) -> None:
    whole = torch.load(trained.root / "two" / "best.pt", weights_only=True)
    assert not any("DTensor" in type(value).__name__ for value in whole["model"].values())
    shutil.copytree(trained.root / "two" / "last.dcp", tmp_path / "run" / "last.dcp")
    for where in (tmp_path / "run", tmp_path / "run" / "last.dcp"):
        checkpoint = load_checkpoint(where)
        assert checkpoint.step == 6 and checkpoint.path == tmp_path / "run" / "last.dcp"
        assert checkpoint.model.keys() == whole["model"].keys() and whole["step"] == 6
        assert all(torch.equal(value, whole["model"][key]) for key, value in checkpoint.model.items())
    settings = SETTINGS | {"steps": 0, "init_from": tmp_path / "run"}
    train(flags(trained.root / "tokens.npy", tmp_path / "next", "decoupled", **settings))
    (first,) = events(tmp_path / "next", "eval")
    assert first["val_loss"] == pytest.approx(events(trained.root / "two", "eval")[-1]["val_loss"], rel=1e-5)


def test_damaged_folder_is_a_sentence(trained: Trained, tmp_path: Path) -> None:
    def damaged(name: str) -> Path:
        shutil.copytree(trained.root / "two", tmp_path / name)
        return tmp_path / name / "last.dcp"

    (damaged("missing") / "__1_0.distcp").unlink()
    (damaged("short") / "__0_0.distcp").write_bytes(b"")
    (damaged("text") / ".metadata").write_text("no metadata")
    (damaged("evil") / ".metadata").write_bytes(pickle.dumps(shutil.rmtree))
    (damaged("other") / "state.pt").write_bytes(b"no state")
    for name in ("missing", "short", "text", "evil", "other"):
        output = train(["--resume", str(tmp_path / name), "--steps", "8"], expect=2)
        assert "last.dcp cannot be read as a checkpoint" in output, (name, output)
        assert output.startswith("error: ") and output.count("\n") == 1, output
        assert (name == "evil") == ("name shutil.rmtree" in output)


def test_shards_need_several_processes(tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "tokens.npy")
    output = train([*flags(data, tmp_path / "run"), "--shard"], expect=2)
    assert "start them with torchrun" in output and output.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_kill_between_renames_leaves_the_old_checkpoint(trained: Trained, tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    shutil.copytree(trained.root / "two" / "last.dcp", tmp_path / ".last.dcp.old")
    assert find_last(paths) == find_checkpoint(tmp_path, "last") == tmp_path / ".last.dcp.old"
    assert read_checkpoint(tmp_path / ".last.dcp.old").step == 6
    (tmp_path / ".last.dcp.old").rename(paths.last_dcp)
    shutil.copytree(paths.last_dcp, tmp_path / ".last.dcp.tmp")  # a kill while a new one is written
    (tmp_path / ".last.dcp.tmp" / "state.pt").unlink()
    assert existing_folder(paths.last_dcp) == paths.last_dcp
    remove_folder(paths.last_dcp)
    assert list(tmp_path.iterdir()) == [] and find_last(paths) is None


def test_kills_leave_no_trace(trained: Trained) -> None:
    """Killed at a random moment and started again by torchrun, two processes end bit for bit where unkilled ones do."""
    rng = random.Random(20240607)
    broken = trained.root / "broken"
    with torchrun(trained.long("broken"), restarts=KILLS) as process:
        assert process.stdout is not None
        for kill in range(KILLS):
            for _ in range(rng.randint(3, 15)):
                while not (line := process.stdout.readline()).startswith("step"):
                    assert line, f"life {kill} ended before it was killed"
            for rank in psutil.Process(process.pid).children():
                rank.kill()
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert len(events(broken, "resume")) == KILLS and len(events(broken, "meta")) == 1
    assert_same_run(trained.root / "unbroken", broken)


def load_last(folder: Path) -> Any:
    found = find_last(RunPaths(folder))
    assert found is not None
    return read_checkpoint(found)


def assert_same_run(one: Path, other: Path) -> None:
    ours, theirs = load_last(one), load_last(other)
    assert ours.step == theirs.step
    _assert_equal(ours.model, theirs.model)
    _assert_equal(ours.training["optimizer"], theirs.training["optimizer"])
    _assert_equal(load_checkpoint(one).model, load_checkpoint(other).model)  # best.pt
    for kind in ("train", "eval", "analysis"):
        expected, found = at_steps_of(one, other, kind)
        assert expected == found


def _assert_equal(a: Any, b: Any) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            _assert_equal(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        for x, y in zip(a, b, strict=True):
            _assert_equal(x, y)
    else:
        assert a == b
