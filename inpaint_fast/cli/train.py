"""inpaint-fast train RECIPE"""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import field, fields, make_dataclass
from pathlib import Path
from typing import Annotated

import tyro

from inpaint_fast._names import printable
from inpaint_fast.cli._options import check_name, parse
from inpaint_fast.cli.recipes import shown
from inpaint_fast.training import RECIPES, Recipe, train
from inpaint_fast.training.processes import is_first


def main(argv: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    recipe, out = recipe_of(argv[0], argv[1:])
    folder = train(recipe, out)
    if is_first():
        print(f"weights, metrics and pictures: {printable(folder)}/")
    return 0


def recipe_of(name: str, args: Sequence[str]) -> tuple[Recipe, Path]:
    """The recipe with the settings that these arguments give it, and the run's folder."""
    recipe = RECIPES[check_name(name, RECIPES, "recipe")]
    command, defaults = options_type(recipe), {}
    if any(word.replace("_", "-") == "--as-published" for word in args):
        defaults = recipe.as_published
        if not defaults:
            print(f"{name}: --as-published changes nothing, the defaults are those of the source")
    options = parse(command, f"inpaint-fast train {name}", args, default=command(**defaults))
    return recipe(**{each.name: getattr(options, each.name) for each in fields(recipe)}), options.out


def options_type(recipe: type[Recipe]) -> type:
    """What the command line of one recipe sets: every field of the recipe, where the run goes, and whose defaults."""
    out = field(default=Path("runs") / recipe.name, metadata={"help": "Folder of the run; made if it is not there."})
    ours = shown(recipe.as_published) or "none, the defaults are those of the source"
    published = field(default=False, metadata={"help": f"Make these the defaults, which the source has: {ours}."})
    flag = Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(name="as-published")]
    options = make_dataclass(recipe.name, [("out", Path, out), ("published", flag, published)], bases=(recipe,))
    paragraphs = [*inspect.cleandoc(recipe.__doc__).split("\n\n"), f"Source: {recipe.source}."]
    options.__doc__ = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return options


def usage() -> str:
    """The recipes, a line each."""
    width, lines = max(map(len, RECIPES)), []
    for name, recipe in RECIPES.items():
        text, indent = recipe.__doc__.splitlines()[0], " " * (width + 4)
        lines += textwrap.wrap(
            text, shutil.get_terminal_size().columns, initial_indent=f"  {name:{width}}  ", subsequent_indent=indent
        )
    return "\n".join(
        [
            "usage: inpaint-fast train RECIPE [--as-published] [options]   (inpaint-fast train RECIPE --help)",
            "",
            "recipes, more of them in inpaint-fast recipes:",
            *lines,
        ]
    )
