"""What a stranger sees of the package: every public name explains itself, and its types are known to type checkers."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch

import inpaint_fast as ipf
from inpaint_fast.training import Recipe

ROOT = Path(__file__).resolve().parents[1]
SHAPE = re.compile(
    r"\([A-Z0-9|]+(?:, [\w|*.]+)+,?\)|\(\d?[\w|]*, ?[\w ]+, ?[\w ]+\)|scalar|any (?:shape|size|strides)|\(N,\)"
)
NAMED = re.compile(r"\b[A-Z][a-z]+(?: et al\.| and | \(\d{4}\))|\(\d{4}\)|project|PyTorch|torch\.|Equivalent|eq\. ")


def public() -> Iterator[tuple[str, object]]:
    """(dotted name, thing) of all that `__all__` names, in the package and in its public modules, once each."""
    seen: set[int] = set()
    modules = [ipf, *(each for name in ipf.__all__ if isinstance(each := getattr(ipf, name), ModuleType))]
    for module in modules:
        for name in module.__all__:
            thing = getattr(module, name)
            if not isinstance(thing, ModuleType) and (inspect.isclass(thing) or inspect.isfunction(thing)):
                if id(thing) not in seen:
                    yield f"{module.__name__}.{name}", thing
                seen.add(id(thing))


PUBLIC = dict(public())
FUNCTIONS = {name: each for name, each in PUBLIC.items() if inspect.isfunction(each)}
CLASSES = {name: each for name, each in PUBLIC.items() if inspect.isclass(each)}
BASES = ("CentreGenerator", "System")  # of networks, and of systems of them: nothing that was published
NETWORKS = {
    name: each for name, each in CLASSES.items() if issubclass(each, torch.nn.Module) and each.__name__ not in BASES
}
RECIPES = {name: each for name, each in CLASSES.items() if issubclass(each, Recipe)}


def parameters_of(thing: Callable) -> list[str]:
    names = list(inspect.signature(thing).parameters.values())
    return [each.name for each in names if each.name != "self" and each.kind is not each.VAR_KEYWORD]


def documented(text: str) -> set[str]:
    """The names in the sections Args and Attributes: `a:`, `a, b:`, `*args:`."""
    found: set[str] = set()
    for section in re.findall(r"^(?:Args|Attributes):\n((?:[ ]+.*\n?|\n)+)", text, re.MULTILINE):
        for names in re.findall(r"^    ((?:\*{0,2}\w+)(?:, \*{0,2}\w+)*):", section, re.MULTILINE):
            found |= {name.strip().lstrip("*") for name in names.split(",")}
    return found


def explains(text: str, name: str) -> bool:
    """Whether a docstring speaks of an argument: in its own entry, or by name in the running text."""
    return name in documented(text) or re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


@pytest.mark.parametrize("name", PUBLIC)
def test_it_has_a_docstring_of_its_own(name: str) -> None:
    thing = PUBLIC[name]
    assert thing.__doc__ and not thing.__doc__.startswith(f"{thing.__name__}("), name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_names_its_arguments_its_result_and_its_errors(name: str) -> None:
    function = FUNCTIONS[name]
    text = inspect.getdoc(function)
    missing = [each for each in parameters_of(function) if not explains(text, each)]
    signature = inspect.signature(function)
    if "Tensor" in str(signature) and not SHAPE.search(text) and "Arguments and errors are those of" not in text:
        missing.append("a shape")
    if signature.return_annotation not in (None, "None") and "Returns:" not in text and not returns_in_a_sentence(text):
        missing.append("Returns:")
    if raises(function) and "Raises:" not in text and "error" not in text.lower():
        missing.append("Raises:")
    assert not missing, f"{name} does not tell of {', '.join(missing)}"


def returns_in_a_sentence(text: str) -> bool:
    """Whether the first sentence is what it returns ("The mean of ...") and there is nothing else to say."""
    return not re.match(r"[A-Z]\w+s? (?:a|an|the|every|all|by)\b", text) or text.count("\n") < 12


def raises(function: Callable) -> bool:
    return "raise " in inspect.getsource(function)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_tells_its_shapes_its_arguments_and_where_it_was_published(name: str) -> None:
    network = NETWORKS[name]
    text = "\n".join(filter(None, (inspect.getdoc(network), inspect.getdoc(network.forward))))
    own = network.__init__ if "__init__" in vars(network) else None
    missing = [
        each for each in (parameters_of(own) if own else ()) if not explains(text, each) and each not in ("args",)
    ]
    missing += [] if SHAPE.search(text) else ["a shape"]
    source = f"{text}\n{inspect.getdoc(inspect.getmodule(network))}"
    missing += [] if NAMED.search(source) else ["its source"]
    assert not missing, f"{name} does not tell of {', '.join(missing)}"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_its_source_and_every_setting_has_a_line(name: str) -> None:
    recipe = RECIPES[name]
    assert is_dataclass(recipe)
    if recipe is not Recipe:
        assert recipe.source
    texts = "\n".join(inspect.getsource(each) for each in recipe.__mro__ if is_dataclass(each))
    undocumented = [
        field
        for field in (each.name for each in fields(recipe))
        if not re.search(rf'^    {field}: .*\n(?:    [^\n"]*\n)*    """', texts, re.M)
    ]
    assert not undocumented, f"{name}: {undocumented} have no line"


def test_dir_and_help_show_what_there_is() -> None:
    assert {"ops", "nn", "optim", "models", "accelerate", "complete", "masked_l2"} <= set(dir(ipf))
    assert sorted(ipf.__all__, key=str.lower) == sorted(dir(ipf), key=str.lower)
    from inpaint_fast.ops import masked_l2

    assert ipf.ops.masked_l2 is masked_l2 is ipf.masked_l2


def test_what_a_user_writes_runs() -> None:
    """And is typed: pyright reads the file in `make lint`."""
    ran = subprocess.run([sys.executable, ROOT / "tests" / "typed" / "user.py"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "inpaint_fast" / "py.typed").is_file()
    assert '"inpaint_fast" = ["py.typed"' in (ROOT / "pyproject.toml").read_text()


def test_networks_are_named_where_type_checkers_look() -> None:
    assert set(ipf.models.__all__) == {"NETWORKS", "CentreGenerator", *ipf.models.NETWORKS}
