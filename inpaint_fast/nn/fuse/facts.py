"""Facts: what was so when something was found out, asked again at every call.

To read the settings, hooks and tensors of three modules takes Python longer than a small convolution. What was found of
them stands as long as each of these facts does; where one does not, nothing is said, and it is found out anew. So facts
may be stricter than what they stand for: an equal tuple in the place of the same one is another.

A fact is (which, subject, key, value); facts are one tuple of such fours, which a processor reads in one go: all that
is asked of a network is in none of its caches by the next call. `stand(facts, argument)` asks them in their order.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

from torch import Tensor, is_grad_enabled, nn

from inpaint_fast import _extension
from inpaint_fast.nn.fuse.source import PythonFunction
from inpaint_fast.ops import _dispatch
from inpaint_fast.ops._torch_private import (
    FORWARD_MODE,
    GLOBAL_HOOKS,
    WATCHERS,
    are_transforms_active,
    is_autocast_enabled,
)

Facts = tuple[Any, ...]

# The order is that of csrc/facts/python.cpp.
_OWN_IS, _OWN_LACKS, _OWN_EMPTY, _DICT_IS, _DICT_LACKS, _DICT_TYPE, _ITEMS = range(7)
_TYPE, _CLASS, _CLASS_LACKS, _FUNCTION, _CALL, _ARGUMENT = range(7, 13)

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
FORWARDS = ("forward", "_conv_forward")


def own_is(object: Any, name: str) -> Facts:
    """An attribute of an object's own is the value that it has now."""
    return _OWN_IS, object, name, object.__dict__[name]


def own_lacks(object: Any, name: str) -> Facts:
    """An object has no attribute of this name of its own."""
    return _OWN_LACKS, object, name, None


def own_empty(object: Any, name: str) -> Facts:
    """An attribute of an object's own is an empty dict."""
    return _OWN_EMPTY, object, name, None


def dict_is(dict: dict, key: str) -> Facts:
    """An entry of a dict is the value that it has now."""
    return _DICT_IS, dict, key, dict[key]


def dict_lacks(dict: dict, key: str) -> Facts:
    """A dict has no such entry."""
    return _DICT_LACKS, dict, key, None


def dict_type(dict: dict, key: str) -> Facts:
    """An entry of a dict is of the class that it is of now; that a value may be freed, it is not held."""
    return _DICT_TYPE, dict, key, type(dict[key])


def items_are(dict: dict) -> Facts:
    """A dict has the entries that it has now, in this order."""
    return _ITEMS, dict, tuple(dict), tuple(dict.values())


def type_is(object: Any) -> Facts:
    """An object is of the class that it is of now."""
    return _TYPE, object, None, type(object)


def class_is(cls: type, name: str) -> Facts:
    """What is found by this name in a class and its bases is what is found there now; also where that is nothing."""
    found = _of_class(cls, name)
    return (_CLASS_LACKS, cls, name, None) if found is _MISSING else (_CLASS, cls, name, found)


def function_is(function: PythonFunction) -> Facts:
    """A function has the code, and its arguments the values by default, that they have now."""
    return _FUNCTION, function, function.__code__, function.__defaults__


def returns(function: Callable[[], Any], value: Any) -> Facts:
    """A function without arguments returns a value equal to this one, and of its class."""
    return _CALL, function, None, value


def argument_has(name: str, value: Any) -> Facts:
    """An attribute of the argument is equal to this value, and of its class."""
    return _ARGUMENT, None, name, value


def all_of(*facts: Facts) -> Facts:
    """All of these."""
    return tuple(chain.from_iterable(facts))


# ---- of modules and tensors ----


def undisturbed_now(module: nn.Module) -> Facts:
    """From which it follows that this module, which is `chain.undisturbed`, is that still."""
    hooks, forwards = (own_empty(module, name) for name in HOOKS), (own_lacks(module, name) for name in FORWARDS)
    return all_of(type_is(module), *hooks, *forwards)


def kind_of(input: Tensor) -> Facts:
    """The argument is a tensor like this one, in circumstances like these."""
    return all_of(
        argument_has("__class__", Tensor), argument_has("shape", input.shape), argument_has("dtype", input.dtype),
        argument_has("device", input.device), returns(is_grad_enabled, is_grad_enabled()),
        returns(is_autocast_enabled, is_autocast_enabled()), own_is(_dispatch, "_forced"),
        returns(are_transforms_active, are_transforms_active()), own_is(*FORWARD_MODE),
    )  # fmt: skip


def size_of(input: Tensor) -> Facts:
    """The argument is as large as this tensor, gradients are recorded or not as now, and the same backend is forced: as
    much as it takes to choose between two ways that are both right."""
    gradients = returns(is_grad_enabled, is_grad_enabled())
    return all_of(argument_has("shape", input.shape), gradients, own_is(_dispatch, "_forced"))


UNWATCHED = all_of(
    *(own_empty(nn.modules.module, name) for name in GLOBAL_HOOKS),
    *(returns(function, nothing) for function, nothing in WATCHERS.items()),
)
"""`is_watched` says no."""


# ---- to ask ----


def _stand(facts: Facts, argument: Any = None) -> bool:
    """Whether all of these facts do, those of the argument about this one."""
    return all(_stands(facts[i : i + 4], argument) for i in range(0, len(facts), 4))


def _stands(fact: Facts, argument: Any) -> bool:
    which, subject, key, value = fact
    if which in (_OWN_IS, _OWN_LACKS, _OWN_EMPTY):
        subject = subject.__dict__
    if which in (_OWN_IS, _DICT_IS):
        return subject.get(key, _MISSING) is value
    if which in (_OWN_LACKS, _DICT_LACKS):
        return key not in subject
    if which == _OWN_EMPTY:
        return subject.get(key, _MISSING) == {}
    if which == _DICT_TYPE:
        return key in subject and type(subject[key]) is value
    if which == _ITEMS:
        now = tuple(subject.values())
        return tuple(subject) == key and all(one is another for one, another in zip(now, value, strict=True))
    if which == _TYPE:
        return type(subject) is value
    if which == _CLASS:
        return _of_class(subject, key) is value
    if which == _CLASS_LACKS:
        return _of_class(subject, key) is _MISSING
    if which == _FUNCTION:
        return subject.__code__ is key and subject.__defaults__ is value
    found = subject() if which == _CALL else getattr(argument, key)
    return found is value or (type(found) is type(value) and found == value)


def _of_class(cls: type, name: str) -> Any:
    return next((each.__dict__[name] for each in cls.__mro__ if name in each.__dict__), _MISSING)


_MISSING = object()
stand = _stand if _extension.module is None else _extension.module.stand
"""Not to be called where torch.compile looks on, which cannot see into it and asks what it would have to ask again."""
