"""Networks that hypothesis draws: plans, plain data that a failing example shows, and the modules that they build."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from nn.twins import randomised
from torch import Tensor, nn
from torch.nn import functional as F

SMOOTH = {"elu": nn.ELU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}
KINKED = {"relu": nn.ReLU, "leaky": nn.LeakyReLU}  # in float64 alone: float32's errors open and shut them


@dataclass(frozen=True)
class Block:
    """A convolution and what follows it.

    Attributes:
        conv: "same", "down", "up" (4x4 taps), "down3", "up3", "down5", "up5" (3x3, 5x5) or "other", which stays
            PyTorch's.
        rest: "norm" and "act" in the order of their calls.
        called: the class below whose forward calls them.
        shared: the activation is that of the block before; the weight, too, where it fits.
        hooked: the child with a forward hook, or "".
    """

    conv: str
    out: int
    rest: tuple[str, ...]
    act: str
    called: str
    dilation: int
    bias: bool
    shared: bool
    hooked: str


@dataclass(frozen=True)
class Plan:
    double: bool
    channels: int
    size: tuple[int, int]
    blocks: tuple[Block, ...]
    outer: str  # what holds the blocks: "forward", "sequential" or "wrapper"
    in_eval_mode: bool


def convolution(block: Block, channels: int) -> nn.Module:
    if block.conv == "same":
        return nn.Conv2d(channels, block.out, 3, padding=block.dilation, dilation=block.dilation, bias=block.bias)
    if block.conv == "other":
        return nn.Conv2d(channels, block.out, (1, 3), padding=(0, 1), bias=block.bias)
    taps = int(block.conv[-1]) if block.conv[-1].isdigit() else 4
    padding = 2 if taps == 5 else 1
    if block.conv.startswith("down"):
        return nn.Conv2d(channels, block.out, taps, 2, padding, bias=block.bias)
    return nn.ConvTranspose2d(channels, block.out, taps, 2, padding, taps % 2, bias=block.bias)


def doubled(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return output * 2


class Straight(nn.Module):
    def __init__(self, conv: nn.Module, rest: list[nn.Module]) -> None:
        super().__init__()
        self.conv = conv
        self.first, self.second = [*rest, None, None][:2]
        self.flag = True

    def tail(self, h: Tensor) -> Tensor:
        if self.first is not None:
            h = self.first(h)
        return h if self.second is None else self.second(h)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        return self.tail(self.conv(x))


class ByArgument(Straight):
    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        h = self.conv(x)
        if extra is not None:
            h = h * extra
        return self.tail(h)


class WithoutArgument(Straight):
    """What a trace, whose arguments are there, does not see."""

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        h = self.conv(x)
        if extra is None:
            h = h.roll(1, 1)
        return self.tail(h)


class ByOptions(Straight):
    def __init__(self, conv: nn.Module, rest: list[nn.Module]) -> None:
        super().__init__(conv, rest)
        self.options = {"tail": True}

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        h = self.conv(x)
        return self.tail(h) if self.options["tail"] else h


class ByNorm(Straight):
    """It asks for the mode of another module."""

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        h = self.conv(x)
        if self.first is not None and self.first.training:
            h = h.roll(1, 1)
        return self.tail(h)


class BySetting(Straight):
    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        h = self.conv(x)
        if not self.flag:
            h = h * 0.5
        if self.first is not None:
            h = self.first(h)
        return self.second(h) if self.second is not None and self.flag else h


class ByHelper(Straight):
    def helper(self, h: Tensor, extra: Tensor | None) -> Tensor:
        return h * 2 if extra is None else self.tail(h)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        return self.helper(self.conv(x), extra)


class ByMode(Straight):
    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        h = self.conv(x)
        return self.tail(h) + h if self.training else self.tail(h)


class ByShape(Straight):
    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        h = self.conv(x)
        return self.tail(h) if h.shape[2] % 2 else self.tail(h * 2)


class Residual(Straight):
    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        h = self.tail(self.conv(x))
        return h + x if h.shape == x.shape else h


class Twice(Straight):
    """Its modules are called a second time where sizes fit."""

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        h = self.tail(self.conv(x))
        return self.tail(self.conv(h)) if h.shape == x.shape and self.flag else h


class Functional(Straight):
    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        h = self.conv(x)
        return F.elu(h if self.first is None else self.first(h))


class InSequential(Straight):
    def __init__(self, conv: nn.Module, rest: list[nn.Module]) -> None:
        super().__init__(conv, rest)
        self.body = nn.Sequential(conv, *rest)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        return self.body(x)


class Nested(InSequential):
    def __init__(self, conv: nn.Module, rest: list[nn.Module]) -> None:
        super().__init__(conv, rest)
        self.body = nn.Sequential(nn.Sequential(conv, *rest[:1]), nn.Sequential(*rest[1:]))


class SlicedSequential(InSequential):
    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        return self.body[1:](self.body[0](x)) if extra is None else self.body(x)


CALLED: dict[str, type[Straight]] = {
    cls.__name__: cls
    for cls in (
        Straight, ByArgument, WithoutArgument, ByOptions, ByNorm, BySetting, ByHelper, ByMode, ByShape, Residual, Twice,
        Functional, InSequential, Nested, SlicedSequential,
    )
}  # fmt: skip


class Chained(nn.Module):
    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, extra)
        return x


class InOrder(nn.Module):
    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(*blocks)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        return self.body(x) if extra is None else self.body(x * extra)


class Wrapper(nn.Module):
    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.module = Chained(blocks)

    def forward(self, *args, **kwargs) -> Tensor:
        return self.module(*args, **kwargs)


OUTER = {"forward": Chained, "sequential": InOrder, "wrapper": Wrapper}


def build(plan: Plan) -> nn.Module:
    torch.manual_seed(0)
    channels, blocks = plan.channels, []
    activation: nn.Module | None = None
    for block in plan.blocks:
        conv = convolution(block, channels)
        if block.shared and blocks and blocks[-1].conv.weight.shape == conv.weight.shape:
            conv.weight = blocks[-1].conv.weight
        if activation is None or not block.shared:
            activation = (SMOOTH | KINKED)[block.act]()
        rest = [nn.BatchNorm2d(block.out) if kind == "norm" else activation for kind in block.rest]
        blocks.append(CALLED[block.called](conv, rest))
        hooked = getattr(blocks[-1], block.hooked, None) if block.hooked else None
        if hooked is not None:
            hooked.register_forward_hook(doubled)
        channels = block.out
    return randomised(OUTER[plan.outer](blocks))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    double = draw(st.booleans())
    wide = st.sampled_from([24, 26, 40])  # where Winograd's algorithm runs
    number = st.one_of(st.sampled_from([1, 2, 3, 7]), wide) if double else wide
    block = st.builds(
        Block,
        conv=st.sampled_from(["same", "same", "same", "down", "up", "down3", "up3", "down5", "up5", "other"]),
        out=number,
        rest=st.sampled_from([("norm", "act"), ("norm", "act"), ("act", "norm"), ("norm",), ("act",), ()]),
        act=st.sampled_from([*SMOOTH, *(KINKED if double else ())]),
        called=st.sampled_from(list(CALLED)),
        dilation=st.sampled_from([1, 1, 2]),
        bias=st.booleans(),
        shared=st.sampled_from([False, False, True]),
        hooked=st.sampled_from(["", "", "", "", "conv", "first", "second"]),
    )
    side = st.sampled_from([8, 9, 12]) if double else st.sampled_from([16, 17, 20])
    blocks = draw(st.lists(block, min_size=1, max_size=3))
    ups = [i for i, block in enumerate(blocks) if block.conv.startswith("up")]
    for i in ups[1:]:  # maps grow once
        blocks[i] = replace(blocks[i], conv="same")
    size, outer = (draw(side), draw(side)), draw(st.sampled_from(list(OUTER)))
    return Plan(double, draw(st.one_of(number, st.just(3))), size, tuple(blocks), outer, draw(st.booleans()))
