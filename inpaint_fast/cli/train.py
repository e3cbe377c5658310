"""inpaint-fast train RECIPE"""

from __future__ import annotations

import inspect
import os
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from inpaint_fast._names import printable
from inpaint_fast.cli._options import check_name, parse
from inpaint_fast.cli.recipes import shown
from inpaint_fast.completion.weights import checkpoints
from inpaint_fast.training import RECIPES, Recipe, read_recipe, train
from inpaint_fast.training.display import say
from inpaint_fast.training.processes import is_first, restarts


def main(argv: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    run, args = taken(argv, "--resume")
    config, args = taken(args, "--config")
    if run is None and config is None:
        recipe, options = recipe_of(args[0], args[1:])
        out, resume = options.out, restarts() > 0 and bool(checkpoints(options.out))
    else:
        if run is not None and config is not None:
            raise ValueError("--config: with --resume the settings are those of the run")
        if run is not None and os.path.isfile(run):
            raise ValueError(f"--resume: the folder of a run is expected, got the file {printable(run)}")
        source = config or run or ""
        before = read_recipe(source)
        if args and not args[0].startswith("-"):
            if args[0] != before.name:
                raise ValueError(f"{printable(source)} is of the recipe {before.name}, got {printable(args[0])}")
            args = args[1:]
        if is_given(args, "--as-published"):
            raise ValueError("--as-published: the settings are those of the run")
        if run is not None and is_given(args, "--out"):
            raise ValueError("--out: a run goes on in its own folder")
        recipe, options = recipe_of(before.name, args, asdict(before))
        out, resume = (options.out, False) if run is None else (run, True)
    folder = train(recipe, out, resume=resume, line_every=options.line_every, tensorboard=options.tensorboard)
    if is_first():
        say(f"weights, metrics and pictures: {printable(folder)}/")
    return 0


def taken(args: Sequence[str], option: str) -> tuple[str | None, list[str]]:
    """The value of an option of this command itself, if it is among these arguments, and the others."""
    for i, word in enumerate(args):
        if word == option or word.startswith(f"{option}="):
            after = 2 if word == option else 1
            value = word.removeprefix(f"{option}=") if after == 1 else next(iter(args[i + 1 :]), "")
            if not value:
                raise ValueError(f"{option}: a path is expected after it, got nothing")
            return value, [*args[:i], *args[i + after :]]
    return None, list(args)


def is_given(args: Sequence[str], option: str) -> bool:
    """Whether an option is among these arguments, in whichever spelling."""
    return any(word.replace("_", "-").partition("=")[0] == option for word in args)


def recipe_of(name: str, args: Sequence[str], defaults: Mapping[str, Any] | None = None) -> tuple[Recipe, Any]:
    """The recipe with the settings that these arguments give it, and all that they say."""
    recipe = RECIPES[check_name(name, RECIPES, "recipe")]
    command, defaults = options_type(recipe), dict(defaults or {})
    if is_given(args, "--as-published"):
        defaults = recipe.as_published
        if not defaults:
            print(f"{name}: --as-published changes nothing, the defaults are those of the source")
    options = parse(command, f"inpaint-fast train {name}", args, default=command(**defaults))
    return recipe(**{each.name: getattr(options, each.name) for each in fields(recipe)}), options


def options_type(recipe: type[Recipe]) -> type:
    """What the command line of one recipe sets: every field of the recipe, where the run goes and how it is shown, and
    whose defaults."""
    out = "Folder of the run; made if it is not there."
    ours = shown(recipe.as_published) or "none, the defaults are those of the source"
    lines = "Seconds between two lines that say where the run is, where no terminal shows a bar."
    events = "Also write what tensorboard --logdir shows: curves, pictures, clipped weights. Needs the extra [log]."
    published = f"Make these the defaults, which the source has: {ours}."
    flag = tyro.conf.FlagCreatePairsOff[bool]
    own = [
        ("out", Path, field(default=Path("runs") / recipe.name, metadata={"help": out})),
        ("line_every", float, field(default=30.0, metadata={"help": lines})),
        ("tensorboard", flag, field(default=False, metadata={"help": events})),
        (
            "published",
            Annotated[flag, tyro.conf.arg(name="as-published")],
            field(default=False, metadata={"help": published}),
        ),
    ]
    unchecked = {"__post_init__": lambda self: None}  # the recipe made of them says what is wrong
    options = make_dataclass(recipe.name, own, bases=(recipe,), namespace=unchecked)
    paragraphs = [*inspect.cleandoc(recipe.__doc__ or "").split("\n\n"), f"Source: {recipe.source}."]
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
            "       inpaint-fast train --resume RUN [options]              go on with a run; options such as --steps",
            "       inpaint-fast train --config RUN/config.toml [options]  a new run with the settings of another",
            "",
            "recipes, more of them in inpaint-fast recipes:",
            *lines,
        ]
    )
