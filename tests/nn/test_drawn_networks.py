"""Drawn networks through drawn lives, accelerated and plain: trained, validated, changed, copied, accelerated again."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nn.drawn import Block, ByOptions, Plan, Straight, build, doubled, plans
from nn.weight_changes import ALL, INVISIBLE, VISIBLE
from torch import Tensor, nn

import inpaint_fast as ipf

# Left out: another dtype; what cannot be done twice; a process of its own, which takes its time.
CHANGES = sorted(set(ALL) - {"rounded", "parametrized", "parametrized_and_removed", "pruned", "another_process"})


@dataclass
class Life:
    """The accelerated network, the plain one, and in float32 the plain one in float64, that tells what an error is."""

    plan: Plan
    nets: list[nn.Module] = field(default_factory=list)
    promised: bool = False
    before: dict[str, Tensor] | None = None  # a state that is kept for later

    def __post_init__(self) -> None:
        plain = build(self.plan)
        if self.plan.double:
            plain.double()
        if self.plan.in_eval_mode:
            plain.eval()
        self.nets = [ipf.accelerate(copy.deepcopy(plain)), plain]
        if not self.plan.double:
            self.nets.append(copy.deepcopy(plain).double())

    def inputs(self, net: nn.Module, extra: bool) -> list[Tensor]:
        shape = 2, self.plan.channels, *self.plan.size
        x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        dtype = next(net.parameters()).dtype
        return [x.to(dtype), *([torch.tensor(0.75, dtype=dtype)] if extra else [])]

    def each(self, function: Callable[[nn.Module], object]) -> None:
        for net in self.nets:
            function(net)

    # ---- what may happen ----

    def train(self) -> None:
        self.promised = False
        self.each(lambda net: net.train())

    def eval(self) -> None:
        self.each(lambda net: net.eval())

    def step(self, fused: bool) -> None:
        """A step of training with the network's own gradients; small, since errors of two networks grow apart."""

        def one(net: nn.Module) -> None:
            optimizer = torch.optim.SGD(net.parameters(), lr=1e-2, fused=fused)
            net(*self.inputs(net, extra=False)).square().mean().backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            net.zero_grad()

        self.train()
        self.each(one)

    def change(self, name: str) -> None:
        if self.promised and name in INVISIBLE:  # the promise is not to do so
            name = sorted(set(VISIBLE) & set(CHANGES))[len(name) % 5]
        for net in self.nets:

            def use(net: nn.Module = net) -> Tensor:
                with torch.no_grad():
                    return net(*self.inputs(net, extra=False))

            ALL[name](net, use)

    def accelerate(self) -> None:
        self.promised = False
        ipf.accelerate(self.nets[0])

    def promise(self) -> None:
        self.eval()
        self.promised = True
        ipf.accelerate(self.nets[0], inference=True)

    def copied(self) -> None:
        self.nets = [copy.deepcopy(net) for net in self.nets]

    def pickled(self) -> None:
        self.nets = [pickle.loads(pickle.dumps(net)) for net in self.nets]

    def state(self) -> None:
        """The states of the first two are exchanged; they are the same but for rounding."""
        ours, plain = (copy.deepcopy(net.state_dict()) for net in self.nets[:2])
        assert list(ours) == list(plain)
        self.nets[0].load_state_dict(plain), self.nets[1].load_state_dict(ours)

    def setting(self) -> None:
        """Of every block: what its forward asks."""

        def one(net: nn.Module) -> None:
            for module in net.modules():
                if isinstance(module, Straight):
                    module.flag = not module.flag
                if isinstance(module, ByOptions):
                    module.options["tail"] = not module.options["tail"]

        self.each(one)

    def hook(self) -> None:
        """A hook on the last norm or activation; removed, if there is one already."""

        def one(net: nn.Module) -> None:
            module = [m for m in net.modules() if isinstance(m, (nn.BatchNorm2d, nn.ELU, nn.Conv2d))][-1]
            if module._forward_hooks:
                module._forward_hooks.clear()
            else:
                module.register_forward_hook(doubled)

        if any(isinstance(m, (nn.BatchNorm2d, nn.ELU, nn.Conv2d)) for m in self.nets[1].modules()):
            self.each(one)

    def frozen(self) -> None:
        def one(net: nn.Module) -> None:
            parameter = list(net.parameters())[-1]
            parameter.requires_grad_(not parameter.requires_grad)

        self.each(one)

    def norm_mode(self) -> None:
        self.each(lambda net: [m.train(not m.training) for m in net.modules() if isinstance(m, nn.BatchNorm2d)])
        self.promised = False

    # ---- the comparison ----

    def check(self) -> None:
        for extra in (False, True):
            compare(*(validated(net, self.inputs(net, extra)) for net in self.nets))
            compare(*(differentiated(net, self.inputs(net, extra)) for net in self.nets))
        compare(*(net.state_dict() for net in self.nets))


def validated(net: nn.Module, given: list[Tensor]) -> dict[str, Tensor | None]:
    with torch.no_grad():
        first = net(*given)
    with torch.inference_mode():
        return {"no_grad": first, "inference_mode": net(*given)}


def differentiated(net: nn.Module, given: list[Tensor]) -> dict[str, Tensor | None]:
    given = [x.clone().requires_grad_() for x in given]
    y = net(*given)
    loss = (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)).mean()
    leaves = {name: p for name, p in net.named_parameters() if p.requires_grad}
    leaves |= {f"input {i}": x for i, x in enumerate(given)}
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {"result": y.detach()} | {f"gradient of {name}": g for name, g in zip(leaves, gradients, strict=True)}


def compare(ours: dict, plain: dict, exact: dict | None = None) -> None:
    """By norms, gradients by that of the largest: a bias before a norm has rounding errors alone.

    In float32 ten times the plain network's own error is allowed, against float64, and 2e-3 besides: Winograd's error
    is a few times that of a direct convolution, and three steps of training and a norm of what a sigmoid saturated
    have made 2e-4 of it. What a stale weight or a wrong branch does is seen from afar.
    """
    assert list(ours) == list(plain)
    wanted = plain if exact is None else exact
    largest = max((t.norm().item() for n, t in wanted.items() if t is not None and n.startswith("gradient")), default=0)
    for name, tensor in wanted.items():
        assert (ours[name] is None) == (tensor is None), name
        if tensor is None:
            continue
        assert type(ours[name]) is type(plain[name]) and ours[name].dtype == plain[name].dtype, name
        scale = max(tensor.double().norm().item(), largest if name.startswith("gradient") else 0) or 1.0
        error, other = ((t[name].double() - tensor.double()).norm().item() / scale for t in (ours, plain))
        limit = 1e-7 if exact is None else 10 * other + 2e-3
        assert error <= limit, f"{name}: relative error {error:.3g}, the plain network's {other:.3g}"


actions = st.one_of(
    st.sampled_from(["train", "eval", "accelerate", "promise", "copied", "pickled", "state", "setting", "hook"]),
    st.sampled_from(["promise", "eval", "frozen", "norm_mode", "setting"]),
    st.tuples(st.just("step"), st.booleans()),
    st.tuples(st.just("change"), st.sampled_from(CHANGES)),
    st.tuples(st.just("change"), st.sampled_from(CHANGES)),
)
lives = st.lists(actions, min_size=3, max_size=7)


def live(plan: Plan, actions: list) -> None:
    life = Life(plan)
    life.check()
    for action in actions:
        name, *arguments = (action,) if isinstance(action, str) else action
        getattr(life, name)(*arguments)
        life.check()


QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
BLOCK = Block("same", 24, ("norm", "act"), "elu", "ByArgument", 1, True, False, "")
PLAN = Plan(False, 24, (17, 16), (BLOCK,), "forward", True)


# Faults that were: a fused optimizer's step between two validations, and an argument that the trace did not see.
@example(plan=PLAN, actions=["eval", ("change", "Adam_fused"), ("change", "data_clamped")])
@example(plan=PLAN, actions=["promise", ("change", "tensors_swapped"), "train", ("change", "data_copied"), "eval"])
@given(plan=plans(), actions=lives)
@settings(max_examples=40, suppress_health_check=QUIET)
def test_a_life(plan: Plan, actions: list) -> None:
    live(plan, actions)


@pytest.mark.long
@given(plan=plans(), actions=lives)
@settings(max_examples=1000, suppress_health_check=QUIET)
def test_many_lives(plan: Plan, actions: list) -> None:
    live(plan, actions)
