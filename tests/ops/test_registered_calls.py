"""Registered operators called directly, past the Python functions: what does not fit is an error that names it, before
anything is read or written, in C++ on the CPU, in CUDA (emulated) and in Triton (interpreted), in the same words.
What asks for too much is test_too_much.py's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from emulation.build import load
from torch import Tensor

from inpaint_fast import _extension
from inpaint_fast._words import triton_interpreted
from inpaint_fast.kernels import interpreter_fault
from inpaint_fast.ops._dispatch import OPERATORS

HUGE = 2**62

pytestmark = pytest.mark.skipif(_extension.module is None, reason="the extension is not built")


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


def without_memory(*shape: int) -> Tensor:
    """A tensor whose storage was given back, as sharded training does."""
    tensor = torch.ones(shape)
    tensor.untyped_storage().resize_(0)
    return tensor


def unaligned(*shape: int) -> Tensor:
    """Floats at an odd address, as a file in memory may have them."""
    return torch.frombuffer(bytearray(4 * math.prod(shape) + 1), dtype=torch.float32, offset=1).view(shape)


def doubles(*shape: int) -> Tensor:
    return zeros(*shape, dtype=torch.float64)


# ---- one right call of each operator, and what is wrong with others ----

# operator -> its arguments by name, in the order of its schema.
RIGHT: dict[str, dict[str, Any]] = {}
# (operator, what differs from the right call, the words of the error)
WRONG: list[tuple[str, dict[str, Any], str]] = []


def operator(name: str, right: dict[str, Any], wrong: list[tuple[dict[str, Any], str]]) -> None:
    RIGHT[name] = right
    WRONG.extend((name, changes, words) for changes, words in wrong)


X, W = torch.ones(1, 4, 8, 8), torch.ones(6, 4, 3, 3)
EPILOGUE = {"bias": None, "scale": None, "shift": None}
SETTINGS = {"activation": 0, "slope": 0.0, "order": 0}


def wrong_pictures(name: str) -> list[tuple[dict[str, Any], str]]:
    return [
        ({name: zeros(4, 8, 8)}, f"{name}: 4 dimensions are expected, got 3"),
        ({name: X.double()}, f"{name}: its dtype is not float32"),
        ({name: X.long()}, f"{name}: its dtype is not float32"),
        ({name: without_memory(1, 4, 8, 8)}, f"{name}: a tensor with memory"),
        ({name: unaligned(1, 4, 8, 8)}, f"{name}: elements at multiples"),
        ({name: X.to("meta")}, "all tensors on the meta device are expected, or none"),
        ({name: zeros(1, 4, 1, 1).expand(1, 4, 2**28, 1)}, r"below 2\^28"),
        ({name: zeros(1, 4, 1, 1).expand(2**32, 4, 2**14, 2**14)}, "too large"),
    ]


def wrong_weights(weight: Tensor = W) -> list[tuple[dict[str, Any], str]]:
    return [
        ({"weight": zeros(6, 4, 6, 6)}, "weight: 3x3 taps"),
        ({"weight": zeros(6, 4, 3, 4)}, "weight: 3x3 taps"),
        ({"weight": zeros(4, 3, 3)}, "weight: 4 dimensions"),
        ({"weight": weight.double()}, "weight: its dtype"),
        ({"weight": without_memory(*weight.shape)}, "weight: a tensor with memory"),
    ]


WRONG_GEOMETRY = [
    ({"geometry": [1, 1, 1]}, "geometry: .*got 3 numbers"),
    ({"geometry": []}, "geometry: .*got 0 numbers"),
    ({"geometry": [1] * 5}, "geometry: .*got 5 numbers"),
    ({"geometry": [0, 1, 1, 1]}, "dilation: at least 1"),
    ({"geometry": [1, -1, 1, 1]}, "dilation: at least 1"),
    ({"geometry": [HUGE] * 4}, r"below 2\^28"),
    ({"geometry": [1, 1, HUGE, 1]}, r"below 2\^28"),
    ({"geometry": [1, 1, 1, -HUGE]}, r"below 2\^28"),
    ({"geometry": [2**28] * 4}, r"below 2\^28"),
]
WRONG_EPILOGUE = [
    ({"bias": zeros(7)}, "bias: one number for each output channel"),
    ({"bias": zeros(6, 1)}, "bias: 1 dimensions"),
    ({"scale": doubles(6)}, "scale: its dtype"),
    ({"shift": without_memory(6)}, "shift: a tensor with memory"),
    ({"activation": 6}, "activation: 0 to 5 is expected, got 6"),
    ({"activation": -HUGE}, "activation: 0 to 5"),
]
WRONG_STATISTICS = [each for each in WRONG_EPILOGUE if "scale" not in each[0] and "shift" not in each[0]]
WRONG_FORWARD = [
    *WRONG_EPILOGUE,
    ({"order": 2}, "order: 0 or 1 is expected, got 2"),
    ({"order": -1}, "order: 0 or 1"),
    ({"transformed": zeros(7)}, "transformed: it is not of this weight"),
    ({"transformed": zeros(1, 7)}, "transformed: 1 dimensions"),
    ({"transformed": doubles(7)}, "transformed: its dtype"),
]
SMALL = ({"geometry": [9, 9, 0, 0]}, "smaller than the dilated weights")
CHANNELS = ({"weight": zeros(6, 5, 3, 3)}, "weight: its channels are not")

operator(
    "dilated_block",
    {"input": X, "weight": W, "transformed": None, **EPILOGUE, "geometry": [1, 1, 1, 1], **SETTINGS,
     "channels_last": False, "matrix_units": False},
    [*wrong_pictures("input"), *wrong_weights(), *WRONG_GEOMETRY, *WRONG_FORWARD, SMALL, CHANNELS],
)  # fmt: skip
operator(
    "dilated_block_statistics",
    {"input": X, "weight": W, "bias": None, "geometry": [1, 1, 1, 1], "activation": 0, "slope": 0.0,
     "channels_last": False, "matrix_units": False},
    [*wrong_pictures("input"), *wrong_weights(), *WRONG_GEOMETRY, *WRONG_STATISTICS, SMALL, CHANNELS],
)  # fmt: skip
operator(
    "dilated_block_weights",
    {"weight": W, "tile": 4, "matrix_units": False},
    [*wrong_weights(), ({"tile": 5}, "tile: 4 or 6"), ({"tile": HUGE}, "tile: 4 or 6")],
)
operator(
    "dilated_block_input_gradient",
    {
        "grad": torch.ones(1, 6, 8, 8),
        "weight": W,
        "geometry": [1, 1, 1, 1],
        "channels_last": False,
        "matrix_units": False,
    },
    [
        *wrong_pictures("grad"),
        *wrong_weights(),
        *WRONG_GEOMETRY,
        ({"grad": X}, "grad: its channels are not"),
        ({"geometry": [1, 1, 9, 9]}, "grad: smaller"),
        ({"geometry": [1, 1, 2 - 2**28, 1]}, r"below 2\^28"),
    ],
)
operator(
    "dilated_block_weight_gradient",
    {"grad": torch.ones(1, 6, 8, 8), "input": X, "weight": W, "geometry": [1, 1, 1, 1], "matrix_units": False},
    [
        *wrong_pictures("input"),
        *wrong_weights(),
        *WRONG_GEOMETRY,
        ({"grad": X}, "grad: its channels are not"),
        ({"grad": torch.ones(1, 6, 7, 8)}, "grad: it is not of that input's output"),
        ({"grad": torch.ones(2, 6, 8, 8)}, "grad: it is not of that input's output"),
        ({"grad": torch.ones(6, 8, 8)}, "grad: 4 dimensions"),
        ({"grad": torch.ones(1, 6, 8, 8).double()}, "grad: its dtype"),
        ({"grad": without_memory(1, 6, 8, 8)}, "grad: a tensor with memory"),
    ],
)
for stem, weight, grad in (
    ("strided_block", W, (1, 6, 4, 4)),
    ("transposed_block", torch.ones(4, 6, 3, 3), (1, 6, 16, 16)),
):
    of_five = zeros(6, 5, 3, 3) if stem == "strided_block" else zeros(5, 6, 3, 3)
    other_channels = {"weight": of_five}, "weight: its channels are not"
    operator(
        stem,
        {"input": X, "weight": weight, "transformed": None, **EPILOGUE, **SETTINGS, "channels_last": False,
         "matrix_units": False},
        [*wrong_pictures("input"), *wrong_weights(weight), *WRONG_FORWARD, other_channels],
    )  # fmt: skip
    operator(
        f"{stem}_statistics",
        {"input": X, "weight": weight, "bias": None, "activation": 0, "slope": 0.0, "channels_last": False,
         "matrix_units": False},
        [*wrong_pictures("input"), *wrong_weights(weight), *WRONG_STATISTICS, other_channels],
    )  # fmt: skip
    operator(f"{stem}_weights", {"weight": weight, "matrix_units": False}, wrong_weights(weight))
    operator(
        f"{stem}_weight_gradient",
        {"grad": torch.ones(grad), "input": X, "weight": weight, "matrix_units": False},
        [
            *wrong_pictures("input"),
            *wrong_weights(weight),
            ({"grad": torch.ones(1, 6, 3, 3)}, "grad: it is not of that input's output"),
            ({"grad": torch.ones(1, 5, *grad[2:])}, "grad: its channels are not"),
            ({"grad": torch.ones(grad).double()}, "grad: its dtype"),
        ],
    )

PICTURE = torch.ones(2, 3, 4, 4)
WRONG_LOSS = [
    ({"pred": PICTURE.long()}, "pred: its dtype"),
    ({"pred": torch.ones([1] * 6)}, "pred: at most 5 dimensions, got 6"),
    ({"pred": without_memory(2, 3, 4, 4)}, "pred: a tensor with memory"),
    ({"pred": unaligned(2, 3, 4, 4)}, "pred: elements at multiples"),
    ({"pred": PICTURE.to("meta")}, "all tensors on the meta device are expected, or none"),
    ({"mask": zeros(2, 2, 4, 4)}, "mask: size 3 or 1 is expected in dimension 1, got 2"),
    ({"mask": zeros(4, 4)}, "mask: the dimensions of pred, 4, are expected, got 2"),
    ({"mask": PICTURE.long()}, "mask: its dtype"),
    ({"mask": without_memory(2, 3, 4, 4)}, "mask: a tensor with memory"),
    ({"reduction": 3}, "reduction: 0, 1 or 2"),
    ({"reduction": -HUGE}, "reduction: 0, 1 or 2"),
]
WRONG_TARGET = [
    ({"target": zeros(1)}, "target: its shape is not that of pred"),
    ({"target": PICTURE.double()}, "target: its dtype is not that of pred"),
    ({"target": without_memory(2, 3, 4, 4)}, "target: a tensor with memory"),
]
LOSS = {"weight": 1.0, "reduction": 1}
operator(
    "masked_l2",
    {"pred": PICTURE, "target": PICTURE, "mask": None, **LOSS, "want_grad": True},
    [*WRONG_LOSS, *WRONG_TARGET],
)
operator(
    "masked_l2_composite",
    {"pred": PICTURE, "image": PICTURE, "mask": PICTURE, **LOSS, "want_grad": True},
    [*WRONG_LOSS, ({"image": zeros(1)}, "target: its shape")],
)
WRONG_NUMBER = [(zeros(2), "one element is expected, got 2"), (torch.ones((), dtype=torch.int64), "its dtype"),
                (without_memory(1), "a tensor with memory")]  # fmt: skip
operator(
    "masked_l2_backward",
    {"grad_loss": torch.ones(()), "pred": PICTURE, "target": PICTURE, "mask": None, **LOSS},
    [*WRONG_LOSS, *WRONG_TARGET, *(({"grad_loss": value}, f"grad_loss: {words}") for value, words in WRONG_NUMBER)],
)
operator(
    "masked_l2_scale_",
    {"grad": torch.ones(2, 3), "scale": torch.tensor(2.0)},
    [
        ({"grad": torch.ones(3, dtype=torch.int64)}, "grad: its dtype"),
        ({"grad": zeros(1).expand(10**9)}, "grad: elements that fill its memory"),
        ({"grad": torch.ones(8)[::2]}, "grad: elements that fill its memory"),
        ({"grad": without_memory(2, 3)}, "grad: a tensor with memory"),
        *(({"scale": value}, f"scale: {words}") for value, words in WRONG_NUMBER),
    ],
)

V, C3, C64 = torch.ones(2, 3, 4, 4), torch.ones(3), torch.ones(3, dtype=torch.float64)
OF_CHANNELS = [
    (zeros(2), "one number for each of 3 channels"),
    (zeros(3, 1), "one number for each of 3 channels"),
    (C3.long(), "its dtype"),
    (without_memory(3), "a tensor with memory"),
]


def of_channels(*names: str) -> list[tuple[dict[str, Any], str]]:
    return [({name: value}, f"{name}: {words}") for name in names for value, words in OF_CHANNELS]


WRONG_INPUT = [
    ({"input": torch.zeros(3)}, "input: at least 2 dimensions"),
    ({"input": V.long()}, "input: its dtype"),
    ({"input": without_memory(2, 3, 4, 4)}, "input: a tensor with memory"),
    ({"input": unaligned(2, 3, 4, 4)}, "input: elements at multiples"),
    ({"activation": 6}, "activation: 0 to 5"),
    ({"activation": -1}, "activation: 0 to 5"),
    ({"order": 2}, "order: 0 or 1"),
]
operator(
    "norm_act",
    {"input": V, "running_mean": C3, "running_var": C3, "weight": None, "bias": None, "batch_mean": None,
     "batch_var": None, "training": True, "momentum": 0.1, "eps": 1e-5, "activation": 1, "slope": 0.0, "order": 0},
    [
        *WRONG_INPUT,
        *of_channels("running_mean", "running_var", "weight", "bias"),
        ({"running_var": None}, "running_mean, running_var: both or none"),
        ({"running_mean": None, "running_var": None, "training": False}, "running_mean: it is needed"),
        ({"batch_mean": C64}, "batch_mean, batch_var: both or none"),
        ({"batch_mean": C64, "batch_var": C64, "training": False}, "batch_mean: none is expected"),
        ({"batch_mean": C64[:2], "batch_var": C64}, "batch_mean: one number for each"),
        ({"batch_mean": C64, "batch_var": C3}, "batch_var: its dtype is not float64"),
        ({"input": V[:1, :, :1, :1]}, "more than 1 value per channel"),
    ],
)  # fmt: skip
operator(
    "norm_act_backward",
    {"grad": V, "input": V, "weight": None, "bias": None, "mean": C64, "invstd": C64, "training": True,
     "activation": 1, "slope": 0.0, "order": 0, "want_input": True, "want_parameters": True},
    [
        *WRONG_INPUT[:1],
        *WRONG_INPUT[3:],
        *of_channels("weight", "bias", "mean", "invstd"),
        ({"grad": V[:1]}, "grad: its shape is not that of input"),
        ({"grad": V.double()}, "grad: its dtype is not that of input"),
        ({"grad": without_memory(2, 3, 4, 4)}, "grad: a tensor with memory"),
        ({"mean": C3}, "mean: its dtype is not float64"),
    ],
)  # fmt: skip

operator(
    "weight_clip",
    {"tensors": [torch.ones(3), torch.ones(2, 2)], "low": -0.1, "high": 0.1},
    [
        ({"tensors": [torch.ones(3).long()]}, "tensors: a dtype is not floating point"),
        ({"tensors": [torch.ones(3), torch.ones(3).half()]}, "tensors: tensors of one dtype"),
        ({"tensors": [torch.ones(1, 3).expand(2, 3)]}, "share memory"),
        ({"tensors": [torch.ones(9).as_strided((3, 3), (1, 1))]}, "share memory"),
        ({"tensors": [torch.ones(3), unaligned(3)]}, r"tensors\[1\]: elements at multiples"),
        ({"tensors": [torch.ones(3), torch.ones(3, device="meta")]}, "all tensors on the meta device"),
        ({"tensors": [torch.ones(2, 2, 2, 2, 2, 4)[..., ::2]]}, "at most 5 dimensions is expected, got 6"),
        ({"tensors": [without_memory(3)]}, r"tensors\[0\]: a tensor with memory"),
        ({"tensors": [torch.ones(2), torch._neg_view(torch.ones(3))]}, "negation"),
        ({"tensors": [torch._efficientzerotensor(3)]}, "immutable"),
    ],
)


def lists(**changes: list[Tensor]) -> dict[str, Any]:
    ones = [torch.ones(3), torch.ones(2, 2)]
    names = {name: [t.clone() for t in ones] for name in ("params", "grads", "state0", "state1")}
    return names | {"state2": [], "steps": [torch.zeros(()), torch.zeros(())]} | changes


STEP = {"rule": 1, "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0, "low": -1.0, "high": 1.0,
        "maximize": False, "variant": False, "first": False, "decoupled": False,
        "grad_scale": None, "found_inf": None, "rate": None}  # fmt: skip
operator(
    "clipped_step",
    lists() | STEP,
    [
        ({"rule": 0}, "rule: 1 to 4"),
        ({"rule": 9}, "rule: 1 to 4"),
        ({"params": []}, "params: they are missing"),
        ({"grads": []}, "grads: they are missing"),
        ({"state0": []}, "state0: it is missing"),
        ({"state1": []}, "state1: it is missing"),
        ({"rule": 2, "state0": []}, "state0: it is missing"),
        ({"rule": 4, "state0": []}, "state0: it is missing"),
        ({"rule": 4, "state1": []}, "state1: it is missing"),
        ({"variant": True}, "state2: it is missing"),
        ({"steps": []}, "steps: they are missing"),
        *(({name: lists()[name][:1]}, f"{name}: 2 tensors are expected, got 1")
          for name in ("grads", "state0", "state1", "steps")),
        ({"state2": [torch.ones(3)]}, "state2: 2 tensors are expected, got 1"),
        ({"grads": [torch.ones(4), torch.ones(2, 2)]}, r"grads\[0\]: its shape is not that of its parameter"),
        ({"grads": [torch.ones(3), torch.ones(4)]}, r"grads\[1\]: its shape is not that of its parameter"),
        ({"grads": [t.double() for t in lists()["grads"]]}, "the dtype of params"),
        ({"params": [t.long() for t in lists()["params"]]}, "params: a dtype is not floating point"),
        ({"grads": [without_memory(3), torch.ones(2, 2)]}, r"grads\[0\]: a tensor with memory"),
        ({"steps": [torch.zeros(()), torch.zeros(2)]}, "steps: float32 numbers"),
        ({"steps": [torch.zeros(()), doubles()]}, "steps: float32 numbers"),
        ({"steps": [torch.zeros(()), without_memory()]}, "steps: a tensor with memory"),
        ({"grad_scale": torch.ones(2)}, "grad_scale: one float32"),
        ({"found_inf": doubles()}, "found_inf: one float32"),
        ({"rate": torch.ones(())}, "rate: one float64"),
        ({"found_inf": without_memory()}, "found_inf: a tensor with memory"),
    ],
)  # fmt: skip


# ---- the tests ----

STEMS = {name: operator.stem for operator in OPERATORS.values() for name in operator.definitions}
INTERPRETED = pytest.mark.skipif(
    not triton_interpreted() or interpreter_fault() is not None, reason="Triton's interpreter is not in use"
)
SUFFIXES = ["", "_emulated", pytest.param("_triton", marks=INTERPRETED)]
KINDS = [
    *((name, "") for name in RIGHT if not name.endswith("_statistics")),
    *((name, "_emulated") for name in RIGHT),
    *(pytest.param(name, "_triton", marks=INTERPRETED) for name in RIGHT),
]


def registered(name: str, suffix: str) -> Callable[..., Any]:
    if suffix == "_emulated":
        load(STEMS[name])
    return getattr(torch.ops.inpaint_fast, name + suffix)


def test_every_operator_is_here() -> None:
    assert set(RIGHT) == set(STEMS)


@pytest.mark.parametrize(("name", "suffix"), KINDS, ids="".join)
def test_what_does_not_fit_is_an_error(name: str, suffix: str) -> None:
    call, right = registered(name, suffix), RIGHT[name]
    call(*right.values())
    for changes, words in (each[1:] for each in WRONG if each[0] == name):
        if suffix and words.startswith(("input: its dtype is not float32", "grad: its dtype is not float32")):
            words = words.replace("float32", "float32, float16 or bfloat16")
        before = [t.clone() for t in tensors_of(right)]
        with pytest.raises(RuntimeError, match=words):
            call(*(right | changes).values())
        assert all(torch.equal(a, b) for a, b in zip(before, tensors_of(right), strict=True)), changes


@pytest.mark.parametrize("stem", ["dilated_block", "strided_block", "transposed_block"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_transformed_weights_lie_one_after_the_other(stem: str, suffix: str) -> None:
    """Kernels read them so, whatever their strides: past the one number of these."""
    of_weight = RIGHT[f"{stem}_weights"]
    transformed = registered(f"{stem}_weights", suffix)(*of_weight.values())
    call = registered(stem, suffix)
    call(*(RIGHT[stem] | {"transformed": transformed}).values())
    with pytest.raises(RuntimeError, match="transformed: it is not of this weight"):
        call(*(RIGHT[stem] | {"transformed": transformed[:1].expand(transformed.shape)}).values())


def tensors_of(arguments: dict[str, Any]) -> list[Tensor]:
    flat = [t for value in arguments.values() for t in (value if isinstance(value, list) else [value])]
    return [t for t in flat if isinstance(t, Tensor)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_at_all(suffix: str) -> None:
    """Sizes of 0, which masks of one picture, weights and lists are broadcast over."""
    for shape, mask in (((0, 3, 8, 8), (1, 1, 8, 8)), ((2, 0, 8, 8), (1, 1, 8, 8)), ((2, 3, 0, 8), (1, 1, 1, 8)),
                        ((2, 3, 0, 8), (1, 1, 0, 8)), ((0,), (1,))):  # fmt: skip
        empty, expanded = torch.empty(shape), torch.ones(mask).expand(shape)
        for mask_of in (expanded, expanded.bool(), None):
            for reduction, value in ((0, 0.0), (1, float("nan")), (2, 0.0)):
                loss, grad = registered("masked_l2", suffix)(empty, empty, mask_of, 1.0, reduction, True)
                assert grad.shape == empty.shape and (loss.item() == value or loss.isnan().item() == (value != value))
                back = registered("masked_l2_backward", suffix)(loss, empty, empty, mask_of, 1.0, reduction)
                assert back.shape == empty.shape
        composite = registered("masked_l2_composite", suffix)(empty, empty, expanded, 1.0, 2, True)[1]
        assert composite.shape == empty.shape
    for shape in ((0, 3, 4), (2, 3, 0), (2, 0, 4)):
        x, c = torch.empty(shape), torch.ones(shape[1])
        y, mean, invstd, *_ = registered("norm_act", suffix)(
            x, c, c, None, None, None, None, True, 0.1, 1e-5, 1, 0.0, 0
        )
        assert y.shape == x.shape
        registered("norm_act_backward", suffix)(x, x, c, c, mean, invstd, True, 1, 0.0, 0, True, True)
    registered("weight_clip", suffix)([torch.empty(0, 3), torch.empty(3, 0)], 0.0, 1.0)
