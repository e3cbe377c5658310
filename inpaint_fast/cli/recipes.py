"""inpaint-fast recipes"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Annotated

import torch
import tyro

from inpaint_fast.cli._options import check_name, parse
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
    names = parse(Recipes, "inpaint-fast recipes", argv).names
    chosen = [RECIPES[check_name(name, RECIPES, "recipe")] for name in names or RECIPES]
    print("\n\n".join(map(describe, chosen)))
    return 0


def describe(recipe: type[Recipe]) -> str:
    """A recipe in a paragraph."""
    settings = recipe()
    ours = {field.name: getattr(settings, field.name) for field in fields(recipe) if field.name not in _RUN}
    rows = {
        "source": recipe.source,
        "networks": ", ".join(f"{name} {count:,} parameters" for name, count in sizes(settings).items()),
        "settings": shown(ours),
        "published": shown(recipe.as_published) or "the same",
    }
    wrapped = partial(textwrap.wrap, width=110, break_on_hyphens=False)
    lines = wrapped(f"{recipe.name}: {' '.join(recipe.__doc__.split())}", subsequent_indent="  ")
    for name, text in rows.items():
        lines += wrapped(text, initial_indent=f"  {name:10}", subsequent_indent=" " * 12)
    return "\n".join(lines)


def sizes(recipe: Recipe) -> dict[str, int]:
    """Network -> its number of parameters; nothing is allocated. Captions count as those of COCO."""
    if getattr(recipe, "captions", "none") != "none":
        recipe = replace(recipe, vocabulary=COCO_VOCABULARY)
    with torch.device("meta"):
        system = recipe.build()
    return {name: sum(p.numel() for p in network.parameters()) for name, network in system.named_children()}


def shown(settings: Mapping[str, object]) -> str:
    """Settings as the command line takes them: "crop 64 320, flip False"."""
    return ", ".join(
        f"{name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}" for name, value in settings.items()
    )
