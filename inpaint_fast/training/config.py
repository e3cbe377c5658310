"""A recipe as `config.toml` and back."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import torch
from typeguard import TypeCheckError, check_type

from inpaint_fast._names import printable
from inpaint_fast._version import __version__
from inpaint_fast.training.catalogue import RECIPES
from inpaint_fast.training.recipe import Recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIG = "config.toml"
PATHS = ("data", "init", "word_vectors")
"""Settings that name files and folders. "samples" names none."""


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """Its settings as a run keeps them: tuples for lists, paths as strings from the root on, since whoever goes on with
    the run may do so from another folder."""
    settings = {field.name: _plain(getattr(recipe, field.name)) for field in fields(recipe)}
    for name in PATHS:
        if settings.get(name) not in (None, "samples"):
            settings[name] = os.path.abspath(settings[name])
    return settings


def config_toml(recipe: Recipe) -> str:
    """The recipe, and what runs it, as TOML, which has no word for None: settings that are None are listed as such."""
    settings = settings_of(recipe)
    head = {
        "recipe": recipe.name, "inpaint_fast": __version__, "torch": str(torch.__version__),
        "python": platform.python_version(), "platform": platform.platform(), "threads": torch.get_num_threads(),
        "not_set": [name for name, value in settings.items() if value is None],
    }  # fmt: skip
    lines = [*(f"{name} = {_toml(value)}" for name, value in head.items()), "", "[settings]"]
    lines += [f"{name} = {_toml(value)}" for name, value in settings.items() if value is not None]
    return "\n".join(lines) + "\n"


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """The recipe that `config_toml` wrote; settings that the file does not have are the recipe's defaults.

    Args:
        path: the file, or the folder of a run, which holds it.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no TOML, names no recipe, or has a setting that the recipe has not, or of another type; the
            message says which.
    """
    path = Path(path)
    if path.is_dir():
        path = path / CONFIG
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; the {CONFIG} of a run is expected there") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no TOML ({error})") from error
    try:
        config = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: no TOML ({error})") from error
    name, settings, not_set = (
        config.get(key, kind()) for key, kind in (("recipe", str), ("settings", dict), ("not_set", list))
    )
    if not isinstance(name, str) or name not in RECIPES:
        raise ValueError(f"{path}: recipe: one of {', '.join(RECIPES)} is expected, got {printable(repr(name))}")
    if not isinstance(settings, dict) or not isinstance(not_set, list):
        raise ValueError(f"{path}: [settings] and a list not_set are expected")
    recipe = RECIPES[name]
    values: dict[str, Any] = {key: _value(value) for key, value in settings.items()}
    values |= {str(key): None for key in not_set}
    hints, known = get_type_hints(recipe), {field.name for field in fields(recipe)}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{path}: {printable(key)}: {name} has no such setting")
        try:
            check_type(value, hints[key])
        except TypeCheckError as error:
            raise ValueError(f"{path}: {key}: {printable(repr(value))}: {error}") from error
    try:
        return recipe(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def expect_same_run(recipe: Recipe, folder: Path) -> None:
    """See that a run in this folder can go on by a recipe.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: its recipe is another one, or has other values of settings that what it has learned depends on.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; that of a run is expected")
    before = read_recipe(folder)
    if recipe.name != before.name:
        raise ValueError(f"recipe: the run in {folder} is one of {before.name}, got {recipe.name}")
    expect_settings(recipe, settings_of(before), folder)


def expect_settings(recipe: Recipe, began: Mapping[str, Any], folder: Path) -> None:
    """See that a recipe has the settings with which a run began, where what was learned depends on them.

    Args:
        recipe: by which the run is to go on.
        began: `settings_of` the run, from its config.toml or, which nobody edits, from its checkpoint.
        folder: of the run.

    Raises:
        ValueError: says which one is another.
    """
    for name, now in settings_of(recipe).items():
        if name not in recipe.free and name in began and began[name] != now:
            raise ValueError(
                f"{name}: the run in {folder} goes on with {began[name]!r}, with which it began, got {now!r}; "
                f"--init {folder} starts a new run from its networks"
            )


def _plain(value: Any) -> Any:
    """A setting as it is read: tuples, and paths as strings."""
    return (
        tuple(map(_plain, value))
        if isinstance(value, list | tuple)
        else os.fspath(value)
        if isinstance(value, Path)
        else value
    )


def _value(value: Any) -> Any:
    """A setting of what TOML has in its place."""
    if isinstance(value, list):
        return tuple(map(_value, value))
    if isinstance(value, str):
        return re.sub(r"\\u(d[89a-f][0-9a-f]{2})", lambda found: chr(int(found[1], 16)), value)
    return value


def _toml(value: Any) -> str:
    """A setting as TOML has it. Bytes of a path that are not UTF-8 have no place there: "\\\\udce9" stands for one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return '"' + "".join(map(_toml_character, os.fspath(value))) + '"'


def _toml_character(c: str) -> str:
    if "\ud800" <= c <= "\udfff":
        return f"\\\\u{ord(c):04x}"
    if c in '"\\':
        return "\\" + c
    return c if c.isprintable() else f"\\U{ord(c):08x}"
