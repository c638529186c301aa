"""`bench`: the list, the tables of what was measured, a benchmark that is run; and how kernels become parts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.train_parts import (
    ATTENTION,
    CLIPPING,
    COPIES,
    ELEMENTWISE,
    HEAD,
    MATMUL,
    OPTIMISER,
    head_shares,
    part_of,
    split,
)
from bottleneck_core.cli import bench, main

SPEED = {
    "date": "2026-11-27",
    "hardware": {"gpus": ["NVIDIA H200"]},
    "command": "python -m benchmarks.train_speed --data tokens.bin",
    "measured": {
        "reference": [{"exp": "reference", "flags": [], "batch": [16, 1024], "tok_s": 1_000_000, "mfu": 0.328}],
        "runs": [
            {
                "exp": "paper_bottleneck",
                "flags": [],
                "batch": [16, 1024],
                "tok_s": 1_250_000,
                "of_reference": 1.25,
                "mfu": 0.3512,
                "peak_gib": 3.456,
                "last_loss": 4.71998,
            },
            {"exp": "paper_gqa", "flags": [], "error": "exit code 1"},
        ],
    },
}
PARTS = {
    "hardware": {"usable_cores": 2},
    "measured": {
        "rows": [
            {"case": "paper_gqa", "batch_size": 16, "step_us": 12345.6, "shares": {"attention": 0.25, "idle": 0.011}},
            {"case": "paper_baseline", "batch_size": 16, "error": "OutOfMemoryError"},
        ]
    },
}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one benchmark, a module that it uses, and three results, of which one is torn."""
    folder = tmp_path / "benchmarks"
    (folder / "results").mkdir(parents=True)
    (folder / "record.py").write_text('"""Not run by itself."""\n')
    (folder / "__init__.py").write_text("")
    code = 'import sys\nif __name__ == "__main__":\n    print(*sys.argv[1:], "ran")\n    raise SystemExit(3)\n'
    (folder / "echo_words.py").write_text(f'"""What words\ncame.\n\nAnd more.\n"""\n{code}')
    for name, result in {"train_speed": SPEED, "train_parts": PARTS}.items():
        (folder / "results" / f"{name}.json").write_text(json.dumps(result))
    (folder / "results" / "torn.json").write_text('{"measured": {"tok_s": NaN')
    monkeypatch.setattr(bench, "CHECKOUT", tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    return tmp_path


def test_the_list_and_the_tables(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "echo_words What words came." in out and "record" not in out
    assert "reference 16 × 1,024 1,000,000 – 32.8% – –" in out
    assert "paper_bottleneck 16 × 1,024 1,250,000 125.0% 35.1% 3.46 4.7200" in out
    assert "Training speed (train_speed, 2026-11-27, NVIDIA H200)" in out
    assert "paper_gqa 16 12,346 25.0% 1.1%" in out and "paper_baseline" not in out
    assert "torn.json is no result of a benchmark: measure it again" in out


def test_json_is_one_strict_document(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    assert main(["bench", "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert document["benchmarks"] == [{"name": "echo_words", "question": "What words came."}]
    assert [row["model"] for row in document["speed"]] == ["reference", "paper_bottleneck"]
    assert document["parts"][0]["shares"] == {"attention": 0.25, "idle": 0.011}
    assert {row["name"]: row["device"] for row in document["results"]} == {
        "train_parts": "2 CPU cores",
        "train_speed": "NVIDIA H200",
    }
    assert len(document["errors"]) == 1


def test_a_name_runs_it_with_the_words_that_follow(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "echo_words", "--json", "--data", "x y"]) == 3
    assert capfd.readouterr().out == "--json --data x y ran\n"


def test_mistakes_are_one_sentence(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, part in (
        (["nonsense"], "there is no benchmark nonsense: choose one of echo_words"),
        (["record"], "there is no benchmark record"),
        (["--json", "echo_words"], "--json is of the list"),
        (["--oops"], "see python -m bottleneck_core bench --help"),
    ):
        assert main(["bench", *words]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and part in captured.err and captured.err.count("\n") == 1
    shutil.rmtree(checkout / "benchmarks")
    assert main(["bench"]) == 2
    assert capsys.readouterr().err.startswith("error: bench needs a checkout of the repository")


def test_the_checkout_itself_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    names = {row["name"] for row in document["benchmarks"]}
    assert {"train_speed", "train_parts", "instrumentation", "start_time", "cpu_training"} <= names
    assert all(row["question"].endswith(".") for row in document["benchmarks"])
    assert document["speed"] and document["errors"] == []


@pytest.mark.parametrize(
    ("kernel", "part"),
    [
        ("nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_TNT", MATMUL),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_256x128_32x3_nn_align8>", MATMUL),
        ("triton_tem_fused_mm_12", MATMUL),
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 64, cutlass::bfloat16_t>>", ATTENTION),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_6_64x64x64_4x1x1", ATTENTION),
        ("fmha_cutlassF_bf16_aligned_64x128_rf_sm80", ATTENTION),
        ("cross_entropy_rows", HEAD),
        ("triton_red_fused__log_softmax__to_copy_nll_loss_forward_3", HEAD),
        ("triton_per_fused_add_native_layer_norm_native_layer_norm_backward_9", ELEMENTWISE),
        ("triton_poi_fused__scaled_dot_product_flash_attention_cat_mul_4", ELEMENTWISE),
        (
            "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<FusedOptimizerTensorListMetadata<4>, "
            "at::native::(anonymous namespace)::FusedAdamMathFunctor<float, 4, (ADAM_MODE)1, false>>",
            OPTIMISER,
        ),
        ("multi_tensor_apply_kernel<TensorListMetadata<1>, BinaryOpScalarFunctor<float>, std::plus<float>>", OPTIMISER),
        ("multi_tensor_apply_kernel<TensorListMetadata<1>, LpNormFunctor<float, (NormType)1, float, 1>>", CLIPPING),
        ("multi_tensor_apply_kernel<BinaryOpScalarTensorFunctor<float, 1, 1, 0>, std::multiplies<float>>", CLIPPING),
        ("Memcpy HtoD (Pinned -> Device)", COPIES),
        ("Memset (Device)", COPIES),
        ("void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda(...)>", COPIES),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>", ELEMENTWISE),
    ],
)
def test_kernels_belong_to_parts(kernel: str, part: str) -> None:
    assert part_of(kernel) == part


def device_work(name: str, start: float, us: float, operator: int | None = None) -> dict[str, Any]:
    args = {} if operator is None else {"External id": operator}
    return {"cat": "kernel", "name": name, "ts": start, "dur": us, "args": args}


def test_products_with_the_vocabulary_are_the_heads() -> None:
    """The shapes are in the trace without a graph; in that of its replay the name has to do."""

    def operator(number: int, sides: list[Any]) -> dict[str, Any]:
        return {"cat": "cpu_op", "name": "aten::mm", "args": {"External id": number, "Input Dims": sides}}

    plain = [
        operator(1, [[16384, 512], [512, 50304]]),
        operator(2, [[16384, 512], [512, 2048], []]),
        device_work("nvjet_a", 0, 30, 1),
        device_work("nvjet_a", 40, 10, 2),
        device_work("nvjet_b", 60, 10, 2),
        device_work("triton_per_fused_embedding_0", 80, 10, 1),
    ]
    head = head_shares(plain)
    assert head == {"nvjet_a": 0.75, "nvjet_b": 0.0}
    # Two steps; the second kernel runs beside the first, on another stream.
    replayed = [device_work("nvjet_a", 0, 80), device_work("nvjet_b", 40, 60), device_work("Memset (Device)", 200, 4)]
    found = split([*replayed, {"cat": "gpu_user_annotation", "name": "step", "ts": 0, "dur": 999}], 2, head)
    assert (found["busy_us"], found["kernels_a_step"]) == (52.0, 1.5)
    assert {part: us for part, us in found["parts_us"].items() if us} == {HEAD: 30.0, MATMUL: 40.0, COPIES: 2.0}
    assert found["heaviest"][0] == {"kernel": "nvjet_a", "part": HEAD, "a_step": 0.38, "us_a_step": 30.0}
