"""Lists of plain CUDA tensors to their kernel without the dispatcher, emulated: what it takes, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from emulation.build import launches, load_module
from torch import Tensor, nn

from inpaint_fast.ops import weight_clip

MANY = 508  # tensors of a launch


@pytest.fixture(scope="module")
def clip() -> Callable[[list, float, float], bool]:
    return load_module("weight_clip").weight_clip_cuda


def small(count: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1 + i % 7, 3, generator=generator).to(dtype) for i in range(count)]


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.float16, torch.bfloat16), ids=str)
@pytest.mark.parametrize("count", (1, 60, 1000))
def test_many_small_tensors_are_clipped_in_few_launches(clip: Callable, count: int, dtype: torch.dtype) -> None:
    tensors = small(count, dtype)
    expected = [t.clamp(-0.5, 0.25) for t in tensors]
    launches("weight_clip_module")
    assert clip(tensors, -0.5, 0.25)
    assert len(launches("weight_clip_module")) == -(-count // MANY)
    assert all(torch.equal(t, wanted) for t, wanted in zip(tensors, expected, strict=True))


def test_tensors_that_have_moved_are_found(clip: Callable) -> None:
    tensors = [nn.Parameter(t) for t in small(3)]
    assert clip(tensors, -0.5, 0.5)
    before = tensors[1].data
    tensors[1].data, kept = torch.full((5,), 2.0), before.fill_(3)
    assert clip(tensors, -0.5, 0.5)
    assert (tensors[1] == 0.5).all() and (kept == 3).all()


def test_nothing_to_clip(clip: Callable) -> None:
    launches("weight_clip_module")
    assert clip([], -1, 1) and clip([torch.empty(0, 3)], -1, 1)
    assert not launches("weight_clip_module")


class Marked(Tensor):
    pass


@pytest.mark.parametrize(
    "other",
    [
        torch.full((4,), 2.0, dtype=torch.float64),
        torch.full((4, 4), 2.0)[:, ::2],
        torch.full((4, 4), 2.0).t()[:, :3],
        torch.full((1,), 2.0).expand(4),
        torch.full((4,), 2),
        torch.full((4,), 2.0, dtype=torch.complex64).conj().imag,
        torch.full((4,), 2.0).as_subclass(Marked),
        torch.full((4,), 2.0, device="meta"),
        torch.full((4,), 2.0).to_sparse(),
        [2.0],
        None,
    ],
    ids=lambda other: type(other).__name__ if not isinstance(other, Tensor) else f"{other.dtype}{tuple(other.shape)}",
)
def test_what_is_not_plain_is_refused_and_nothing_changed(clip: Callable, other: object) -> None:
    plain = torch.full((4,), 2.0)
    launches("weight_clip_module")
    for tensors in ([plain, other], [other, plain]):
        assert not clip(tensors, -1, 1)
    assert (plain == 2).all() and not launches("weight_clip_module")


def test_lists_on_a_gpu_take_this_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_clip, "_is_eager", lambda tensor: True)
    monkeypatch.setattr(weight_clip._extension, "module", SimpleNamespace(weight_clip="cpu", weight_clip_cuda="cuda"))
    tensor = SimpleNamespace(is_cpu=False, is_cuda=True, device=torch.device("cuda"))
    for chosen, direct in (("cuda", "cuda"), ("triton", None), ("reference", None)):
        monkeypatch.setattr(weight_clip._operator, "choose", lambda *_, chosen=chosen: chosen)
        assert weight_clip._direct_clip(tensor, None) == direct
