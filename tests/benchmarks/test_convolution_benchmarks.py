"""The benchmarks of convolutions and of norm_act on small shapes: whoever needs no compiler is right."""

import pytest
import torch

from inpaint_fast.benchmarks import dilated_block, harness, norm_act, transposed_block

SLOW = ("compile", "compile_freezing", "openvino", "onnxruntime")  # to prepare


def results(case):
    implementations = [each for each in case.implementations if each.name not in SLOW]
    assert len(implementations) == 4
    small = harness.Case(implementations, case.reference, case.bound, case.work, case.unit, memory="")
    return {result.implementation: result for result in harness.measure("small", small, 1)}


@pytest.mark.parametrize(
    "build",
    [
        lambda: dilated_block.infer(1, 32, 16, 2),
        lambda: dilated_block.train(1, 32, 24, 2),
        lambda: dilated_block.train(2, 32, 24, 2, norm=False),
        lambda: transposed_block.case(1, 32, 24, 16, False),
        lambda: transposed_block.case(1, 32, 24, 16, True),
        lambda: transposed_block.case(1, 32, 24, 32, False, stem="strided_block"),
        lambda: transposed_block.case(1, 32, 24, 32, True, stem="strided_block"),
    ],
    ids=["infer", "train", "train_conv", "transposed", "transposed_train", "strided", "strided_train"],
)
def test_the_block_runs_by_winograd_and_is_right(build):
    torch.manual_seed(0)
    rows = results(build())
    assert not [row.problem for row in rows.values() if row.problem]
    ours = [rows["inpaint_fast"], rows["inpaint_fast_nchw"]]
    assert all(row.backend.startswith("cpp (") and row.backend.endswith("), winograd") for row in ours)
    assert all(row.error > rows["eager"].error > 0 for row in ours)  # they are not eager under another name


def test_the_backend_tells_where_the_direct_convolution_runs():
    assert results(dilated_block.infer(1, 8, 16, 1))["inpaint_fast"].backend.endswith("direct")


def test_norm_act_is_right():
    torch.manual_seed(0)
    assert not [row.problem for row in results(norm_act.case(2, 8, 16, "fresh")).values() if row.problem]


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
    assert len(names) == len(set(names)) == 42
    assert {
        "infer_b1_c256_64x64_d2",
        "infer_b4_c256_64x64_d16",
        "train_b4_c256_64x64_d8",
        "infer_b1_c512_56x56_d2",
    } <= (set(names))
