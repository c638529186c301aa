"""The queue with real processes: who runs when, what people may change, and one job a folder."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from bottleneck_core.errors import UserError
from bottleneck_core.jobs import (
    Job,
    device_limits,
    job_state,
    move_job,
    queue_job,
    queued_jobs,
    set_device_limit,
    start_now,
)
from bottleneck_core.jobs.queue import Queue
from tests.jobs.programs import begun, journal, let_go, queue_turn, run_python, until


def waiting(root: Path) -> list[str]:
    return [job.id for job in queued_jobs(root)]


def test_a_free_slot_is_taken_at_once(root: Path) -> None:
    job = queue_turn(root, "a")
    assert (job.state, job.status, job.device, job.nproc, job.root) == ("running", "running", "cpu", 1, root)
    assert Job.read(root / "a") == job and waiting(root) == []
    assert job.started is not None and job.created <= job.started


def test_a_device_takes_one_at_a_time_in_order(root: Path) -> None:
    names = ["a", "b", "c", "d"]
    states = [queue_turn(root, name).state for name in names]
    assert states == ["running", "queued", "queued", "queued"]
    assert waiting(root) == ["b", "c", "d"] and job_state(root / "d") == "queued"
    job = Job.read(root / "b")
    assert job is not None and job.process is None and job.live_supervisor is not None
    for name in names:
        begun(root, name)
        let_go(root, name)
    assert journal(root) == [f"{what} {name}" for name in names for what in ("begin", "end")]
    assert [job_state(root / name) for name in names] == ["done"] * 4 and waiting(root) == []


def test_the_order_can_be_changed(root: Path) -> None:
    for name in "abcd":
        queue_turn(root, name)
    move_job(root / "d", root, 0)
    assert waiting(root) == ["d", "b", "c"]
    move_job(root / "b", root, 99)
    assert waiting(root) == ["d", "c", "b"]
    let_go(root, *"abcd")
    until(lambda: len(journal(root)) == 8, "all to end")
    assert [line[-1] for line in journal(root)[::2]] == ["a", "d", "c", "b"]


def test_what_does_not_wait_has_no_place(root: Path) -> None:
    queue_turn(root, "a")
    for change in (lambda: move_job(root / "a", root, 0), lambda: start_now(root / "a", root)):
        with pytest.raises(UserError, match=r"the job in .*a is running, it does not wait"):
            change()
    with pytest.raises(UserError, match=r"nobody is none"):
        move_job(root / "nobody", root, 0)
    with pytest.raises(UserError, match="position -1 does not exist"):
        move_job(root / "a", root, -1)


def test_starting_now_goes_past_order_and_limit(root: Path) -> None:
    for name in "abc":
        queue_turn(root, name)
    start_now(root / "c", root)
    begun(root, "c")
    assert job_state(root / "a") == "running" and waiting(root) == ["b"]
    let_go(root, "a")
    # Two ran where one may: the end of the first frees nothing.
    queue, b = Queue(root), Job.read(root / "b")
    assert b is not None and not queue.is_turn(queue.read(), b)
    let_go(root, "c")
    begun(root, "b")


def test_limits_are_kept_and_heeded(root: Path) -> None:
    assert device_limits(root) == {"cpu": 1} and not (root / ".queue").exists()
    set_device_limit(root, "cpu", 0)
    assert queue_turn(root, "a").state == "queued"
    set_device_limit(root, "cpu", 2)
    begun(root, "a")
    assert queue_turn(root, "b").state == "running"
    assert queue_turn(root, "c").state == "queued"
    queue_turn(root, "g", device="cuda:1")
    set_device_limit(root, "cuda", 3)
    assert device_limits(root) == {"cpu": 2, "cuda:0": 3, "cuda:1": 1}
    with pytest.raises(UserError, match="a limit of -1 jobs is below 0"):
        set_device_limit(root, "cpu", -1)
    with pytest.raises(UserError, match="'gpu7' is no device"):
        set_device_limit(root, "gpu7", 1)
    with pytest.raises(UserError, match="'a b' is no device"):
        queue_turn(root, "x", device="a b")


def test_devices_do_not_wait_for_each_other(root: Path) -> None:
    assert queue_turn(root, "a").state == "running"
    assert queue_turn(root, "b").state == "queued"
    assert queue_turn(root, "g", device="cuda:0").state == "running"
    assert queue_turn(root, "h", device="cuda:1").state == "running"
    assert queue_turn(root, "i", device="cuda").state == "queued"
    let_go(root, "g")
    begun(root, "i")
    assert waiting(root) == ["b"]


def test_processes_that_train_together_take_a_gpu_each_and_are_not_overtaken(root: Path) -> None:
    stub = root / "python"  # stands in for the interpreter that would start torchrun
    stub.write_text(f"#!{sys.executable}\nimport sys, time\nprint(*sys.argv[1:], flush=True)\ntime.sleep(600)\n")
    stub.chmod(0o755)
    queue_turn(root, "one", device="cuda:1")
    folder = root / "two"
    both = queue_job(["train"], folder, root=root, device="cuda", nproc=2, program=[str(stub), "-m", "module"])
    assert (both.state, both.devices) == ("queued", ("cuda:0", "cuda:1"))
    assert queue_turn(root, "late", device="cuda:0").state == "queued"  # or "two" might wait for ever
    assert queue_turn(root, "free", device="cuda:2").state == "running"
    let_go(root, "one")
    until(lambda: "train" in (folder / "console.log").read_text(), "the launcher to run")
    words = (folder / "console.log").read_text().split()
    assert words == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "module", "train"]
    assert queue_turn(root, "later", device="cuda:1").state == "queued"
    with pytest.raises(UserError, match="0 processes cannot train"):
        queue_job(["train"], root / "x", root=root, device="cpu", nproc=0)


def test_a_folder_has_one_job_that_runs_or_waits(root: Path) -> None:
    queue_turn(root, "a")
    first = queue_turn(root, "b")
    for name, does in (("a", "runs"), ("b", "waits")):
        with pytest.raises(UserError, match=f"a job already {does} in .*{name}.*jobs stop"):
            queue_turn(root, name)
        with pytest.raises(UserError, match=f"a job already {does} in"):
            run_python("", root / name)
    assert Job.read(root / "b") == first and waiting(root) == ["b"]


def test_of_many_that_ask_for_a_folder_at_once_one_gets_it(root: Path) -> None:
    (root / "a").mkdir()

    def ask(_: int) -> bool:
        try:
            queue_turn(root, "a")
        except UserError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(ask, range(6))) == 1
    begun(root, "a")
    assert journal(root) == ["begin a"]


def test_many_that_start_at_once_do_not_pass_the_limit(root: Path) -> None:
    names = [f"run{number}" for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        states = list(pool.map(lambda name: queue_turn(root, name).state, names))
    assert sorted(states) == ["queued"] * 5 + ["running"] and len(set(waiting(root))) == 5
    let_go(root, *names)
    until(lambda: len(journal(root)) == 12, "all to end")
    lines = journal(root)
    assert all(lines[i].startswith("begin") and lines[i + 1] == f"end {lines[i][6:]}" for i in range(0, 12, 2))


def test_the_queue_outlives_who_filled_it(root: Path) -> None:
    starter = (
        "import sys; from pathlib import Path; from tests.jobs.programs import queue_turn; "
        "[queue_turn(Path(sys.argv[1]), name) for name in 'ab']"
    )
    subprocess.run([sys.executable, "-c", starter, str(root)], check=True, cwd=Path(__file__).parents[2])
    assert waiting(root) == ["b"]
    let_go(root, "a")
    begun(root, "b")


def test_a_command_that_is_missing(root: Path) -> None:
    with pytest.raises(UserError, match=r"no-such-program cannot be started .*No such file"):
        queue_job([], root / "a", root=root, device="cpu", program=["no-such-program"])
    assert job_state(root / "a") == "failed"
    queue_turn(root, "b")
    queue_job([], root / "c", root=root, device="cpu", program=["no-such-program"])
    assert job_state(root / "c") == "queued"
    let_go(root, "b")
    until(lambda: job_state(root / "c") == "failed", "the failure")
    assert "error: no-such-program cannot be started" in (root / "c" / "console.log").read_text()
    assert waiting(root) == []


def test_a_list_that_is_lost_is_made_again_by_those_who_wait(root: Path) -> None:
    set_device_limit(root, "cpu", 0)
    queue_turn(root, "a")
    path = root / ".queue" / "queue.json"
    path.write_text("{half")
    with pytest.raises(UserError, match=r"queue.json is no queue .*remove it"):
        queued_jobs(root)
    until(lambda: "the queue cannot be used" in (root / "a" / "console.log").read_text(), "the complaint")
    path.unlink()
    begun(root, "a")


def test_a_folder_that_was_removed_leaves_the_queue(root: Path) -> None:
    queue_turn(root, "a")
    job = queue_turn(root, "b")
    (root / "b").rename(root / ".gone")
    until(lambda: job.live_supervisor is None, "the supervisor to go")
    assert waiting(root) == [] and queue_turn(root, "c").state == "queued"


def test_jobs_of_another_machine_take_no_slot_of_this_one(root: Path) -> None:
    job = queue_turn(root, "a")
    let_go(root, "a")
    replace(job, host="elsewhere").write()
    with Queue(root).edit() as lines:
        lines.running.append("a")
    assert queue_turn(root, "b").state == "running"
    assert Queue(root).read().running == ["a", "b"]


def test_a_root_may_be_reached_by_another_name(root: Path) -> None:
    real, link = root / "real", root / "link"
    real.mkdir()
    link.symlink_to(real)
    queue_turn(real, "a")
    assert queue_turn(link, "b").state == "queued"
    assert waiting(real) == waiting(link) == ["b"]
    move_job(real / "b", link, 0)
