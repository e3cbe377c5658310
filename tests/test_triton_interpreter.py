"""Triton's interpreter as the tests have it: what kernels call is there, and overflows are found where it is asked."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.interpreter import InterpreterError
from triton_interpreter import overflows_are_errors

from inpaint_fast._words import triton_interpreted
from inpaint_fast.kernels import interpreter_fault

pytestmark = pytest.mark.skipif(not triton_interpreted() or interpreter_fault() is not None, reason="it is not in use")


@triton.jit
def larger(x, y):
    return tl.where(x > y, x, y)


@triton.jit
def sums_kernel(values, sums, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    found = tl.load(values + at)
    tl.store(sums, tl.sum(found, axis=0))
    tl.store(sums + 1, tl.reduce(found, 0, larger))
    tl.store(sums + 2, tl.sum(larger(found, -found), axis=0))


@triton.jit
def double_kernel(values):
    tl.store(values, tl.load(values) + tl.load(values))


def test_functions_of_a_kernel_and_of_the_language() -> None:
    values, sums = torch.tensor([1.0, -5.0, 3.0, 2.0]), torch.empty(3)
    for _ in range(2):  # what a launch replaces it puts back
        sums_kernel[(1,)](values, sums, SIZE=4)
        assert sums.tolist() == [1.0, 3.0, 11.0]
        assert type(tl.sum).__name__ == "InterpretedFunction" and tl.load.__module__ == "triton.language.core"


def test_an_overflow_is_found_where_it_is_asked_for() -> None:
    values = torch.tensor([2**30], dtype=torch.int32)
    with overflows_are_errors(), pytest.raises(InterpreterError, match="overflow"):
        double_kernel[(1,)](values)
    assert values.item() == 2**30
    double_kernel[(1,)](values // 2)


def test_a_function_that_fails_is_an_error_of_the_interpreter() -> None:
    with pytest.raises(InterpreterError):
        sums_kernel[(1,)](torch.ones(4), None, SIZE=4)
