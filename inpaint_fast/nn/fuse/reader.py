"""The reader of forwards: an interpreter of their source that knows modules and settings, and runs nothing."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Sequence
from typing import Any

from torch import nn

from inpaint_fast.nn.fuse.calls import Calls
from inpaint_fast.nn.fuse.expressions import Frame
from inpaint_fast.nn.fuse.proof import Reading, Result, Setting
from inpaint_fast.nn.fuse.source import PythonFunction, Unproved, definition_of
from inpaint_fast.nn.fuse.values import Helper, Known, Module, Several, Torch, of_others

DEEPEST = 8  # methods called by methods


class _Return(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


# A tensor may be given anything by these without a look at what it is.
_CONTEXTS = ("no_grad", "enable_grad", "autocast", "inference_mode", "set_grad_enabled", "record_function")


def read(owner: nn.Module, training: bool) -> Reading:
    """What the forward of `owner` does in training or in eval mode.

    Raises:
        Unproved: that does not follow from what is known.
    """
    return _Reader(owner, training).read()


class _Reader(Calls):
    def read(self) -> Reading:
        cls = type(self.owner)
        try:
            forward = self._method("forward")
            for name in ("__getattr__", "__getattribute__", "__setattr__"):
                if getattr(cls, name) is not getattr(nn.Module, name):
                    where = f"line {forward.__code__.co_firstlineno} of {forward.__qualname__}"
                    raise Unproved(f"{where}: {cls.__name__} has a {name} of its own")
            arguments = inspect.signature(forward, follow_wrapped=False).parameters
            values: dict[str, Any] = {name: Result() for name in arguments}
            values[next(iter(arguments))] = Module(self.owner)
            self._use(self._run(forward, values), "it ends the forward")
        except Unproved:
            raise
        except Exception as error:  # of this reader: what it cannot read is not proved
            raise self._unproved(f"it cannot be read ({type(error).__name__})") from None
        if changed := self.written & self.settings.keys():
            raise Unproved(f"it changes self.{min(changed)}, on which it depends")
        self.reading.grounds += [Setting(name, value) for name, value in self.settings.items()]
        return self.reading

    # ---- functions ----

    def _run(self, function: PythonFunction, values: dict[str, Any]) -> Any:
        """What a function returns for these arguments."""
        if len(self.frames) >= DEEPEST:
            raise self._unproved("methods call methods too deeply")
        definition = definition_of(function)
        self.invocations += 1
        self.frames.append(Frame(function, self.invocations, values))
        line, self.line = self.line, definition.lineno
        try:
            self._block(definition.body)
            returned: Any = Known(None)
        except _Return as result:
            returned = result.value
        self.frames.pop()
        self.line = line
        return returned

    # ---- statements ----

    def _block(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            self.line = statement.lineno
            self._step()
            method = getattr(self, f"_do_{type(statement).__name__}", None)
            if method is None:
                raise self._unproved(f"a {type(statement).__name__.lower()} statement")
            method(statement)

    def _do_Pass(self, statement: ast.Pass) -> None:
        pass

    def _do_Expr(self, statement: ast.Expr) -> None:
        self._value(statement.value)

    def _do_Return(self, statement: ast.Return) -> None:
        raise _Return(Known(None) if statement.value is None else self._value(statement.value))

    def _do_Break(self, statement: ast.Break) -> None:
        raise _Break

    def _do_Continue(self, statement: ast.Continue) -> None:
        raise _Continue

    def _do_Assign(self, statement: ast.Assign) -> None:
        value = self._value(statement.value)
        for target in statement.targets:
            self._assign(target, value)

    def _do_AnnAssign(self, statement: ast.AnnAssign) -> None:
        if statement.value is not None:
            self._assign(statement.target, self._value(statement.value))

    def _do_AugAssign(self, statement: ast.AugAssign) -> None:
        before = self._value(statement.target)
        value = self._value(statement.value)
        self.place += 1  # it may write into what it is given
        if isinstance(before, Several):
            raise self._unproved("a list or tuple is changed")
        self._assign(statement.target, self._computed(statement.op, before, value))

    def _do_Delete(self, statement: ast.Delete) -> None:
        for target in statement.targets:
            if not isinstance(target, ast.Name):
                raise self._unproved("del of something that is no variable")
            self.frames[-1].names.pop(target.id, None)

    def _do_Assert(self, statement: ast.Assert) -> None:
        self._use(self._value(statement.test), "an assertion looks at it")  # it holds, or nothing goes on

    def _do_Raise(self, statement: ast.Raise) -> None:
        raise self._unproved("it raises")

    def _do_Import(self, statement: ast.Import) -> None:
        for alias in statement.names:
            name = alias.name if alias.asname else alias.name.partition(".")[0]
            self.frames[-1].names[alias.asname or name] = of_others(name, sys.modules.get(name))

    def _do_ImportFrom(self, statement: ast.ImportFrom) -> None:
        module = sys.modules.get(statement.module or "") if not statement.level else None
        for alias in statement.names:
            found = vars(module).get(alias.name) if module is not None else None
            self.frames[-1].names[alias.asname or alias.name] = of_others(alias.name, found)

    def _do_If(self, statement: ast.If) -> None:
        value = self._value(statement.test)
        known = self._truth(value)
        if known is None:
            only_raises = isinstance(statement.body[-1], ast.Raise) and len(statement.body) == 1
            if not only_raises or statement.orelse:
                raise self._unproved(f"the condition `{ast.unparse(statement.test)}`")
            self._use(value, "a condition looks at it")
            return
        self._block(statement.body if known else statement.orelse)

    def _do_For(self, statement: ast.For) -> None:
        broken = False
        for value in self._items(statement.iter):
            self._assign(statement.target, value)
            try:
                self._block(statement.body)
            except _Break:
                broken = True
                break
            except _Continue:
                continue
        if not broken:
            self._block(statement.orelse)

    def _do_With(self, statement: ast.With) -> None:
        for item in statement.items:
            call = item.context_expr
            callee = self._value(call.func) if isinstance(call, ast.Call) else None
            known = isinstance(callee, Torch) and getattr(callee.object, "__name__", "") in _CONTEXTS
            if not isinstance(call, ast.Call) or not known:
                raise self._unproved(f"with {ast.unparse(call)}")
            for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
                self._use(self._value(argument), "a with statement looks at it")
            if item.optional_vars is not None:
                raise self._unproved(f"with {ast.unparse(call)} as a value")
        before, self.within = self.within, (*self.within, statement)
        try:
            self._block(statement.body)
        finally:  # by a return or a break, too
            self.within = before

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.frames[-1].names[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            if any(isinstance(part, ast.Starred) for part in target.elts):
                raise self._unproved("a starred target")
            if isinstance(value, Several) and len(value.values) == len(target.elts):
                parts = self._elements(value)
            else:
                self._use(value, "it is taken apart")
                parts = [Result() for _ in target.elts]
            for part, one in zip(target.elts, parts, strict=True):
                self._assign(part, one)
        elif isinstance(target, ast.Attribute):
            self.place += 1
            of = self._value(target.value)
            if not isinstance(of, Module) or of.path:
                raise self._unproved(f"it writes {ast.unparse(target)}")
            if isinstance(value, (Module, Helper)) or target.attr in self.owner._modules or target.attr == "training":
                raise self._unproved(f"it writes {ast.unparse(target)}")
            self._use(value, "the forward keeps it")
            self.written.add(target.attr)
        elif isinstance(target, ast.Subscript):
            self.place += 1
            of = self._value(target.value)
            if isinstance(of, (Module, Several)):
                raise self._unproved(f"it writes {ast.unparse(target)}")
            for each in (of, self._value(target.slice), value):
                self._use(each, "it is written into something")
        else:
            raise self._unproved(f"it writes {ast.unparse(target)}")
