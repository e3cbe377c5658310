"""The benchmarks on small shapes: whoever needs no compiler is right. And what they have for a GPU."""

import os
from functools import partial

import pytest
import torch
from torch.nn import functional as F

import inpaint_fast as ipf
from inpaint_fast.benchmarks import (
    dilated_block,
    glcic,
    harness,
    masked_l2,
    networks,
    norm_act,
    peers,
    strided_block,
    training,
    transposed_block,
    weight_clip,
)

SLOW = ("compile", "compile_freezing", "openvino", "onnxruntime")  # to prepare


@pytest.fixture(autouse=True)
def few_calls(monkeypatch):
    """What is measured matters here, not how long it takes."""
    monkeypatch.setattr(harness, "WARM_UP", 0)
    monkeypatch.setattr(harness, "SAMPLE_MS", 0.0)


def results(case):
    implementations = [each for each in case.implementations if each.name not in SLOW]
    assert len(implementations) == 4
    small = harness.Case(implementations, case.reference, case.bound, case.work, case.unit, memory="")
    return {result.implementation: result for result in harness.measure("small", small, 1)}


@pytest.mark.parametrize(
    "build",
    [
        lambda: dilated_block.infer(1, 64, 16, 2),
        lambda: dilated_block.train(2, 32, 24, 2),
        lambda: dilated_block.train(2, 32, 24, 2, norm=False),
        lambda: transposed_block.case(1, 32, 24, 16, 4, False),
        lambda: transposed_block.case(8, 32, 32, 16, 4, True),
        lambda: transposed_block.case(1, 128, 128, 64, 3, False, stem="strided_block"),
        lambda: transposed_block.case(4, 128, 128, 64, 3, True, stem="strided_block"),
        lambda: transposed_block.case(8, 32, 24, 32, 5, True, stem="strided_block"),
    ],
    ids=["infer", "train", "train_conv", "transposed", "transposed_train", "strided", "strided_train", "strided_5x5"],
)
def test_the_block_runs_by_winograd_and_is_right(build):
    torch.manual_seed(0)
    rows = results(build())
    assert not [row.problem for row in rows.values() if row.problem]
    ours = [rows["inpaint_fast"], rows["inpaint_fast_nchw"]]
    assert all(row.backend.startswith("cpp (") and row.backend.endswith("), winograd") for row in ours)
    assert all(row.error not in (0, rows["eager"].error) for row in ours)  # they are not eager under another name


def test_the_backend_tells_where_the_direct_convolution_runs():
    assert results(dilated_block.infer(1, 8, 16, 1))["inpaint_fast"].backend.endswith("direct")


def test_norm_act_is_right():
    torch.manual_seed(0)
    assert not [row.problem for row in results(norm_act.case(2, 8, 16, "fresh")).values() if row.problem]


EAGER = ["eager", "eager_channels_last"]
TRAINED = {
    "context_cnn": ({"filters": 24, "code": 16}, EAGER),
    "unet_wgan": ({"filters": 24, "critic_filters": 4, "critic_steps": 2}, [*EAGER, "shared_pass"]),
}


@pytest.mark.parametrize("name", TRAINED)
def test_a_training_step_is_accelerated_and_right(name):
    settings, peers = TRAINED[name]
    case = training.train(name, batch_size=4, heldout_pictures=1, heldout_crops=1, **settings)
    implementations = [each for each in case.implementations if each.name not in SLOW]
    small = harness.Case(implementations, case.reference, case.bound, case.work, case.unit)
    ours, *others = harness.measure("small", small, 1)
    assert [row.implementation for row in others] == peers
    assert not [row.problem for row in (ours, *others) if row.problem]
    assert ours.error not in [row.error for row in others]


@pytest.mark.long
def test_peers_that_compile_or_load_a_model_are_right():
    torch.manual_seed(0)
    for module in ("openvino", "onnxruntime", "onnxscript"):
        pytest.importorskip(module)
    for case in (dilated_block.infer(1, 32, 16, 2), dilated_block.train(1, 32, 24, 2)):
        assert not [row.problem for row in harness.measure("small", case, 1) if row.problem]
    torch._dynamo.reset()


def test_the_cases_are_named_as_the_tables_have_them(capsys):
    assert dilated_block.main(["--list"]) == 0
    names = capsys.readouterr().out.split()
    assert len(names) == len(set(names)) == 48
    assert {
        "infer_b1_c256_64x64_d2",
        "infer_b4_c256_64x64_d16",
        "train_b4_c256_64x64_d8",
        "infer_b1_c512_56x56_d2",
    } <= (set(names))


@pytest.mark.parametrize(
    "benchmark",
    [dilated_block, glcic, masked_l2, norm_act, strided_block, transposed_block, weight_clip],
    ids=lambda b: b.__name__,
)
def test_a_gpu_has_cases_of_its_own(benchmark, capsys):
    assert benchmark.cases("cuda")
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit):
            benchmark.main(["--device", "cuda", "--list"])
        assert "--device cuda needs a GPU" in capsys.readouterr().err


@pytest.mark.parametrize("benchmark", [strided_block, transposed_block], ids=lambda b: b.__name__)
def test_stride_2_has_its_cases_in_both_dtypes_on_a_gpu(benchmark):
    names = [name.removeprefix("bf16_") for name in benchmark.cases("cuda") if name.startswith("bf16_")]
    on_cpu = [f"{k}_{name}" for k in ("infer", "train") for name in benchmark.SHAPES]
    assert list(benchmark.cases("cpu")) == on_cpu
    assert names == [name for name in on_cpu if not name.endswith("5x5")]  # which no kernel of ours takes there
    assert len(benchmark.cases("cuda")) == 2 * len(names)


def test_what_a_gpu_has_no_case_for_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(SystemExit):
        networks.main(["--device", "cuda", "--list"])
    assert "cases for the CPU alone" in capsys.readouterr().err


def test_the_stacks_of_a_gpu():
    """Here on the CPU: those that compile left out, and GPU backends that say why they cannot run."""
    x = torch.randn(4, 6, 5, 5)
    statistics = torch.zeros(6), torch.ones(6)

    def ours(layout):
        return lambda: ipf.norm_act(x.to(memory_format=layout), *statistics, activation="relu")

    def eager(layout):
        return lambda: F.relu(F.batch_norm(x.to(memory_format=layout), *statistics))

    stacks = peers.on_gpu("norm_act", ours, eager, lambda mode: eager(torch.contiguous_format), weight_gradient=True)
    case = harness.Case(stacks, lambda: F.relu(F.batch_norm(x.double(), *(s.double() for s in statistics))), 1e-6, 1.0,
                        "GB/s")  # fmt: skip
    rows = {result.implementation: result for result in harness.measure("small", case, 1)}
    assert len(rows) == 11
    for name, row in rows.items():  # Triton is interpreted here
        refused = name in ("inpaint_fast_cuda", "inpaint_fast_wgrad_sm_80", "inpaint_fast_wgrad_sm_90a")
        assert row.problem.startswith("not run: BackendError: norm_act: backend 'cuda'") if refused else not row.problem


def test_either_code_of_the_weights_gradient_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr(peers, "forced", lambda backend, ours: partial(ours, backend))
    variable = "INPAINT_FAST_CUDA_WEIGHT_GRADIENT"
    monkeypatch.delenv(variable, raising=False)
    for code in ("sm_80", "sm_90a"):
        run = peers.by_weight_gradient(code, lambda backend: (backend, os.environ.get(variable)))
        assert run() == ("cuda", code)
        assert variable not in os.environ
