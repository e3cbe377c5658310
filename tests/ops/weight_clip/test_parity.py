"""clip_weights_ and clipped_step: every implementation against the reference in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import assert_as_good
from torch import Tensor

import inpaint_fast as ipf
from inpaint_fast._words import RULES
from inpaint_fast.ops._dispatch import OPERATORS
from inpaint_fast.ops.weight_clip import Settings, clipped_step, reference_step

STEM = "weight_clip"
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SHAPES = [(), (1,), (3,), (0, 4), (17,), (5, 7), (4, 3, 4, 4), (2, 3, 67), (1031,)]
FAST_BACKENDS = ["reference", "cpp"] if ipf._extension.module else ["reference"]

VARIANTS = {
    "adam": Settings(1, 1e-2, 0.9, 0.999, 1e-8),
    "adam-amsgrad-decay-maximize": Settings(1, 1e-2, 0.5, 0.99, 1e-8, 0.1, maximize=True, variant=True),
    "adam-decay-decoupled": Settings(1, 1e-1, 0.9, 0.999, 1e-8, 0.5, decoupled=True),
    "rmsprop": Settings(2, 1e-2, 0.99, 0.0, 1e-8),
    "rmsprop-inside-centered-momentum": Settings(2, 1e-2, 0.9, 0.8, 1e-6, variant=True),
    "sgd": Settings(3, 1e-1),
    "sgd-momentum-dampening-decay": Settings(3, 1e-1, 0.9, 0.5, weight_decay=0.1),
    "sgd-decay-decoupled": Settings(3, 1e-1, weight_decay=0.5, decoupled=True),
    "sgd-nesterov-first": Settings(3, 1e-1, 0.9, variant=True, first=True),
    "adadelta": Settings(4, 1.0, 0.9, eps=1e-6),
}


def lists_for(name: str, dtype: torch.dtype, device: str = "cpu") -> tuple[list[Tensor], ...]:
    """params, grads, state0, state1, state2, steps as the rule wants them; states as after some steps."""
    generator = torch.Generator().manual_seed(3)

    def make(scale: float, shift: float = 0.0) -> list[Tensor]:
        return [
            (torch.rand(shape, generator=generator, dtype=torch.float64) * scale + shift).to(dtype).to(device)
            for shape in SHAPES
        ]

    rule = RULES[VARIANTS[name].rule]
    states = {"adam": 2, "rmsprop": 1, "sgd": 1 if VARIANTS[name].beta1 else 0, "adadelta": 2}[rule]
    state = [make(0.5, 0.25) if k < states else [] for k in range(3)]
    if "amsgrad" in name:
        state[2] = make(0.5, 0.25)
    if "centered" in name:
        state[1], state[2] = make(1), make(0.1)
    steps = [torch.full((), 4.0, device=device) for _ in SHAPES] if rule != "sgd" else []
    return make(2, -1), make(2, -1), *state, steps


@pytest.mark.proves(
    "clip_weights_",
    equals="p.clamp_(-bound, bound) of each tensor",
    source="Arjovsky et al. (2017), algorithm 1",
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bound", [0.3, (-0.5, 0.1), 0.0], ids=str)
def test_clip_equals_clamp(implementation, dtype, bound) -> None:
    tensors = [torch.randn(shape).to(dtype).to(implementation.device) for shape in SHAPES]
    tensors[4][3], tensors[4][5], tensors[4][7] = math.nan, math.inf, -math.inf
    low, high = bound if isinstance(bound, tuple) else (-bound, bound)
    expected = [tensor.clamp(low, high) for tensor in tensors]
    ipf.clip_weights_(tensors, bound, backend=implementation.backend)
    for tensor, want in zip(tensors, expected, strict=True):
        assert torch.equal(tensor.nan_to_num(9), want.nan_to_num(9))


@pytest.mark.skipif(not ipf._extension.module, reason="the module is not built")
@pytest.mark.parametrize("low", [-0.5, 0.0])
def test_views_that_stand_for_negated_numbers(low: float) -> None:
    """Bounds that lie about 0 bound them alike; others are refused, and nothing is changed."""
    view = torch._neg_view(torch.tensor([-0.75, 0.75, 0.25, -0.25]))
    before = view.resolve_neg().clone()
    if low == 0:
        with pytest.raises(RuntimeError, match="negation"):
            ipf.clip_weights_([view], (low, 0.5), backend="cpp")
        assert torch.equal(view.resolve_neg(), before)
    else:
        ipf.clip_weights_([view], (low, 0.5), backend="cpp")
        assert torch.equal(view.resolve_neg(), before.clamp(-0.5, 0.5))


@pytest.mark.proves(
    "ClippedAdam",
    "ClippedAdamW",
    "ClippedRMSprop",
    "ClippedSGD",
    "Adadelta",
    equals="torch.optim's step, then the clip, in float64",
    within="as good as PyTorch",
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", VARIANTS)
def test_step_parity(implementation, dtype, name) -> None:
    settings = VARIANTS[name]._replace(low=-0.8, high=0.7)
    ours, plain = lists_for(name, dtype, implementation.device), lists_for(name, dtype)
    exact = [
        [t.double() if t.ndim or k < 5 else t.clone() for t in part] for k, part in enumerate(lists_for(name, dtype))
    ]
    clipped_step(*ours, settings, backend=implementation.backend)
    reference_step(*plain, settings)
    reference_step(*exact, settings)
    for k in (0, 2, 3, 4):
        for value, same, want in zip(ours[k], plain[k], exact[k], strict=True):
            if value.numel():
                assert_as_good(value.cpu(), same, want)
    assert all(step.item() == 5 for step in ours[5])
    assert all(param.abs().max() <= 0.8 for param in ours[0] if param.numel())


@pytest.mark.parametrize(
    "name", ["adam", "rmsprop-inside-centered-momentum", "sgd-momentum-dampening-decay", "adadelta"]
)
def test_views_of_any_stride(implementation, name) -> None:
    lists = lists_for(name, torch.float32, implementation.device)
    expected = [[tensor.clone() for tensor in part] for part in lists]

    def strided(tensor: Tensor, k: int) -> Tensor:
        if tensor.dim() < 2 or k == 5:
            return tensor
        if tensor.dim() == 4 and k != 1:
            return tensor.contiguous(memory_format=torch.channels_last)
        larger = tensor.new_zeros(*tensor.shape[:-1], 2 * tensor.shape[-1])
        larger[..., ::2] = tensor
        return larger[..., ::2]

    views = [[strided(tensor, k) for tensor in part] for k, part in enumerate(lists)]
    settings = VARIANTS[name]._replace(low=-0.8, high=0.7)
    clipped_step(*views, settings, backend=implementation.backend)
    clipped_step(*expected, settings, backend=implementation.backend)
    for part, want in zip(views, expected, strict=True):
        for value, plain in zip(part, want, strict=True):
            torch.testing.assert_close(value, plain, rtol=1e-6, atol=1e-7)


def test_clip_of_views_changes_the_view_alone(implementation) -> None:
    whole = torch.full((6, 8), 5.0, device=implementation.device)
    ipf.clip_weights_([whole[::2, 1:7:2], whole.t()[7]], 1.0, backend=implementation.backend)
    expected = torch.full((6, 8), 5.0, device=implementation.device)
    expected[::2, 1:7:2] = expected[:, 7] = 1.0
    assert torch.equal(whole, expected)


def test_scale_and_found_inf(implementation) -> None:
    device = implementation.device
    scaled, plain = lists_for("adam", torch.float32, device), lists_for("adam", torch.float32, device)
    for grad in scaled[1]:
        grad *= 1024
    scale, no, yes = (torch.tensor(x, device=device) for x in (1024.0, 0.0, 1.0))
    clipped_step(*scaled, VARIANTS["adam"], scale, no, backend=implementation.backend)
    clipped_step(*plain, VARIANTS["adam"], backend=implementation.backend)
    for part, want in zip(scaled[2:], plain[2:], strict=True):
        for value, expected in zip(part, want, strict=True):
            torch.testing.assert_close(value, expected)
    before = [[tensor.clone() for tensor in part] for part in plain]
    clipped_step(*plain, VARIANTS["adam"], None, yes, backend=implementation.backend)
    for part, want in zip(plain, before, strict=True):
        assert all(torch.equal(value, expected) for value, expected in zip(part, want, strict=True))


def test_a_grad_scale_beyond_float16(implementation) -> None:
    device = implementation.device
    param, grad = (torch.full((8,), x, dtype=torch.float16, device=device) for x in (1.0, 32768.0))
    scale = torch.tensor(65536.0, device=device)
    clipped_step([param], [grad], [], [], [], [], Settings(3, 0.1), scale, backend=implementation.backend)
    assert (param == torch.tensor(0.95, dtype=torch.float16)).all()


@given(st.lists(st.tuples(st.lists(st.integers(0, 9), max_size=4), st.sampled_from(DTYPES), st.booleans()), max_size=6))
def test_any_list_of_tensors(description) -> None:
    for backend in FAST_BACKENDS:
        tensors = []
        for shape, dtype, turned in description:
            tensor = torch.randn(shape).to(dtype)
            tensors.append(tensor.mT if turned and tensor.dim() > 1 else tensor)
        expected = [tensor.clamp(-0.5, 0.5) for tensor in tensors]
        ipf.clip_weights_(tensors, 0.5, backend=backend)
        assert all(torch.equal(tensor, want) for tensor, want in zip(tensors, expected, strict=True))


def test_parameters_shared_storage_and_one_tensor() -> None:
    network = torch.nn.Linear(5, 5)
    network.weight.data.mul_(100)
    ipf.clip_weights_(network.parameters(), 0.01)
    assert max(p.abs().max() for p in network.parameters()) <= 0.01
    tensor = torch.full((4,), 3.0)
    ipf.clip_weights_([tensor, tensor[:2], tensor], (1, 2))
    ipf.clip_weights_(tensor, (0, 1.5))
    assert (tensor == 1.5).all()
    ipf.clip_weights_([], 1.0)


def test_autograd_notices_the_change() -> None:
    weight = torch.ones(3, requires_grad=True)
    loss = weight.square().sum()
    ipf.clip_weights_([weight], 0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.proves("clip_weights_", equals="what torch.library promises", within="opcheck's")
@pytest.mark.once_a_backend
def test_opcheck(implementation) -> None:
    suffix = OPERATORS["weight_clip"].suffixes.get(implementation.backend)
    if suffix is None:
        return  # the reference is plain PyTorch, no registered operator
    device = implementation.device
    clip = getattr(torch.ops.inpaint_fast, f"weight_clip{suffix}").default
    torch.library.opcheck(clip, ([torch.randn(5, device=device), torch.randn(2, 3, device=device)], -0.5, 0.5))
    step = getattr(torch.ops.inpaint_fast, f"clipped_step{suffix}").default
    lists = lists_for("adam", torch.float32, device)
    torch.library.opcheck(step, (*lists, *VARIANTS["adam"]._asdict().values(), None, None, None))


def test_compile() -> None:
    def clip(tensors: list[Tensor]) -> None:
        ipf.clip_weights_(tensors, 0.5)

    torch._dynamo.reset()
    tensors = [torch.randn(7), torch.randn(3, 3)]
    expected = [tensor.clamp(-0.5, 0.5) for tensor in tensors]
    torch.compile(clip, backend="aot_eager")(tensors)
    assert all(torch.equal(tensor, want) for tensor, want in zip(tensors, expected, strict=True))


@pytest.mark.parametrize(
    ("tensors", "bound", "error", "words"),
    [
        ([torch.ones(2)], -1, ValueError, "bound.*at least 0.*-1"),
        ([torch.ones(2)], math.nan, ValueError, "bound.*nan"),
        ([torch.ones(2)], (1, 0), ValueError, r"bound.*\(1, 0\)"),
        ([torch.ones(2)], "1", TypeError, "bound.*'1'"),
        ([torch.ones(2)], (1, 2, 3), TypeError, "bound"),
        ([torch.ones(2).long()], 1, TypeError, "tensors.*int64"),
        ([torch.ones(2, dtype=torch.cfloat)], 1, TypeError, "tensors.*complex64"),
        ([3], 1, TypeError, "tensors.*int"),
        (torch.nn.Linear(2, 2), 1, TypeError, r"tensors.*parameters\(\).*Linear"),
        (None, 1, TypeError, "tensors.*NoneType"),
        ([torch.ones(2, 2).to_sparse()], 1, TypeError, "tensors.*sparse"),
        ([torch.ones(1).expand(3)], 1, RuntimeError, "share memory|single memory location"),
    ],
)
def test_bad_input_is_named(tensors, bound, error, words) -> None:
    with pytest.raises(error, match=words):
        ipf.clip_weights_(tensors, bound)


@pytest.mark.parametrize("backend", [None, "cpp"])
def test_all_tensors_are_clipped_or_none(backend) -> None:
    gone = torch.ones(3, dtype=torch.float64)
    gone.untyped_storage().resize_(0)
    for wrong in (gone, torch.ones(2, 3, dtype=torch.float64).expand(4, 2, 3), torch.ones(3, device="meta")):
        if wrong.is_meta and backend is None:
            continue  # the reference takes it
        first = torch.full((3,), 9.0)
        with pytest.raises(RuntimeError):
            ipf.clip_weights_([first, wrong], 0.1, backend=backend)
        assert (first == 9).all()
    mixed = [torch.full((3,), 9.0), torch.full((3,), -9.0, dtype=torch.float64)]
    ipf.clip_weights_(mixed, 0.5, backend=backend)
    assert (mixed[0] == 0.5).all() and (mixed[1] == -0.5).all()


@pytest.mark.parametrize("bound", [10**400, (-(10**400), 0.0)], ids=("number", "pair"))
def test_a_bound_that_no_float_holds(bound) -> None:
    with pytest.raises(ValueError, match="bound: a number that a float can hold"):
        ipf.clip_weights_([torch.ones(3)], bound)


@pytest.mark.parametrize("bound", [None, "0.1", (0.1,), (None, 0.1)])
def test_what_is_no_bound(bound) -> None:
    """No bound, which an optimizer's clip may be, would leave the tensors as they are without a word."""
    tensor = torch.full((3,), 9.0)
    with pytest.raises(TypeError, match="bound: a number or a pair"):
        ipf.clip_weights_([tensor], bound)
    assert (tensor == 9).all()
