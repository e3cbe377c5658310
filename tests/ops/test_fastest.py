"""What runs unasked on a GPU: by measurements on GPUs of its kind, and PyTorch's own operators everywhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from inpaint_fast.ops import _dispatch, _fastest
from inpaint_fast.ops._dispatch import OPERATORS
from inpaint_fast.ops._fastest import KINDS, TABLE, Fastest, fastest, read_table
from inpaint_fast.ops._plans import Facts, facts
from inpaint_fast.ops.conv_block import DILATED, HALVING, TRANSPOSED, Geometry
from inpaint_fast.ops.conv_block.plan import products

GPU = torch.device("cuda")
HEADER = "operator,capability,kind,backend,least,ours_ms,pytorch_ms,case,commit\n"
RIGHT = "norm_act,9.0,training,cuda,1000,0.6,1.1,a case,5f0774d\n"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """A GPU of that compute capability, for those who ask for its name and properties; a build that has its kernels."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(_dispatch, "why_not", lambda *_: None)

    def of(major: int, minor: int) -> None:
        facts = SimpleNamespace(major=major, minor=minor)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)

    of(9, 0)
    return of


def test_the_table_tells_of_operators_and_backends_that_are() -> None:
    for (stem, _, kind), found in TABLE.items():
        assert OPERATORS[stem].measured and kind in KINDS and found.backend in OPERATORS[stem].backends


def test_from_the_measured_size_on(gpu: Callable[[int, int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fastest, "TABLE", {("dilated_block", (9, 0), "inference"): Fastest("triton", 1000)})
    operator = OPERATORS["dilated_block"]
    for size, backend in ((0, "reference"), (999, "reference"), (1000, "triton"), (None, "triton")):
        assert operator.choose(GPU, None, "inference", size) == backend
    assert operator.choose(GPU, None, "training", 1000) == "reference"
    assert operator.choose(GPU, "cuda", "training", 1) == "cuda"
    assert operator.describe(GPU) == "triton for large inference runs; PyTorch's own otherwise"
    gpu(8, 0)
    assert operator.choose(GPU, None, "inference", 1000) == "reference"
    assert "no measurements for this GPU" in operator.describe(GPU)
    assert "no measurements" not in operator.describe(torch.device("cpu"))


def test_on_gpus_that_nobody_measured_pytorch_runs(gpu: Callable[[int, int], None]) -> None:
    gpu(12, 0)
    for stem, operator in OPERATORS.items():
        for kind in KINDS:
            assert operator.choose(GPU, None, kind) == ("reference" if operator.measured else "cuda"), stem


def test_sizes_of_convolutions() -> None:
    def of(block, geometry: Geometry, input: tuple[int, ...], weight: tuple[int, ...]) -> int:
        tensors = (torch.empty(shape, device="meta") for shape in (input, weight))
        return products(block, geometry, *Facts.all_of(map(facts, tensors)))

    assert of(DILATED, Geometry(2, 2, 2, 2), (16, 256, 64, 64), (256, 256, 3, 3)) == 16 * 64 * 64 * 9 * 256 * 256
    assert of(TRANSPOSED, HALVING, (1, 4, 8, 8), (4, 6, 4, 4)) == 8 * 8 * 16 * 4 * 6


@pytest.mark.parametrize(
    "rows",
    [
        RIGHT + RIGHT,
        RIGHT.replace("9.0", "hopper"),
        RIGHT.replace("1000", "many"),
        RIGHT.replace("training", "evaluation"),
        RIGHT.replace("cuda", "cpp"),
        RIGHT.replace("0.6", "1.2"),
        "norm_act,9.0\n",
    ],
)
def test_a_wrong_row_is_an_error(rows: str, tmp_path: Path) -> None:
    path = tmp_path / "fastest.csv"
    path.write_text(HEADER + RIGHT)
    assert read_table(path) == {("norm_act", (9, 0), "training"): Fastest("cuda", 1000)}
    path.write_text(HEADER + rows)
    with pytest.raises(ValueError, match=f"{path}, line "):
        read_table(path)


def test_what_nobody_measured_is_none() -> None:
    assert fastest("dilated_block", (1, 0), "inference", None) is None
