"""The emulation of a CUDA block itself: barriers, exchanges, shared memory, and the faults it must not let pass."""

from __future__ import annotations

import functools

import pytest
import torch
from emulation.build import load_test_kernels, start_test_kernel

KERNELS = load_test_kernels()


start = functools.partial(start_test_kernel, KERNELS)


@pytest.mark.parametrize("threads", [1, 31, 32, 100, 1024])
def test_barrier_and_dynamic_shared_memory(threads: int) -> None:
    data = torch.arange(3.0 * threads)
    out = torch.full_like(data, -1)
    start("reverse", data, out, 3, threads)
    assert torch.equal(out, data.view(3, threads).flip(1).flatten())


def test_a_missing_barrier_shows() -> None:
    data = torch.arange(128.0)
    out = torch.full_like(data, -1)
    start("racing_reverse", data, out, 2, 64)
    assert out.isnan().any()  # dynamic shared memory is poisoned, and blocks run in both directions
    assert not torch.equal(out, data.view(2, 64).flip(1).flatten())


def test_exchanges_of_a_warp() -> None:
    out = torch.full((8, 64), -1, dtype=torch.int32)
    start("exchange", out)
    lanes = torch.arange(64) % 32
    warps = torch.arange(64) - lanes
    assert torch.equal(out[0], (warps + torch.where(lanes + 3 < 32, lanes + 3, lanes)).int())
    assert torch.equal(out[1], (warps + torch.where(lanes >= 3, lanes - 3, lanes)).int())
    assert torch.equal(out[2], (warps + (lanes ^ 5)).int())
    assert torch.equal(out[3], (warps + 7).int())
    assert torch.equal(out[4], (warps + torch.where(lanes % 8 + 3 < 8, lanes + 3, lanes)).int())
    for warp in (0, 1):
        bits = sum(1 << lane for lane in range(32) if (32 * warp + lane) % 3 == 0)
        assert {value & 0xFFFFFFFF for value in out[5].view(2, 32)[warp].tolist()} == {bits}
    assert out[6].view(2, 32).unique(dim=1).flatten().tolist() == [1, 2]
    quarters = torch.arange(64).view(4, 16)
    sums = quarters.sum(1, keepdim=True).expand(4, 16).clone()
    sums[1::2] = quarters[1::2] + (quarters[1::2] ^ 1)
    assert torch.equal(out[7], sums.flatten().int())


@pytest.mark.parametrize("threads", [32, 96, 256, 1024])
def test_block_sum(threads: int) -> None:
    data = torch.randint(-1000, 1000, (3, threads)).double()
    out = torch.zeros(3, dtype=torch.float64)
    start("block_sum", data, out, 3, threads)
    assert torch.equal(out, data.sum(1))


def test_every_thread_of_every_block_runs_once() -> None:
    out = torch.zeros(24, 30, dtype=torch.int32)
    start("index", out)
    assert torch.equal(out, (torch.arange(24)[:, None] * 1000 + torch.arange(30)).int())


def test_a_divergent_barrier_is_an_error_and_leaves_no_trace() -> None:
    with pytest.raises(RuntimeError, match=r"divergent barrier: of 64 threads 59 wait at __syncthreads.* 5 have"):
        start("divergent")
    test_barrier_and_dynamic_shared_memory(100)


def test_a_shuffle_with_a_lane_that_returned_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="for lane 9, which is not there or has returned"):
        start("absent_lane", torch.zeros(32, dtype=torch.int32))


def test_a_shuffle_from_a_lane_outside_its_mask_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="lane 0 reads lane 16, which its shuffle's mask leaves out"):
        start("left_out_lane", torch.zeros(32, dtype=torch.int32))


def test_launch_names_the_kernel_that_cannot_start() -> None:
    data = torch.zeros(2048)
    with pytest.raises(RuntimeError, match="CUDA kernel reverse did not start: invalid configuration argument"):
        start("reverse", data, data.clone(), 1, 1025)
    with pytest.raises(RuntimeError, match="CUDA kernel reverse did not start"):
        start("reverse_with_shared", data, data.clone(), 64, 228 << 10)


def test_launch_asks_for_large_shared_memory() -> None:
    data = torch.arange(64.0)
    out = torch.full_like(data, -1)
    start("reverse_with_shared", data, out, 64, 100 << 10)
    assert torch.equal(out, data.flip(0))


# ---- a warp's matrix products and copies ----


def whole_numbers(*shape: int) -> torch.Tensor:
    """Numbers whose products and sums every type here holds."""
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(sum(shape))).float()


@pytest.mark.parametrize(("name", "dtype"), [("half_product", torch.float16), ("bfloat16_product", torch.bfloat16)])
def test_product_of_16_bits(name: str, dtype: torch.dtype) -> None:
    a, b, out = whole_numbers(16, 16), whole_numbers(16, 8), torch.full((16, 8), -1.0)
    start(name, a.to(dtype), b.to(dtype), out)
    assert torch.equal(out, a @ b)


def test_product_in_tf32() -> None:
    a, b, out = whole_numbers(16, 8), whole_numbers(8, 8), torch.full((16, 8), -1.0)
    start("tf32_product", a, b, out)
    assert torch.equal(out, a @ b)
    # 10 bits of mantissa: a half is rounded away from zero, less than a half towards it.
    a = torch.zeros(16, 8)
    a[:4, 0] = torch.tensor([1 + 2**-11, -1 - 2**-11, 1 + 2**-11 - 2**-20, 2 - 2**-12])
    start("tf32_product", a, torch.eye(8), out)
    assert out[:4, 0].tolist() == [1 + 2**-10, -1 - 2**-10, 1, 2]


@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_from_shared_memory(transposed: bool) -> None:
    a, b, out = whole_numbers(16, 16), whole_numbers(16, 8), torch.full((16, 8), -1.0)
    start("shared_product", a.half(), b.half(), out, transposed)
    assert torch.equal(out, a @ b)


@pytest.mark.parametrize("unfinished", [0, 1])
def test_copies_are_there_once_they_are_waited_for_and_no_sooner(unfinished: int) -> None:
    data, out = torch.randn(2, 8, 4), torch.zeros(2, 8, 4)
    sizes = torch.tensor([0, 4, 8, 12, 16, 16, 0, 16], dtype=torch.int32)
    start("copy", data, sizes.repeat(2), out, 8, unfinished, 1)
    wanted = torch.where(4 * torch.arange(4) < sizes[:, None], data, 0.0)
    assert torch.equal(out[0], wanted[0])
    assert out[1].isnan().all() if unfinished else torch.equal(out[1], wanted[1])


def test_faults_of_copies_are_errors() -> None:
    data, out, sizes = torch.randn(2, 8, 4), torch.zeros(2, 8, 4), torch.full((16,), 16, dtype=torch.int32)
    with pytest.raises(RuntimeError, match="has returned with copies to shared memory under way"):
        start("copy", data, sizes, out, 8, 2, 1)
    with pytest.raises(RuntimeError, match="not aligned to 16 bytes"):
        start("copy", torch.randn(65)[1:], sizes, out, 8, 0, 1)
    with pytest.raises(RuntimeError, match="bank conflict: 8 lanes copy to"):
        start("copy", data, sizes, out, 8, 0, 2)
    with pytest.raises(RuntimeError, match="bank conflict: 8 lanes read"):
        start("conflicting_rows")
