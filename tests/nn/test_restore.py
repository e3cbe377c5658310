"""restore: the plain network again; and what tools that know torch.nn alone say of an accelerated one."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from nn.test_published_networks import NETWORKS, Network, inputs
from nn.twins import assert_near, outputs, randomised
from torch import Tensor, nn

import inpaint_fast as ipf
from inpaint_fast.nn import DilatedConvBlock, FusedSequential


class Net(nn.Module):
    """Chains in a forward and in an nn.Sequential, and attributes that are named as ours are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()
        self.rest = nn.Sequential(
            nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.ConvTranspose2d(32, 3, 4, 2, 1)
        )
        self._kept, self._found, self._alone, self._fusion, self._fusions, self.precision = 1, 2, 3, 4, 5, "mine"

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.act(self.bn(self.conv(x))))


X = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def attributes(net: nn.Module) -> dict[str, tuple[type, list[str], object]]:
    return {name: (type(m), sorted(vars(m)), getattr(m, "precision", None)) for name, m in net.named_modules()}


def accelerated(net: nn.Module, **options) -> nn.Module:
    net = ipf.accelerate(copy.deepcopy(net), **options)
    with torch.no_grad():
        net(X)
    return net


@pytest.mark.proves("restore", equals="the network before accelerate")
@pytest.mark.parametrize("options", [{}, {"inference": True}, {"precision": "exact"}, {"tune": True}], ids=str)
def test_everything_is_as_it_was(options: dict) -> None:
    plain = randomised(Net()).eval()
    ours = accelerated(plain, **options)
    parameters = list(map(id, ours.parameters()))
    assert attributes(ours) != attributes(plain)
    assert ipf.restore(ours) is ours
    assert attributes(ours) == attributes(plain)
    assert list(map(id, ours.parameters())) == parameters
    assert torch.equal(ours(X), plain(X))
    with pytest.raises(ValueError, match="not accelerated"):
        ipf.nn.acceleration_report(ours)
    assert_near(ipf.accelerate(ours)(X), plain(X))  # and there again


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_published_networks(network: Network) -> None:
    torch.manual_seed(0)
    plain = randomised(network.make()).eval()
    ours = ipf.restore(ipf.accelerate(copy.deepcopy(plain)))
    assert attributes(ours) == attributes(plain)
    given = inputs(network, torch.float32)
    for a, b in zip(outputs(ours, *given), outputs(plain, *given), strict=True):
        assert torch.equal(a, b)


def test_what_was_fused_from_the_start_stays() -> None:
    for net in (FusedSequential(nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24)), DilatedConvBlock(3, 24)):
        before = attributes(net)
        assert attributes(ipf.restore(ipf.accelerate(net))) == before
        assert attributes(ipf.restore(net)) == before


def test_a_class_that_has_changed_since_is_named() -> None:
    net = accelerated(Net().eval())
    nn.utils.parametrizations.weight_norm(net.conv)
    before = attributes(net)
    with pytest.raises(TypeError, match="model: conv has become a Parametrized"):
        ipf.restore(net)
    assert attributes(net) == before
    nn.utils.parametrize.remove_parametrizations(net.conv, "weight")
    assert type(ipf.restore(net).conv) is nn.Conv2d
    with pytest.raises(TypeError, match="model: a torch.nn.Module is expected, got int"):
        ipf.restore(3)


TOOLS = {
    "torch.jit.script": torch.jit.script,
    "torch.fx": torch.fx.symbolic_trace,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("part", [lambda net: net, lambda net: net.rest], ids=["forward", "sequential"])
def test_who_cannot_take_it_says_how_to_undo_it(tool: str, part: Callable, inference: bool) -> None:
    net = accelerated(Net().eval(), inference=inference)
    before = attributes(net)
    with pytest.raises(TypeError, match=rf"{tool}: inpaint_fast.restore\(model\) gives the plain network back"):
        TOOLS[tool](part(net))
    assert attributes(net) == before
    assert_near(TOOLS[tool](ipf.restore(net))(X), net(X))


@pytest.mark.parametrize("strict", [False, True])
def test_export_with_dynamic_sizes(strict: bool) -> None:
    plain = randomised(Net()).eval()
    batch, rows, columns = torch.export.Dim("batch"), torch.export.Dim("rows"), torch.export.Dim("columns")
    sizes = {0: batch, 2: rows, 3: columns}
    more = torch.randn(5, 3, 17, 9)
    for options in ({}, {"inference": True}):
        program = torch.export.export(accelerated(plain, **options), (X,), dynamic_shapes=(sizes,), strict=strict)
        assert not [node for node in program.graph.nodes if "inpaint_fast" in str(node.target)]
        assert_near(program.module()(more), plain(more))


def test_export_of_an_operator_with_dynamic_sizes() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(32, 32, 3, 3) / 17)

        def forward(self, x: Tensor) -> Tensor:
            return ipf.dilated_block(x, self.weight, dilation=2, activation="relu")

    x, more = torch.randn(2, 32, 12, 12), torch.randn(5, 32, 17, 9)
    net, sizes = Own(), {0: torch.export.Dim("batch"), 2: torch.export.Dim("rows"), 3: torch.export.Dim("columns")}
    for strict in (False, True):
        program = torch.export.export(net, (x,), dynamic_shapes=(sizes,), strict=strict)
        assert_near(program.module()(more), net(more))


@pytest.mark.filterwarnings("ignore")
def test_traces_and_onnx_are_of_the_plain_network() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    plain = randomised(Net()).eval()
    net, more = accelerated(plain, inference=True), torch.randn(3, 3, 16, 20)
    assert_near(torch.jit.trace(net, X)(more), plain(more))
    file = io.BytesIO()
    torch.onnx.export(net, (X,), file, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n", 2: "h", 3: "w"}})
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    assert_near(torch.from_numpy(session.run(None, {"x": more.numpy()})[0]), plain(more).detach())
