"""Facts stand as long as what they say is so; compiled and in Python they answer the same."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from inpaint_fast import _extension
from inpaint_fast.nn.fuse import facts as f
from inpaint_fast.nn.fuse.chain import undisturbed

ASKED = [f._stand, *([] if _extension.module is None else [_extension.module.stand])]


class Base:
    kind = "base"


class Derived(Base):
    pass


def function(a: int = 1) -> int:
    return a


def other(a: int = 2) -> int:
    return -a


class Subject(SimpleNamespace):
    pass


def subject() -> Subject:
    return Subject(settings=(1, 2), hooks={}, table={"a": 1, "b": "x"})


# What is made of a subject, and what changes it.
CASES: dict[str, tuple[Callable, list[Callable]]] = {
    "own_is": (
        lambda s: f.own_is(s, "settings"),
        [lambda s: setattr(s, "settings", tuple([1, 2])), lambda s: delattr(s, "settings")],
    ),
    "own_lacks": (lambda s: f.own_lacks(s, "forward"), [lambda s: setattr(s, "forward", None)]),
    "own_empty": (
        lambda s: f.own_empty(s, "hooks"),
        [lambda s: s.hooks.update(a=1), lambda s: setattr(s, "hooks", None), lambda s: delattr(s, "hooks")],
    ),
    "dict_is": (lambda s: f.dict_is(s.table, "b"), [lambda s: s.table.update(b=7), lambda s: s.table.clear()]),
    "dict_lacks": (lambda s: f.dict_lacks(s.table, "c"), [lambda s: s.table.update(c=None)]),
    "dict_type": (lambda s: f.dict_type(s.table, "a"), [lambda s: s.table.update(a=True), lambda s: s.table.clear()]),
    "items_are": (
        lambda s: f.items_are(s.table),
        [
            lambda s: s.table.update(c=1), lambda s: s.table.update(a=2), lambda s: s.table.pop("b"),
            lambda s: s.table.update(a=s.table.pop("a")),
        ],
    ),
    "type_is": (lambda s: f.type_is(s), [lambda s: setattr(s, "__class__", type("Other", (Subject,), {}))]),
}  # fmt: skip


@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize("name", CASES)
def test_a_fact_stands_until_it_is_changed(name: str, ask: Callable) -> None:
    make, changes = CASES[name]
    for change in changes:
        changed = subject()
        fact = make(changed)
        assert ask(fact) is True
        change(changed)
        assert ask(fact) is False
        assert ask(f.all_of(f.type_is(changed), fact)) is False


@pytest.mark.parametrize("ask", ASKED)
def test_classes_and_functions(ask: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    found, lacks, code = f.class_is(Derived, "kind"), f.class_is(Derived, "absent"), f.function_is(function)
    assert ask(f.all_of(found, lacks, code))
    with monkeypatch.context() as patch:
        patch.setattr(Base, "kind", "another")
        assert not ask(found)
    assert ask(found)
    with monkeypatch.context() as patch:
        patch.setattr(Derived, "kind", "its own", raising=False)
        patch.setattr(Base, "absent", 1, raising=False)
        assert not ask(found) and not ask(lacks)
    for name in ("__code__", "__defaults__"):
        with monkeypatch.context() as patch:
            patch.setattr(function, name, getattr(other, name))
            assert not ask(code)
    assert ask(f.all_of(found, lacks, code))


@pytest.mark.parametrize("ask", ASKED)
def test_the_kind_of_a_tensor(ask: Callable) -> None:
    x = torch.randn(2, 3)
    kind = f.kind_of(x)
    assert ask(kind, torch.zeros(2, 3)) and ask(kind, x.T.contiguous().T)
    for other_kind in (x.double(), x[:1], x.T, nn.Parameter(x), x.to("meta"), None):
        assert not (other_kind is not None and ask(kind, other_kind))
    with torch.no_grad():
        assert not ask(kind, x)
    with torch.autocast("cpu"):
        assert not ask(kind, x)


@pytest.mark.parametrize("ask", ASKED)
def test_an_error_of_what_is_asked_is_raised(ask: Callable) -> None:
    def fails() -> None:
        raise RuntimeError("as it says")

    with pytest.raises(RuntimeError, match="as it says"):
        ask(f.returns(fails, None))
    with pytest.raises(AttributeError):
        ask(f.argument_has("shape", ()), 3)


@pytest.mark.skipif(_extension.module is None, reason="without the extension")
@pytest.mark.parametrize("facts", [[], (1, 2), (99, None, None, None), (None,) * 4, None])
def test_compiled_it_takes_nothing_else(facts: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        _extension.module.stand(facts)


@pytest.mark.parametrize("ask", ASKED)
def test_an_undisturbed_module(ask: Callable) -> None:
    for disturb in (
        lambda m: m.register_forward_hook(lambda *_: None), lambda m: m.register_forward_pre_hook(lambda *_: None),
        lambda m: m.register_full_backward_hook(lambda *_: None), lambda m: setattr(m, "forward", None),
        lambda m: setattr(m, "_conv_forward", None), lambda m: setattr(m, "__class__", nn.Conv3d),
    ):  # fmt: skip
        module = nn.Conv2d(1, 1, 1)
        facts = f.undisturbed_now(module)
        assert ask(facts) and undisturbed(module)
        disturb(module)
        assert not ask(facts)


@pytest.mark.parametrize("ask", ASKED)
def test_it_is_seen_who_watches(ask: Callable) -> None:
    from torch.nn.modules.module import register_module_forward_hook
    from torch.overrides import TorchFunctionMode

    assert ask(f.UNWATCHED)
    hook = register_module_forward_hook(lambda *_: None)
    assert not ask(f.UNWATCHED)
    hook.remove()
    with TorchFunctionMode():
        assert not ask(f.UNWATCHED)
    seen = []
    torch.jit.trace(lambda x: (seen.append(ask(f.UNWATCHED)), x + 1)[1], torch.zeros(1))
    assert not seen[0]


def test_what_is_known_of_a_network_goes_with_it() -> None:
    import inpaint_fast as ipf

    net = ipf.accelerate(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())).eval()
    gone = weakref.ref(net[0])
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(1, 4, 4, 4))
    del net
    gc.collect()
    assert gone() is None
