"""The reader's expressions and calls: what is known of their values, and what was done with those that are not."""

from __future__ import annotations

import ast
import builtins
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

from torch import nn

from inpaint_fast.nn.fuse.proof import (
    MISSING,
    PLAIN,
    BuiltinName,
    Call,
    Child,
    Contents,
    Method,
    Reading,
    Result,
    attribute,
)
from inpaint_fast.nn.fuse.source import PythonFunction, Unproved
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
    is_container,
    of_others,
)

LONGEST = 2000  # statements and expressions of loops, in all
_COMPARE: dict[type[ast.cmpop], Any] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
_COMPUTE: dict[type[ast.operator], Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}  # fmt: skip


@dataclass
class Frame:
    """A function that is being read."""

    function: PythonFunction
    invocation: int
    names: dict[str, Any] = field(default_factory=dict)


class Expressions:
    """A part of the reader; calls and statements are the others."""

    def __init__(self, owner: nn.Module, training: bool) -> None:
        self.owner, self.training, self.reading = owner, training, Reading()
        self.frames: list[Frame] = []
        self.within: tuple[ast.With, ...] = ()
        self.place = self.steps = self.line = self.invocations = self.comprehensions = 0
        self.settings: dict[str, object] = {}
        self.written: set[str] = set()

    def _run(self, function: PythonFunction, values: dict[str, Any]) -> Any:
        """What a function returns for these arguments."""
        raise NotImplementedError

    def _assign(self, target: ast.expr, value: Any) -> None:
        raise NotImplementedError

    def _unproved(self, reason: str) -> Unproved:
        where = self.frames[-1].function if self.frames else None
        if where is None:
            return Unproved(reason)
        return Unproved(f"line {self.line} of {where.__qualname__}: {reason}")

    def _step(self) -> None:
        self.steps += 1
        if self.steps > LONGEST:
            raise self._unproved("it is too long to be read")

    def _method(self, name: str) -> PythonFunction:
        found = attribute(self.owner, name)
        if not isinstance(found, FunctionType) or name in self.owner.__dict__:
            raise self._unproved(f"self.{name} is no plain method")
        self.reading.grounds.append(Method(name, found))
        return found

    # ---- what is known ----

    def _truth(self, value: Any) -> bool | None:
        """Whether a condition holds; None where it is not known."""
        if isinstance(value, Own):
            value = self._setting(value)
        if isinstance(value, Known):
            return bool(value.value)
        if isinstance(value, Several):
            return bool(self._elements(value))
        if isinstance(value, Module) and not any(hasattr(value.module, name) for name in ("__len__", "__bool__")):
            return True if self._identity(value)[0] else None
        return None

    def _setting(self, own: Own) -> Known | Result:
        """The value of the owner's own setting, which becomes a ground; unknown where it may be anything."""
        if own.name == "training":
            return Known(self.training)
        if own.name in self.written or type(own.value) not in PLAIN:
            return Result()
        self.settings[own.name] = own.value
        return Known(own.value)

    def _identity(self, value: Any) -> tuple[bool, object]:
        """(it is known what object this is, the object)."""
        if isinstance(value, Known):
            return True, value.value
        if isinstance(value, Own) and value.name not in self.written and value.name != "training":
            self.settings[value.name] = value.value
            return True, value.value
        if isinstance(value, Module) and len(value.path) == 1 and value.path[0].parent is self.owner:
            self.settings[value.path[0].name] = value.module
            return True, value.module
        return False, None

    def _use(self, value: Any, how: Call | str) -> None:
        """A value was given away."""
        if isinstance(value, Result):
            value.uses.append(how)
        elif isinstance(value, Several):
            value.shared = True
            for each in value.values:
                self._use(each, how if isinstance(how, str) else "it is in a tuple or list")
        elif isinstance(value, Attribute) and not isinstance(value.of, Module):
            self._use(value.of, how)
        elif isinstance(value, (Module, Helper, Super, Attribute)):
            raise self._unproved("it hands on one of its modules or methods")

    def _items(self, expression: ast.expr) -> list[Any]:
        """What a loop goes over."""
        value = self._value(expression)
        if isinstance(value, Module):  # of a dict the names
            value = self._contents(value, "keys" if isinstance(value.module, nn.ModuleDict) else "values")
        if not isinstance(value, Several):
            raise self._unproved(f"a loop over `{ast.unparse(expression)}`")
        value.gone_through = True
        return self._elements(value)

    def _elements(self, value: Several) -> list[Any]:
        """What is in it; gone through, if it is an iterator."""
        if value.shared and value.is_list:
            raise self._unproved("a list that somebody else may change")
        values = list(value.values)
        if value.once:
            value.values = []
        return values

    def _contents(self, of: Module, what: str) -> Several:
        """The modules of a container, by the method that names them."""
        if not is_container(of.module):
            raise self._unproved(f"a loop over the modules of a {type(of.module).__name__}")
        children = of.module._modules
        self.reading.grounds.append(Contents(of.module, tuple(children.items())))
        if isinstance(of.module, nn.ModuleList) and list(children) != [str(i) for i in range(len(children))]:
            raise self._unproved("a ModuleList whose names are not in order")
        modules = [self._child(of, name, module) for name, module in children.items()]
        names: list[Any] = [Known(name) for name in children]
        if what == "items":
            return Several([Several(list(pair)) for pair in zip(names, modules, strict=True)])
        return Several(names if what == "keys" else modules)

    def _child(self, of: Module, name: str, module: nn.Module | None) -> Any:
        return Known(None) if module is None else Module(module, (*of.path, Child(of.module, name, module)))

    # ---- expressions ----

    def _value(self, node: ast.expr) -> Any:
        self._step()
        method = getattr(self, f"_of_{type(node).__name__}", None)
        if method is None:
            raise self._unproved(f"`{ast.unparse(node)}`")
        return method(node)

    def _of_Constant(self, node: ast.Constant) -> Any:
        return Known(node.value)

    def _of_Name(self, node: ast.Name) -> Any:
        frame = self.frames[-1]
        if node.id in frame.names:
            return frame.names[node.id]
        if node.id in frame.function.__code__.co_varnames:
            raise self._unproved(f"{node.id} may have no value")
        free = dict(zip(frame.function.__code__.co_freevars, frame.function.__closure__ or (), strict=True))
        if node.id in free:
            return of_others(node.id, free[node.id].cell_contents)
        if node.id in frame.function.__globals__:
            return of_others(node.id, frame.function.__globals__[node.id])
        if not hasattr(builtins, node.id):
            return Foreign(node.id, None)
        self.reading.grounds.append(BuiltinName(node.id, frame.function))
        return Builtin(node.id)

    def _of_Attribute(self, node: ast.Attribute) -> Any:
        of = self._value(node.value)
        if isinstance(of, Module):
            return self._attribute_of_module(of, node)
        if isinstance(of, Torch):
            found = getattr(of.object, node.attr, None) if isinstance(of.object, ModuleType) else None
            return Torch(found) if found is not None else Foreign(ast.unparse(node), None)
        if isinstance(of, Super):
            return self._above(node.attr)
        if isinstance(of, (Several, Result, Own, Known)):
            return Attribute(of, node.attr)
        return Foreign(ast.unparse(node), None)

    def _attribute_of_module(self, of: Module, node: ast.Attribute) -> Any:
        name = node.attr
        found = attribute(of.module, name)
        if isinstance(found, nn.Module) and of.module.__dict__["_modules"].get(name) is found:
            return self._child(of, name, found)
        if of.path:  # values may change unseen; methods are those of containers
            return Attribute(of, name) if isinstance(found, FunctionType) else Result()
        if found is MISSING:
            raise self._unproved(f"there is no self.{name}")
        if isinstance(found, FunctionType) and name not in self.owner.__dict__:
            return Helper(name, found)
        if hasattr(type(found), "__get__") and name not in self.owner.__dict__:
            raise self._unproved(f"self.{name} is a {type(found).__name__}")
        return Own(name, found)

    def _above(self, name: str) -> Helper:
        """super().<name>, in the function that is being read."""
        function, mro = self.frames[-1].function, type(self.owner).__mro__
        at = next((i for i, cls in enumerate(mro) if cls.__dict__.get(function.__name__) is function), len(mro))
        cls = next((cls for cls in mro[at + 1 :] if name in cls.__dict__), None)
        found = None if cls is None else cls.__dict__[name]
        if not isinstance(found, FunctionType):
            raise self._unproved(f"super().{name} is no plain method")
        self.reading.grounds.append(Method(name, found, cls))
        return Helper(name, found)

    def _of_Compare(self, node: ast.Compare) -> Any:
        values = [self._value(each) for each in (node.left, *node.comparators)]
        if len(values) == 2:
            op, (left, right) = node.ops[0], values
            if isinstance(op, (ast.Is, ast.IsNot)):
                (known, a), (known_too, b) = self._identity(left), self._identity(right)
                if known and known_too:
                    return Known((a is b) == isinstance(op, ast.Is))
            elif type(op) in _COMPARE:
                left, right = (self._setting(each) if isinstance(each, Own) else each for each in values)
                if isinstance(left, Known) and isinstance(right, Known):
                    return self._calculated(_COMPARE[type(op)], left, right)
        return self._consumed(values, "a comparison looks at it")

    def _of_BoolOp(self, node: ast.BoolOp) -> Any:
        stops = isinstance(node.op, ast.Or)
        for each in node.values[:-1]:
            value = self._value(each)
            known = self._truth(value)
            if known is None:
                raise self._unproved(f"the condition `{ast.unparse(each)}`")
            if known is stops:
                return self._setting(value) if isinstance(value, Own) else value
        return self._value(node.values[-1])

    def _of_UnaryOp(self, node: ast.UnaryOp) -> Any:
        value = self._value(node.operand)
        if isinstance(node.op, ast.Not):
            known = self._truth(value)
            return Known(not known) if known is not None else self._consumed([value], "a condition looks at it")
        if isinstance(node.op, ast.USub) and isinstance(value, Known):
            return self._calculated(operator.neg, value)
        return self._consumed([value], "an expression takes it")

    def _of_IfExp(self, node: ast.IfExp) -> Any:
        known = self._truth(self._value(node.test))
        if known is None:
            raise self._unproved(f"the condition `{ast.unparse(node.test)}`")
        return self._value(node.body if known else node.orelse)

    def _of_BinOp(self, node: ast.BinOp) -> Any:
        return self._computed(node.op, self._value(node.left), self._value(node.right))

    def _computed(self, op: ast.operator, *values: Any) -> Any:
        known = [self._setting(each) if isinstance(each, Own) else each for each in values]
        whole = [each for each in known if isinstance(each, Known) and type(each.value) is int]
        if type(op) in _COMPUTE and len(whole) == len(known):
            return self._calculated(_COMPUTE[type(op)], *whole)
        return self._consumed(values, "an expression takes it")

    def _calculated(self, function: Any, *values: Known) -> Any:
        try:
            return Known(function(*(value.value for value in values)))
        except (TypeError, ArithmeticError):
            raise self._unproved("an error") from None

    def _consumed(self, values: Sequence[Any], how: str) -> Result:
        for value in values:
            self._use(value, how)
        return Result()

    def _of_NamedExpr(self, node: ast.NamedExpr) -> Any:
        if self.comprehensions:
            raise self._unproved("a walrus in a comprehension")
        value = self._value(node.value)
        self._assign(node.target, value)
        return value

    def _of_Tuple(self, node: ast.Tuple | ast.List) -> Any:
        if any(isinstance(each, ast.Starred) for each in node.elts):
            return self._consumed([self._value(getattr(each, "value", each)) for each in node.elts], "it is in a list")
        return Several([self._value(each) for each in node.elts], is_list=isinstance(node, ast.List))

    _of_List = _of_Tuple

    def _of_Dict(self, node: ast.Dict) -> Result:
        each = [self._value(one) for one in (*node.keys, *node.values) if one is not None]
        return self._consumed(each, "it is in a dict")

    def _of_Slice(self, node: ast.Slice) -> Any:
        return Known(
            slice(*(None if part is None else self._part(part) for part in (node.lower, node.upper, node.step)))
        )

    def _part(self, node: ast.expr) -> Any:
        value = self._value(node)
        value = self._setting(value) if isinstance(value, Own) else value
        if isinstance(value, Known):
            return value.value
        self._use(value, "a slice takes it")
        return MISSING

    def _of_JoinedStr(self, node: ast.JoinedStr) -> Result:
        return self._consumed([self._value(each) for each in node.values], "a text takes it")

    def _of_FormattedValue(self, node: ast.FormattedValue) -> Result:
        return self._consumed([self._value(node.value)], "a text takes it")

    def _of_Subscript(self, node: ast.Subscript) -> Any:
        of, at = self._value(node.value), self._value(node.slice)
        at = self._setting(at) if isinstance(at, Own) else at
        index = at.value if isinstance(at, Known) else MISSING
        if isinstance(of, Module):
            if type(of.module) is nn.ModuleDict and isinstance(index, str) and index in of.module._modules:
                return self._child(of, index, of.module._modules[index])
            values: Any = self._contents(of, "modules")
        else:
            values = of
        unknown = isinstance(index, slice) and MISSING in (index.start, index.stop, index.step)
        if isinstance(values, Several) and isinstance(index, (int, slice)) and not unknown and not values.once:
            try:
                found = self._elements(values)[index]
            except (IndexError, ValueError):
                raise self._unproved("an error") from None
            return Several(found, is_list=values.is_list) if isinstance(index, slice) else found
        if isinstance(of, Module):
            raise self._unproved(f"`{ast.unparse(node)}`")
        return self._consumed([of, at], "a part of it is taken")

    def _of_ListComp(self, node: ast.ListComp | ast.GeneratorExp) -> Several:
        if len(node.generators) != 1 or node.generators[0].is_async:
            raise self._unproved("a comprehension of several loops")
        generator, names, made = node.generators[0], self.frames[-1].names, []
        items = self._items(generator.iter)
        before = dict(names)
        self.comprehensions += 1
        for item in items:
            self._assign(generator.target, item)
            truths = [self._truth(self._value(test)) for test in generator.ifs]
            if None in truths:
                raise self._unproved("a condition in a comprehension")
            if all(truths):
                made.append(self._value(node.elt))
        self.comprehensions -= 1
        names.clear()
        names.update(before)
        return Several(made, is_list=isinstance(node, ast.ListComp), once=isinstance(node, ast.GeneratorExp))

    def _of_GeneratorExp(self, node: ast.GeneratorExp) -> Any:
        raise self._unproved("a generator, which runs later")  # but for those that a call goes through at once
