"""inpaint-fast train RECIPE"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import field, make_dataclass
from pathlib import Path

import tyro

from inpaint_fast.training import RECIPES, Recipe, train


def main(argv: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] not in RECIPES:
        print(f"inpaint-fast train: {argv[0]!r} is no recipe; one of {', '.join(RECIPES)} is expected", file=sys.stderr)
        return 2
    recipe, args = RECIPES[argv[0]], list(argv[1:])
    published = "--as-published" in args
    if published:
        args.remove("--as-published")
    options = tyro.cli(options_type(recipe, published), prog=f"inpaint-fast train {argv[0]}", args=args)
    folder = train(options.recipe, options.out)
    print(f"weights, metrics and pictures: {folder}/")
    return 0


def options_type(recipe: type[Recipe], published: bool = False) -> type:
    """What the command line of one recipe sets: every field of the recipe, and where the run goes.

    Args:
        published: the defaults are the source's own (`Recipe.as_published`), where they differ.
    """
    flat = tyro.conf.OmitArgPrefixes[recipe]
    defaults = recipe.as_published if published else {}
    fields = [
        ("recipe", flat, field(default_factory=lambda: recipe(**defaults))),
        ("out", Path, field(default=Path("runs") / recipe.name)),
    ]
    options = make_dataclass("Options", fields)
    options.__doc__ = f"{recipe.__doc__}\n\nSource: {recipe.source}."
    if recipe.as_published:
        settings = ", ".join(f"{name} {value}" for name, value in recipe.as_published.items())
        options.__doc__ += f" --as-published makes these the defaults: {settings}."
    options.__doc__ += "\n\nArgs:\n    out: Folder of the run; made if it is not there."
    return options


def usage() -> str:
    """The recipes, a line each."""
    width = max(map(len, RECIPES))
    lines = [f"  {name:{width}}  {recipe.__doc__.splitlines()[0]}" for name, recipe in RECIPES.items()]
    return "\n".join(
        [
            "usage: inpaint-fast train RECIPE [--as-published] [options]   (inpaint-fast train RECIPE --help)",
            "",
            "recipes, more of them in inpaint-fast recipes:",
            *lines,
        ]
    )
