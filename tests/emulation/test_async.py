"""The emulation of what sm_90a adds: barriers with phases, boxes that the copy engine brings, products of warpgroups;
and the faults in their use that it must not let pass."""

from __future__ import annotations

import pytest
import torch
from emulation.build import load_test_kernels, start_test_kernel
from torch import Tensor

KERNELS = load_test_kernels("test_async_kernels")
FAULTS = (
    "none", "no barrier fence", "too few bytes", "too many bytes", "wrong parity", "no wait", "two arrivals",
    "no product fence", "sums too early", "tile overwritten", "three warps", "different tiles", "wrong layout",
    "misaligned", "never waited", "one thread missing", "strides swapped", "unnamed bits",
)  # fmt: skip


def start(name: str, *args: Tensor | int, fault: str = "none") -> None:
    start_test_kernel(KERNELS, name, *args, FAULTS.index(fault))


def unswizzled(memory: Tensor) -> Tensor:
    """Rows of 128 bytes whose chunks of 16 lie where the swizzle of 128 bytes puts them, in their own order."""
    rows = memory.view(-1, 8, 4)
    places = torch.arange(8) ^ (torch.arange(rows.shape[0]) % 8)[:, None]
    return torch.gather(rows, 1, places[:, :, None].expand_as(rows)).view(-1, 32)


# ---- boxes ----


def box(
    pictures: Tensor, size: tuple[int, ...], at: tuple[int, ...], *, tf32: bool = False, step: int = 1, **fault: str
) -> Tensor:
    """The box of NHWC pictures, [images, height, width, 32 channels]; `size` and `at` begin with the images, too."""
    height, width, images = size[1], size[2], size[0]
    sizes = torch.tensor(pictures.shape).flip(0)
    strides = torch.tensor(pictures.stride()).flip(0)[1:] * 4
    out = torch.full((images * height * width * 32,), -1.0)
    extents = torch.tensor([32, width, height, images])
    start(
        "box", pictures, sizes, strides, extents, torch.tensor(at, dtype=torch.int32).flip(0), out, tf32, step, **fault
    )
    return out


@pytest.mark.parametrize(
    "at", [(0, 0, 0, 0), (1, 2, 3, 32), (0, -1, -2, 0), (2, 4, 5, 8), (-1, 0, 0, -4), (9, 0, 0, 0)]
)
def test_a_box_comes_swizzled_and_with_zeros_outside(at: tuple[int, ...]) -> None:
    pictures, size = torch.randn(3, 5, 7, 40), (2, 4, 2)
    rows = unswizzled(box(pictures, size, at)).view(*size, 32)
    padded = torch.zeros(32, 32, 32, 128)
    padded[10:13, 10:15, 10:17, 40:80] = pictures
    image, y, x, channel = (10 + at[0], 10 + at[1], 10 + at[2], 40 + at[3])
    assert torch.equal(rows, padded[image : image + 2, y : y + 4, x : x + 2, channel : channel + 32])


@pytest.mark.parametrize("step", [2, 3, 8])
def test_a_box_of_pixels_some_steps_apart(step: int) -> None:
    pictures, size = torch.randn(3, 15, 17, 40), (2, 4, 2)
    for y, x in ((0, 0), (-1, -3), (4, 5)):
        rows = unswizzled(box(pictures, size, (1, y, x, 8), step=step)).view(*size, 32)
        padded = torch.zeros(3, 64, 64, 40)
        padded[:, 10:25, 10:27] = pictures
        wanted = padded[1:3, 10 + y :, 10 + x :, 8:][:, : 4 * step : step, : 2 * step : step]
        assert torch.equal(rows, wanted)


def test_the_order_of_a_swizzled_box() -> None:
    pictures = torch.arange(16.0 * 32).view(1, 1, 16, 32)
    memory = box(pictures, (1, 1, 16), (0, 0, 0, 0)).view(16, 8, 4)
    for row in range(16):
        for chunk in range(8):
            assert memory[row, chunk ^ row % 8, 0] == 32 * row + 4 * chunk


def test_float32_becomes_tf32_to_nearest_even() -> None:
    ulp, numbers = 2.0**-10, torch.zeros(1, 1, 8, 32)
    inf = float("inf")
    numbers[0, 0, 0, :8] = torch.tensor(
        [1 + ulp / 2, 1 + 1.5 * ulp, 1 + ulp / 4, -1 - 0.75 * ulp, 2 - ulp / 2, inf, -inf, 0.0]
    )
    rows = unswizzled(box(numbers, (1, 1, 8), (0, 0, 0, 0), tf32=True))
    assert rows[0, :8].tolist() == [1, 1 + 2 * ulp, 1, -1 - ulp, 2, inf, -inf, 0]
    numbers[0, 0, 0, 0] = float("nan")
    assert unswizzled(box(numbers, (1, 1, 8), (0, 0, 0, 0), tf32=True))[0, 0].isnan()


def test_a_box_that_is_not_waited_for_is_not_there() -> None:
    pictures = torch.randn(1, 2, 4, 32)
    assert box(pictures, (1, 2, 4), (0, 0, 0, 0), fault="no wait").isnan().all()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no barrier fence", "that the copy engine has not been told of"),
        ("too few bytes", "bring 1024 bytes and 1008 were announced"),
        ("too many bytes", "deadlock: of 32 threads 0 wait at __syncthreads, 32 for the phase of an mbarrier"),
        ("two arrivals", "a thread arrives at a barrier whose phase lacks no arrival"),
        ("misaligned", "not aligned to 128 bytes"),
        ("wrong parity", "it has ended with a copy of a box under way"),  # as if the phase before had been waited for
        ("never waited", "it has ended with a copy of a box under way"),
    ],
)
def test_faults_of_copies_are_errors(fault: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        box(torch.randn(1, 2, 4, 32), (1, 2, 4), (0, 0, 0, 0), fault=fault)


def test_maps_that_the_driver_refuses_are_errors() -> None:
    for pictures, size in (
        (torch.randn(1, 2, 4, 33)[..., :32], (1, 2, 4)),  # strides of 132 bytes
        (torch.randn(1 + 2 * 4 * 32)[1:].view(1, 2, 4, 32), (1, 2, 4)),  # data at 4 bytes
        (torch.randn(1, 2, 4, 32)[:0], (1, 2, 4)),  # a size of 0
        (torch.randn(1, 1, 512, 32), (1, 1, 512)),  # a box of 512
    ):
        with pytest.raises(RuntimeError, match=r"made no tensor map of the data \(error 1\)"):
            box(pictures, size, (0, 0, 0, 0))
    for size, step in (((1, 2, 4), 9), ((1, 2, 4), 0), ((1, 1, 64), 5)):  # steps from 1 to 8, a reach of 256
        with pytest.raises(RuntimeError, match=r"made no tensor map of the data \(error 1\)"):
            box(torch.randn(1, 2, 4, 32), size, (0, 0, 0, 0), step=step)


# ---- products ----

PRODUCTS = (("half_product_64", torch.float16, 64), ("bfloat16_product_128", torch.bfloat16, 128),
            ("tf32_product_64", torch.float32, 64), ("mn_major_half_product_128", torch.float16, 128),
            ("mn_major_bfloat16_product_64", torch.bfloat16, 64))  # fmt: skip
MN_MAJOR = PRODUCTS[3]


def product(name: str, dtype: torch.dtype, columns: int, fault: str = "none") -> tuple[Tensor, Tensor]:
    """What came out and what should."""
    torch.manual_seed(0)
    k = 128 // dtype.itemsize
    a, b = (torch.randint(-8, 9, (rows, k)).to(dtype) for rows in (64, columns))
    out = torch.full((64, columns), -1.0)
    factors = (a.T.contiguous(), b.T.contiguous()) if name.startswith("mn_major") else (a, b)
    start(name, *factors, out, fault=fault)
    return out, a.float() @ b.float().T


@pytest.mark.parametrize(("name", "dtype", "columns"), PRODUCTS)
def test_products(name: str, dtype: torch.dtype, columns: int) -> None:
    out, wanted = product(name, dtype, columns)
    assert torch.equal(out, wanted)


def test_sums_are_not_there_before_they_are_waited_for() -> None:
    assert product(*PRODUCTS[0], fault="sums too early")[0].isnan().all()


def test_tiles_are_read_until_the_sums_are_waited_for() -> None:
    assert product(*PRODUCTS[0], fault="tile overwritten")[0].isnan().any()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no product fence", "a product without a wgmma_fence before it"),
        ("three warps", "deadlock: .* 96 for a product that others of the warpgroup have not started"),
        ("different tiles", "the threads of a warpgroup start different products"),
        ("wrong layout", "whose layout is not the swizzle of 128 bytes"),
        ("unnamed bits", "with bits that the PTX ISA does not name"),
    ],
)
@pytest.mark.parametrize("which", [PRODUCTS[0], MN_MAJOR], ids=["K-major", "MN-major"])
def test_faults_of_products_are_errors(which: tuple, fault: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        product(*which, fault=fault)


def test_faults_of_mn_major_tiles() -> None:
    """Which of the two strides is which shows in the sums."""
    with pytest.raises(RuntimeError, match="an MN-major tile that does not begin with an atom of 1024 bytes"):
        product(*MN_MAJOR, fault="misaligned")
    out, wanted = product(*MN_MAJOR, fault="strides swapped")
    assert not torch.equal(out, wanted)


# ---- barriers of some threads ----


def test_a_barrier_of_some_threads() -> None:
    data, out = torch.randn(64), torch.zeros(64)
    start("named_barrier", data, out)
    assert torch.equal(out, data.flip(0))
    with pytest.raises(RuntimeError, match="deadlock: of 96 threads 0 wait at __syncthreads, 63 for bar.sync"):
        start("named_barrier", data, out, fault="one thread missing")
