"""Nothing that is passed to an operator ends the process, and what is computed is right."""

from __future__ import annotations

import pytest
import torch

from fuzz.__main__ import operators, run
from fuzz.public import NOT_DRAWN, PUBLIC
from fuzz.registered import names, recorded, stem_of
from fuzz.trial import difference
from inpaint_fast import _extension, ops
from inpaint_fast.ops._dispatch import OPERATORS
from inpaint_fast.ops._torch_private import has_kernel

pytestmark = pytest.mark.skipif(_extension.module is None, reason="the extension is not built")


def test_every_public_function_is_drawn() -> None:
    assert set(ops.__all__) - set(NOT_DRAWN) <= set(PUBLIC)
    assert {public.stem for public in PUBLIC.values()} == set(OPERATORS)


def test_drawn_calls_reach_every_registered_operator() -> None:
    compiled = [name for name in names("cpp") if has_kernel(name, "cpu")]
    assert not [name for name in compiled if name not in recorded(stem_of(name), "cpp")]


def test_results_without_a_number_are_told_apart_by_their_shapes() -> None:
    """Sizes that have no product are no sizes of what PyTorch would compute."""
    vast = {"result": torch.empty(0).as_strided((0, 2**31, 2**31, 2**31), (1, 1, 1, 1))}
    small = {"result": torch.empty(0, 1)}
    assert difference(vast, vast, vast) is None
    assert difference(small, vast, vast) == f"result: shape (0, 1), expected {tuple(vast['result'].shape)}"


def check(backends: list[str], calls: int) -> None:
    counts = run(operators(backends), calls)
    assert all(count.tried == calls for count in counts.values())
    assert not [words for count in counts.values() for words in count.deaths + count.wrong]


def test_some_calls_of_every_operator() -> None:
    check(["cpp"], 20)


@pytest.mark.long
@pytest.mark.parametrize(("backend", "calls"), [("cpp", 600), ("emulated", 600), ("triton", 60)])
def test_many_calls_of_every_operator(backend: str, calls: int) -> None:
    check([backend], calls)
