"""Laplace's equation in the holes of pictures: conjugate gradients, preconditioned by multigrid.

A hole is a list of cells, not a rectangle: time and memory go by its pixels, however large the picture and however long
and thin the hole. A cell's neighbours have the other colour of a chessboard, so a list holds the red cells, then the
black ones, and Gauss-Seidel updates one colour at a time. Values have one column more than there are cells, which stays
0: where a neighbour is known or beyond the picture's edge, its index is that column's.

Source of the hierarchy: McAdams, Sifakis, Teran, "A parallel multigrid Poisson solver for fluids simulation on large
grids" (2010). A coarse cell is unknown where all of its pixels are, and the equation is the same on every level. Values
go to the finer level bilinearly, residuals to the coarser one by the transpose of that, and the sweeps are mirrored: so
one cycle is a symmetric operator, as conjugate gradients need it. No hole has taken it more than 15 steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

VALUES = 2**22  # at most so many, or one channel, are solved for at a time: bounds the memory of a large hole
STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))  # (down, right) to the four neighbours
PIXELS = 2**15  # a picture of at most so many is small
NOT_FINITE = "picture: finite values are expected beside the hole, got NaN or infinities"
FLOAT32_REACHES = 1e-5  # of the largest value: float32's own rounding is a hundredth of that
SPARSE = 8  # a table of all pixels where they are at most so many times the cells: found at once, not searched for
BILINEAR = (9 / 16, 3 / 16, 3 / 16, 1 / 16)  # of a cell's four nearest coarse ones
TRANSPOSED = tuple(down * right for down in (1 / 4, 3 / 4, 3 / 4, 1 / 4) for right in (1 / 4, 3 / 4, 3 / 4, 1 / 4))


def solve_laplace(
    pictures: Tensor,
    hole: Tensor,
    *,
    tolerance: float | None,
    max_steps: int,
    cloned: Tensor | None = None,
    told: Callable[[float], object] | None = None,
) -> Tensor:
    """The values in the hole that are the means of their neighbours (four, fewer at a picture's edge).

    Args:
        pictures: (channels, N, H, W), any dtype and strides; what they hold inside the hole does not matter.
        hole: bool (N, H, W), the same for each channel; it covers no picture wholly.
        tolerance: at the end no residual (count of the neighbours times the value, less their sum) is larger, nor any
            error that a cycle of multigrid still finds in a value; in the pictures' units. None: 1e-4 of the largest
            mean of four neighbours that the equations start from.
        max_steps: bound on the number of steps.
        cloned: (channels, N, H, W). With it the equation is Poisson's: inside the hole the values differ from pixel to
            pixel as these do, as far as they can, and across its border not at all.
        told: called after each step with about the fraction of the work that is done.

    Returns:
        float64 (channels, cells): the values of `pictures[:, hole]`; those of small pictures in floating point are
        worked out in float32 where that reaches the tolerance.

    Raises:
        ValueError: a pixel beside the hole is NaN or infinite.
        RuntimeError: the bound was reached; says how far it was.
    """
    small = hole.shape[1] * hole.shape[2] <= PIXELS and pictures.is_floating_point()
    keys = hole.flatten().nonzero()[:, 0]
    if len(keys) > VALUES and hole.numel() < 2**31:
        keys = keys.int()  # of a large hole half of what these take
    cells = _Cells(keys, *hole.shape[1:])
    if not len(pictures) or not cells.count:
        return pictures.new_zeros(len(pictures), cells.count, dtype=torch.float64)
    levels = _levels(cells)
    border = _border(pictures, cells, levels[0], cloned)
    order = cells.order
    del keys, cells  # of a large hole, hundreds of MB
    unit = border.abs().max().item() or 1.0  # whatever the pictures' range, float32 can tell the values apart
    relative = 1e-4 / 4 if tolerance is None else tolerance / unit
    exact = torch.float32 if relative >= FLOAT32_REACHES and small else torch.float64
    values = border.div_(unit)
    parts = values.split(max(1, VALUES // len(order)))
    for i, part in enumerate(parts):
        tell = None if told is None else lambda done, before=i: told((before + done) / len(parts))
        part.copy_(_solve(levels, part.to(exact), relative, max_steps, tell)[:, order]).mul_(unit)
    return values if cloned is None else values.add_(cloned[:, hole])


def _border(pictures: Tensor, cells: _Cells, level: _Level, cloned: Tensor | None) -> Tensor:
    """The sum of each cell's known neighbours, less what is cloned into the cell; float64 (channels, cells)."""
    total = pictures.new_zeros(len(pictures), cells.count, dtype=torch.float64)
    for (down, right), neighbours in zip(STEPS, level.neighbours, strict=True):
        beside = ((neighbours == cells.count) & cells.inside(down, right)).nonzero()[:, 0]
        grid, row, column = cells.grid[beside], cells.row[beside], cells.column[beside]
        total[:, beside] += pictures[:, grid, row + down, column + right].double()
        if cloned is not None:
            total[:, beside] -= cloned[:, grid, row, column]
    if not total.isfinite().all():
        raise ValueError(NOT_FINITE)
    return total


def _solve(
    levels: Sequence[_Level],
    border: Tensor,
    tolerance: float,
    max_steps: int,
    told: Callable[[float], object] | None,
) -> Tensor:
    """Conjugate gradients in the border's dtype, each row by itself, preconditioned by cycles in float32. What the
    border held is gone then."""
    neighbours, degree, count = levels[0].neighbours, levels[0].degree.to(border.dtype), border.shape[1]
    x, residual, tiny = torch.zeros_like(border), border, torch.finfo(border.dtype).tiny
    direction, before, first = border.new_zeros(len(border), count + 1), None, 0.0
    for step in range(max_steps + 1):
        error = _cycle(levels, residual.float())[:, :count].to(border.dtype)
        left = torch.stack([residual.abs().max(), error.abs().max()]).tolist()
        if max(left) <= tolerance:
            return x
        if told is not None and tolerance > 0:
            first = first or max(left)
            told(max(0.0, math.log(first / max(left)) / math.log(first / tolerance)))  # a step divides what is left
        if step == max_steps:
            break
        # in place from here on: of a large hole each of these tensors is a good part of all memory
        energy = torch.linalg.vecdot(residual, error)[:, None]
        inside = direction[:, :count]
        inside.mul_(0.0 if before is None else energy / before.clamp(min=tiny)).add_(error)
        del error
        before = energy
        pressed = _sum(direction, neighbours).neg_().addcmul_(degree, inside)
        length = energy / torch.linalg.vecdot(inside, pressed)[:, None].clamp(min=tiny)
        x.addcmul_(length, inside)
        residual.sub_(pressed.mul_(length))
    raise RuntimeError(
        f"max_steps: {max_steps} were not enough; of the largest value beside the hole {left[0]:.1e} is left as a "
        f"residual and {left[1]:.1e} as an error, {tolerance:.1e} is expected"
    )


def _cycle(levels: Sequence[_Level], right_side: Tensor) -> Tensor:
    """About the solution, float32 (columns, cells + 1): one V-cycle of multigrid, starting from 0."""
    level, coarser = levels[0], levels[1:]
    red, black, cells = slice(level.reds), slice(level.reds, level.count), slice(level.count)
    x = right_side.new_zeros(len(right_side), level.count + 1)

    def neighbours_and_right_side(colour: slice) -> Tensor:
        return _sum(x, level.neighbours[:, colour]).add_(right_side[:, colour])

    x[:, red] = right_side[:, red] / level.degree[red]
    x[:, black] = neighbours_and_right_side(black).div_(level.degree[black])
    if coarser:
        residual = torch.zeros_like(x)  # 0 in black cells
        residual[:, red] = neighbours_and_right_side(red) - level.degree[red] * x[:, red]
        correction = _cycle(coarser, _sum(residual, level.children, TRANSPOSED))
        x[:, cells] += _sum(correction, level.parents, BILINEAR)
    for colour in (black, red):
        x[:, colour] = neighbours_and_right_side(colour).div_(level.degree[colour])
    return x


def _sum(x: Tensor, places: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """Of the columns of x at each row of `places`."""
    first, *others = places
    total = x.index_select(1, first)
    if weights is not None:
        total *= weights[0]
    for i, other in enumerate(others, 1):
        total.add_(x.index_select(1, other), alpha=1 if weights is None else weights[i])
    return total


class _Cells:
    """The unknown cells of a level's grids, of which each picture has one: first the red cells, then the black ones.

    Args:
        keys: the cells' places in all grids, flattened; ascending.
        height, width: of a grid.
    """

    def __init__(self, keys: Tensor, height: int, width: int) -> None:
        self.height, self.width, self.count = height, width, len(keys)
        black = (keys // width % height + keys % width) % 2
        self.reds = self.count - int(black.sum())
        blacks_before = black.cumsum(0, dtype=keys.dtype) - black
        reds_before = torch.arange(self.count, dtype=keys.dtype, device=keys.device) - blacks_before
        self.ascending = keys
        self.order = torch.where(black > 0, self.reds + blacks_before, reds_before)
        """Where the cells of `ascending` are."""
        self.keys = torch.empty_like(keys)
        self.keys[self.order] = keys
        self.grid, self.row, self.column = self.keys // (height * width), self.keys // width % height, self.keys % width
        pixels = (int(keys[-1]) // (height * width) + 1) * height * width if self.count else 0
        self.table: Tensor | None = None
        if pixels <= SPARSE * self.count:
            self.table = torch.full((pixels,), self.count, dtype=torch.int32, device=keys.device)
            self.table[keys] = self.order.int()

    def inside(self, down: int, right: int) -> Tensor:
        """Whether the grid has a cell, known or not, so many rows and columns from each."""
        row, column = self.row + down, self.column + right
        return (row >= 0) & (row < self.height) & (column >= 0) & (column < self.width)

    def find(self, grid: Tensor, row: Tensor, column: Tensor, inside: Tensor) -> Tensor:
        """Where those cells are, int32; `count` for those that are known, or not inside the grid."""
        keys = (grid * self.height + row) * self.width + column
        if self.table is not None:
            found = self.table.take(keys.clamp_(0, max(len(self.table) - 1, 0)).long())
            return found.masked_fill_(~inside, self.count)
        at = torch.searchsorted(self.ascending, keys).clamp_(max=self.count - 1)
        return torch.where((self.ascending[at] == keys) & inside, self.order[at], self.count).int()

    def coarser(self) -> _Cells:
        """The cells of two rows and columns each of which none, as far as they lie in the grid, is known."""
        height, width = (self.height + 1) // 2, (self.width + 1) // 2
        whole = (self.row % 2 == 0) & (self.column % 2 == 0)
        for down, right in ((0, 1), (1, 0), (1, 1)):
            inside = self.inside(down, right)
            found = self.find(self.grid, self.row + down, self.column + right, inside) < self.count
            whole &= found | ~inside
        keys = (self.grid[whole] * height + self.row[whole] // 2) * width + self.column[whole] // 2
        return _Cells(keys.sort().values, height, width)


class _Level:
    """Where the cells are whose values a cycle takes together: beside those of this level, and of the coarser one."""

    def __init__(self, cells: _Cells, coarse: _Cells) -> None:
        self.count, self.reds = cells.count, cells.reds
        inside = [cells.inside(down, right) for down, right in STEPS]
        self.degree = torch.stack(inside).sum(dim=0, dtype=torch.float32)
        """How many neighbours a cell has, known or not; (cells,)."""
        self.neighbours = torch.stack(
            [
                cells.find(cells.grid, cells.row + down, cells.column + right, there)
                for (down, right), there in zip(STEPS, inside, strict=True)
            ]
        )
        """(4, cells)."""
        if not coarse.count:
            return
        rows, columns = _parents(cells.row, coarse.height), _parents(cells.column, coarse.width)
        everywhere = torch.ones_like(cells.row, dtype=torch.bool)
        self.parents = torch.stack(
            [coarse.find(cells.grid, row, column, everywhere) for row in rows for column in columns]
        )
        """(4, cells), for BILINEAR."""
        rows, columns = _children(coarse.row, cells.height), _children(coarse.column, cells.width)
        self.children = torch.stack(
            [cells.find(coarse.grid, row, column, a & b) for row, a in rows for column, b in columns]
        )
        """(16, coarse cells), for TRANSPOSED."""


def _levels(cells: _Cells) -> list[_Level]:
    """From the pixels on, as long as there are cells: one that is the whole grid holds a known one."""
    levels: list[_Level] = []
    while cells.count:
        coarse = cells.coarser()
        levels.append(_Level(cells, coarse))
        cells = coarse
    return levels


def _parents(place: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Rows (or columns) of the coarse cell that a cell lies in, and of the next nearest; at the edge the same one."""
    return place // 2, (place // 2 + place % 2 * 2 - 1).clamp(0, length - 1)


def _children(place: Tensor, length: int) -> list[tuple[Tensor, Tensor]]:
    """Rows (or columns) of the four cells of which a coarse one is a parent, and whether they are in the grid.

    At the edge a cell has one parent twice, so that this has it as a child twice.
    """
    first, last = 2 * place - 1, 2 * place + 2
    there = torch.ones_like(place, dtype=torch.bool)
    return [
        (first.clamp(min=0), there),
        (first + 1, there),
        (first + 2, last <= length),
        (last.clamp(max=length - 1), last <= length),
    ]
