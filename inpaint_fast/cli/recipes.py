"""inpaint-fast recipes"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated

import torch
import tyro

from inpaint_fast.training import RECIPES, Recipe

COCO_VOCABULARY = 7576  # word ids of the COCO captions: what sizes are given for
_RUN = {field.name for field in fields(Recipe)} - {"batch_size"}  # of the run, not of the system


@dataclass
class Recipes:
    """List every recipe: where it comes from, its networks with their parameters, its hyperparameters, and where those
    of its source differ from the defaults (--as-published takes them)."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Only these."""


def main(argv: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    names = tyro.cli(Recipes, prog="inpaint-fast recipes", args=argv).names
    if unknown := [name for name in names if name not in RECIPES]:
        raise ValueError(f"{unknown[0]!r} is no recipe; one of {', '.join(RECIPES)} is expected")
    print("\n\n".join(describe(RECIPES[name]) for name in names or RECIPES))
    return 0


def describe(recipe: type[Recipe]) -> str:
    """A recipe in a paragraph."""
    settings = recipe()
    ours = {field.name: getattr(settings, field.name) for field in fields(recipe) if field.name not in _RUN}
    rows = {
        "source": recipe.source,
        "networks": ", ".join(f"{name} {count:,} parameters" for name, count in sizes(settings).items()),
        "settings": ", ".join(f"{name} {_shown(value)}" for name, value in ours.items()),
        "published": ", ".join(f"{name} {_shown(value)}" for name, value in recipe.as_published.items()) or "the same",
    }
    lines = textwrap.wrap(f"{recipe.name}: {' '.join(recipe.__doc__.split())}", 110, subsequent_indent="  ")
    for name, text in rows.items():
        lines += textwrap.wrap(text, 110, initial_indent=f"  {name:10}", subsequent_indent=" " * 12)
    return "\n".join(lines)


def sizes(recipe: Recipe) -> dict[str, int]:
    """Network -> its number of parameters; nothing is allocated. Captions count as those of COCO."""
    if getattr(recipe, "captions", "none") != "none":
        recipe = replace(recipe, vocabulary=COCO_VOCABULARY)
    with torch.device("meta"):
        system = recipe.build()
    return {name: sum(p.numel() for p in network.parameters()) for name, network in system.named_children()}


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
