"""The reader's calls: of modules, of functions that are read, of Python's and PyTorch's own."""

from __future__ import annotations

import ast
import inspect
from types import FunctionType
from typing import Any

import torch

from inpaint_fast.nn.fuse.expressions import LONGEST, Expressions
from inpaint_fast.nn.fuse.harmless import BUILTINS, grounds_of, is_tensor_method
from inpaint_fast.nn.fuse.proof import PLAIN, Call, Function, Result, attribute
from inpaint_fast.nn.fuse.source import PythonFunction
from inpaint_fast.nn.fuse.values import (
    Attribute,
    Builtin,
    Foreign,
    Helper,
    Known,
    Module,
    Own,
    Several,
    Super,
    Torch,
    is_torch,
    name_of,
)

_GO_THROUGH = ("len", "list", "tuple", "reversed", "enumerate", "zip")
_GO_TO_THE_END = ("list", "tuple", "sum", "min", "max")  # at once
_FORBIDDEN = ("locals", "globals", "vars", "eval", "exec", "setattr", "delattr", "getattr", "__import__", "compile")


class Calls(Expressions):
    """What calls do, besides expressions."""

    def _of_Call(self, node: ast.Call) -> Any:
        callee = self._value(node.func)
        starred = any(isinstance(each, ast.Starred) for each in node.args) or any(k.arg is None for k in node.keywords)
        args = [self._argument(each, callee) for each in node.args]
        named = {keyword.arg or "**": self._value(keyword.value) for keyword in node.keywords}
        if isinstance(callee, Helper):
            return self._call_helper(callee, args, named, starred)
        user, found = self.frames[-1].function, getattr(callee, "object", None)
        if isinstance(callee, Foreign) and isinstance(found, FunctionType):
            if user.__globals__.get(callee.name) is not found:
                raise self._unproved(f"a call of `{callee.name}`, of which nothing is known")
            grounds = grounds_of(callee.name, user, found)
            if grounds is None or any(isinstance(each, (Module, Helper, Super)) for each in (*args, *named.values())):
                self.reading.grounds.append(Function(callee.name, user, found))
                return self._call_read(callee.name, found, args, named, starred)
            self.reading.grounds += grounds
            self.place += 1
            return self._consumed([*args, *named.values()], f"the function {callee.name} takes it")
        if isinstance(callee, Builtin):
            found = self._call_builtin(callee.name, args, named)
            if found is not None:
                return found
        if isinstance(callee, Attribute):
            found = self._call_attribute(callee, args)
            if found is not None:
                return found
        if isinstance(callee, Own):
            function = Torch(callee.value) if is_torch(callee.value) else None
            if function is None or not self._identity(callee)[0]:
                raise self._unproved(f"a call of self.{callee.name}, which is no module")
            callee = function
        self.place += 1
        if isinstance(callee, Module):
            return self._call_module(callee, args, named, starred)
        if isinstance(callee, Torch) and callee.object is torch.jit.is_scripting:
            return Known(False)  # a script does not run this
        if not _is_harmless(callee):  # it may be one of the modules, or call them
            raise self._unproved(f"a call of `{ast.unparse(node.func)}`, of which nothing is known")
        return self._consumed([*args, *named.values()], f"{name_of(callee)} follows, and only modules are fused")

    def _argument(self, node: ast.expr, callee: Any) -> Any:
        starred = isinstance(node, ast.Starred)
        given = node.value if starred else node
        if isinstance(given, ast.GeneratorExp) and (starred or _goes_to_the_end(callee)):
            return self._of_ListComp(given)
        return self._value(given)

    def _call_module(self, callee: Module, args: list, named: dict, starred: bool) -> Result:
        if not callee.path:
            raise self._unproved("it calls itself")
        invocations = tuple(frame.invocation for frame in self.frames)
        call = Call(callee.module, self.frames[-1].function, invocations, self.place, self.within, callee.path)
        call.result = Result()
        alone = len(args) == 1 and not named and not starred
        for value in (*args, *named.values()):
            self._use(value, call if alone else f"the {type(callee.module).__name__} that follows takes more than it")
        self.reading.calls.append(call)
        return call.result

    def _call_helper(self, callee: Helper, args: list, named: dict, starred: bool) -> Any:
        if attribute(self.owner, callee.name) is callee.function:
            self._method(callee.name)  # otherwise it was super()'s
        return self._call_read(f"self.{callee.name}", callee.function, [Module(self.owner), *args], named, starred)

    def _call_read(self, name: str, function: PythonFunction, args: list, named: dict, starred: bool) -> Any:
        """A call of a function that is read, too."""
        if starred:
            raise self._unproved(f"{name} with starred arguments")
        try:
            bound = inspect.signature(function, follow_wrapped=False).bind(*args, **named)
        except TypeError:
            raise self._unproved(f"{name} does not take these arguments") from None
        values: dict[str, Any] = {}
        for name, parameter in bound.signature.parameters.items():
            if name in bound.arguments:
                given = bound.arguments[name]
                if parameter.kind is parameter.VAR_POSITIONAL:
                    given = Several(list(given))
                elif parameter.kind is parameter.VAR_KEYWORD:
                    given = self._consumed(list(given.values()), "it is in a dict")
            else:
                default = parameter.default
                given = Known(default) if type(default) in PLAIN else Result()
            values[name] = given
        return self._run(function, values)

    def _call_builtin(self, name: str, args: list, named: dict) -> Any:
        if name in _FORBIDDEN:
            raise self._unproved(f"a call of {name}")
        if name == "super":
            if args:
                raise self._unproved("super() with arguments")
            return Super()
        if named:
            return None
        known = [self._setting(each) if isinstance(each, Own) else each for each in args]
        whole = [each.value for each in known if isinstance(each, Known) and type(each.value) is int]
        if name == "range" and len(whole) == len(known):
            numbers = range(*whole)
            if len(numbers) > LONGEST:
                raise self._unproved("it is too long to be read")
            return Several([Known(number) for number in numbers])
        parts = [self._contents(each, "values") if isinstance(each, Module) and each.path else each for each in args]
        several = [each for each in parts if isinstance(each, Several)]
        if name not in _GO_THROUGH or not parts or len(several) < len(parts):
            return None
        if name == "len":
            return None if several[0].once else Known(len(self._elements(several[0])))
        lists = [self._elements(each) for each in several]
        if name in ("list", "tuple"):
            return Several(lists[0], is_list=name == "list")
        for each in several:
            each.gone_through = True
        if name == "reversed":
            return Several(lists[0][::-1], once=True)
        if name == "enumerate" and len(lists) == 1:
            return Several([Several([Known(i), value]) for i, value in enumerate(lists[0])], once=True)
        if name == "zip":
            return Several([Several(list(each)) for each in zip(*lists, strict=False)], once=True)
        return None

    def _call_attribute(self, callee: Attribute, args: list) -> Any:
        """A method of a container or of a list; None: of something unknown."""
        if isinstance(callee.of, Module):
            if callee.name in ("values", "items", "keys", "children") and not args:
                return self._contents(callee.of, callee.name)
            raise self._unproved(f"a call of a {type(callee.of.module).__name__}'s {callee.name}")
        if isinstance(callee.of, Several):
            if callee.name != "append" or len(args) != 1 or not callee.of.is_list:
                raise self._unproved(f"a call of .{callee.name} of a list")
            if callee.of.gone_through:
                raise self._unproved("a list that is gone through is changed")
            if callee.of.shared:
                self._use(args[0], "the forward keeps it")
            callee.of.values.append(args[0])
            return Known(None)
        self._use(callee.of, f"its {callee.name} is called")
        return None


def _goes_to_the_end(callee: Any) -> bool:
    return isinstance(callee, Builtin) and callee.name in _GO_TO_THE_END


def _is_harmless(callee: Any) -> bool:
    """It calls none of the modules from where it stands: PyTorch's, a tensor's method by its name, Python's own."""
    if isinstance(callee, Attribute):
        return is_tensor_method(callee.name)
    return isinstance(callee, Torch) or (isinstance(callee, Builtin) and callee.name in BUILTINS)
