"""Networks whose calls are CUDA graphs, on a double of torch.cuda: kinds of calls, copies, changes, what is refused."""

from __future__ import annotations

import copy
import pickle
from typing import NamedTuple

import pytest
import torch
from recorded_cuda import RecordedCuda, cuda
from torch import Tensor, nn

from inpaint_fast import _graphs
from inpaint_fast.models import CompletionNetwork
from inpaint_fast.nn import accelerate, acceleration_report, graphs, restore

__all__ = ["cuda"]


class Answer(NamedTuple):
    picture: Tensor
    mean: Tensor


class Network(nn.Module):
    """A chain, an argument that decides, an attribute that counts, and results of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()
        self.factor = 2.0

    def forward(self, x: Tensor, negative: bool = False) -> dict[str, object]:
        y = self.relu(self.norm(self.conv(x))) * self.factor
        return {"answer": Answer(-y if negative else y, y.mean()), "kind": "answer", "all": [y, (x,)]}


def pictures(batch: int = 2, side: int = 8) -> Tensor:
    return torch.randn(batch, 3, side, side)


def network() -> nn.Module:
    torch.manual_seed(0)
    return accelerate(Network().eval(), inference=True)


@torch.no_grad()
def check(net: nn.Module, x: Tensor, **arguments) -> None:
    """It answers as the forward of its class does."""
    found, wanted = net(x, **arguments), type(net).forward(net, x, **arguments)
    assert type(found["answer"]) is Answer and found["kind"] == "answer" and type(found["all"][1]) is tuple
    torch.testing.assert_close(found["answer"], wanted["answer"], rtol=0, atol=0)
    torch.testing.assert_close(found["all"], wanted["all"], rtol=0, atol=0)


def test_the_second_call_of_a_kind_is_captured_and_the_next_ones_replayed(cuda: RecordedCuda) -> None:
    net = network()
    for call, captures in enumerate((0, 1, 1, 1)):
        check(net, pictures())
        assert cuda.captures == captures and cuda.replays == call
    for _ in range(3):
        check(net, pictures(side=4))
        check(net, pictures(), negative=True)
        check(net, pictures().contiguous(memory_format=torch.channels_last))
    assert cuda.captures == 4
    assert "CUDA graphs of 4 kinds of calls" in str(acceleration_report(net))
    assert "float32 2x3x4x4" in str(acceleration_report(net))


def test_results_are_the_caller_s_own(cuda: RecordedCuda) -> None:
    net, x = network(), pictures()
    with torch.inference_mode():
        for _ in range(2):
            net(x)
        first = net(x)["answer"].picture
        kept = first.clone()
        first_again = net(pictures())["answer"].picture
        assert torch.equal(first, kept) and not torch.equal(first, first_again)
        first.zero_()
        assert torch.equal(net(x)["answer"].picture, kept)
    assert cuda.replays == 4


def test_only_so_many_are_kept(cuda: RecordedCuda) -> None:
    net = network()
    with torch.no_grad():
        for batch in range(1, graphs.KEPT + 3):
            net(pictures(batch)), net(pictures(batch))
        assert cuda.captures == graphs.KEPT + 2
        assert f"of {graphs.KEPT} kinds" in str(acceleration_report(net))
        net(pictures(graphs.KEPT))
        assert cuda.captures == graphs.KEPT + 2
        net(pictures(1))  # whose graph went
        assert cuda.captures == graphs.KEPT + 3


def test_parameters_are_read_where_they_lie(cuda: RecordedCuda) -> None:
    """Nothing is kept of these, so that a change in place needs no new graph."""
    net = accelerate(nn.Sequential(nn.Linear(4, 4)).eval(), inference=True)
    x = torch.randn(2, 4)
    with torch.no_grad():
        for _ in range(3):
            net(x)
        net[0].weight.mul_(2), net[0].bias.data.fill_(3.0)
        assert torch.equal(net(x), nn.functional.linear(x, net[0].weight, net[0].bias))
    assert cuda.captures == 1 and cuda.replays == 3


CHANGES = {
    "a weight in place": lambda net: net.conv.weight.mul_(2),
    "a weight by load_state_dict": lambda net: net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()}),
    "another weight": lambda net: setattr(net.conv, "weight", nn.Parameter(net.conv.weight * 2)),
    "a weight that lies elsewhere": lambda net: setattr(net.conv.weight, "data", net.conv.weight.data * 2),
    "a running statistic": lambda net: net.norm.running_mean.add_(1),
    "another dtype": lambda net: net.double(),
    "a setting": lambda net: setattr(net.norm, "eps", 1.0),
    "an attribute": lambda net: setattr(net, "factor", -1.0),
    "another module": lambda net: setattr(net, "relu", nn.Tanh()),
    "a hook": lambda net: net.relu.register_forward_hook(lambda module, args, result: result + 1),
    "a hook before": lambda net: net.conv.register_forward_pre_hook(lambda module, args: (args[0] + 1,)),
    "training of a part": lambda net: net.norm.train(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_is_seen(change: str, cuda: RecordedCuda) -> None:
    net, x = network(), pictures()
    for _ in range(3):
        check(net, x)
    with torch.no_grad():
        CHANGES[change](net)
        x = x.to(net.conv.weight.dtype)
    for _ in range(5):
        if change == "training of a part":  # whose statistics move with each call
            other = copy.deepcopy(net)
            torch.testing.assert_close(net(x)["answer"], type(other).forward(other, x)["answer"], rtol=0, atol=0)
        else:
            check(net, x)


def test_training_ends_the_promise(cuda: RecordedCuda) -> None:
    net, x = network(), pictures()
    for _ in range(3):
        check(net, x)
    net.train()
    with torch.no_grad():
        net(x)
    replays = cuda.replays
    net.eval()
    net.norm.running_mean.data.add_(1)  # unseen by versions
    check(net, x)
    for _ in range(4):
        check(net, x)
    assert cuda.replays > replays


def test_a_network_that_changes_with_every_call_is_captured_ever_more_rarely(cuda: RecordedCuda) -> None:
    net, x = network(), pictures()
    with torch.no_grad():
        for _ in range(64):
            net.factor += 1.0
            net(x)
    assert cuda.captures <= 6


def test_calls_that_are_no_graphs(cuda: RecordedCuda) -> None:
    net, x = network(), pictures()
    for _ in range(4):
        assert net(x)["answer"].picture.requires_grad
    with torch.no_grad(), torch.overrides.BaseTorchFunctionMode():
        for _ in range(4):
            net(x)
    off = accelerate(Network().eval(), inference=True, cuda_graph=False)
    with torch.no_grad():
        for module in (off, accelerate(Network().eval()), accelerate(nn.Conv2d(3, 4, 3).eval(), inference=True)):
            for _ in range(4):
                module(x)
    assert not cuda.captures and acceleration_report(off).graphs == ""


class Chain(Network):
    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.norm(self.conv(x)))


class Reads(Network):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if x.mean() > 0 else self.conv(-x)


class Chooses(Network):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[x[:, :1].repeat(1, 32, 1, 1) > 0]


class Counts(Network):
    def forward(self, x: Tensor) -> Tensor:
        self.factor += 1.0
        return self.conv(x) * self.factor


class ReturnsItself(Network):
    def forward(self, x: Tensor) -> object:
        return self


@pytest.mark.parametrize(
    ("cls", "why"),
    [
        (Reads, "the host reads a tensor"),
        (Chooses, "values decide a shape"),
        (Counts, "its forward changes attributes"),
        (ReturnsItself, "of another type than tensors and constants: ReturnsItself"),
    ],
)
def test_what_cannot_be_captured_runs_as_it_is_and_the_report_says_why(cls, why: str, cuda: RecordedCuda) -> None:
    net, x = accelerate(cls().eval(), inference=True), pictures()
    with torch.no_grad():
        for _ in range(4):
            net(x)
    assert cuda.captures == cuda.replays == 0
    report = acceleration_report(net).graphs
    assert "float32 2x3x8x8 runs as it is: " in report and why in report


def test_a_capture_that_breaks_off_leaves_everything_as_it_was(cuda: RecordedCuda) -> None:
    net, x = network(), pictures()
    cuda.fails = RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")
    stream = cuda.current_stream()
    for _ in range(3):
        check(net, x)
    assert not cuda.replays and cuda.current_stream() is stream and not cuda.capturing
    assert "runs as it is: RuntimeError: CUDA out of memory." in acceleration_report(net).graphs
    cuda.fails = None
    for _ in range(3):
        check(net, pictures(side=4))  # another kind
    assert cuda.captures == 1


def test_random_draws_are_those_of_the_default_generator(cuda: RecordedCuda) -> None:
    net, x = accelerate(nn.Sequential(nn.Dropout()).eval(), inference=True), pictures()
    net[0].train()
    with torch.no_grad():
        net(x), net(x)
        torch.manual_seed(1)
        found = net(x)
        torch.manual_seed(1)
        assert torch.equal(found, nn.functional.dropout(x)) and cuda.replays == 2


def test_copies_and_pickles_begin_anew(cuda: RecordedCuda) -> None:
    net, x = network(), pictures()
    for _ in range(3):
        check(net, x)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        captures = cuda.captures
        with torch.no_grad():
            other.conv.weight.neg_()
        for _ in range(3):
            check(other, x)
        assert cuda.captures == captures + 1
    check(net, x)
    assert "forward" not in vars(restore(net))


def test_streams_wait_for_each_other(cuda: RecordedCuda) -> None:
    net, x = network(), pictures()
    check(net, x), check(net, x)
    first, other = cuda.current_stream(), cuda.Stream()
    with cuda.stream(other):
        check(net, x)
    assert first in other.waited_for
    check(net, x)
    assert first.waited_for[-1] is other


def test_the_chains_of_its_forward_stay_proved(cuda: RecordedCuda) -> None:
    """A `Graphed` forward before that of the class is no other forward."""
    net, x = accelerate(Chain().eval(), inference=True), pictures()
    fusion = net.conv._fusion
    with torch.no_grad():
        net(x)
    assert fusion._stood is not None
    assert str(acceleration_report(accelerate(net, inference=True))).startswith("1 of 1")


def test_a_completion_network(cuda: RecordedCuda) -> None:
    net = accelerate(CompletionNetwork(channels=4).eval(), inference=True)
    for _ in range(4):
        picture, mask = torch.rand(1, 3, 16, 20), torch.rand(1, 1, 16, 20) > 0.5
        with torch.inference_mode():
            found = net(picture, mask)
            wanted = CompletionNetwork.forward(net, picture, mask)
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert cuda.captures == 1


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = CompletionNetwork(channels=16).cuda().eval()
    plain = copy.deepcopy(net)
    accelerate(net, inference=True)
    for step in range(8):
        picture, mask = torch.rand(2, 3, 64, 48, device="cuda"), torch.rand(2, 1, 64, 48, device="cuda") > 0.5
        if step == 5:
            with torch.no_grad():
                for each in (net, plain):
                    each.layer5[0].weight.mul_(0.5)
        with torch.inference_mode(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            torch.testing.assert_close(net(picture, mask), plain(picture, mask), rtol=0, atol=0.02)
    report = str(acceleration_report(net))
    assert "CUDA graphs of 1 kinds of calls" in report and "runs as it is" not in report, report


@pytest.mark.gpu
def test_on_a_gpu_what_cannot_be_captured_breaks_nothing() -> None:
    x = torch.randn(2, 3, 8, 8, device="cuda")
    for cls in (Reads, Chooses):
        net = accelerate(cls().cuda().eval(), inference=True)
        with torch.no_grad():
            for _ in range(4):
                net(x)
        assert "runs as it is" in acceleration_report(net).graphs
    with pytest.raises(_graphs.NotCaptured):
        _graphs.Graph(lambda: x.sum().item(), x.device)
    torch.randn(3, device="cuda"), torch.cuda.synchronize()  # the generator draws on
    graph = _graphs.Graph(lambda: x * 2, x.device)
    graph.replay()
    assert torch.equal(graph.result, x * 2)
