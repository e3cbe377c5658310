"""inpaint-fast: train, complete and measure from the shell.

Exit code 0: done; 1: done but for the files named; 2: bad use, something is not there, or training stopped by itself,
said in one sentence; 130: interrupted. Other signals that end a run end the process, once a checkpoint is saved.
INPAINT_FAST_TRACEBACK=1 shows where an error came from.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence

from inpaint_fast._environment import variable
from inpaint_fast._names import printable
from inpaint_fast.cli._options import check_name, said

COMMANDS = {
    "demo": "train two systems on the photographs that come with the package and complete unseen ones",
    "train": "train a recipe on a folder of pictures",
    "recipes": "every recipe: its source, its networks, its hyperparameters",
    "pack": "a folder of pictures into one file, decoded once, for training that never waits",
    "complete": "fill the holes of a picture, or of every picture in a folder",
    "serve": "a web page with a brush: open a picture, paint the hole, complete it, save it",
    "convert": "public GLCIC weights (.pth) to safetensors, and back; nothing in them is executed",
    "export": "a completion network as ONNX or as a torch.export program",
    "report": "one page about runs, side by side: curves, held-out pictures, settings, warnings",
    "evaluate": "measure a trained generator on held-out pictures, beside fills that learn nothing",
    "profile": "where the time of a training step goes, and a trace of it",
    "bench": "run a benchmark: an operator against what you would use instead",
    "info": "what is built, what runs where, and why something does not",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    argv, formatwarning = list(sys.argv[1:] if argv is None else argv), warnings.formatwarning
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding lacks is no reason to stop
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        from inpaint_fast import __version__

        print(f"inpaint_fast {__version__}")
        return 0
    try:
        warnings.formatwarning = _formatted
        command = importlib.import_module(f"inpaint_fast.cli.{check_name(argv[0], COMMANDS, 'command')}")
        return command.main(argv[1:])
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\ninpaint-fast: stopped; what was written so far is whole", file=sys.stderr)
        return 130
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        if variable("INPAINT_FAST_TRACEBACK") == "1":
            raise
        print(f"inpaint-fast {printable(argv[0])}: {said(error)}", file=sys.stderr)
        return 2
    finally:
        warnings.formatwarning = formatwarning


def _formatted(message: Warning | str, category: type[Warning], *where: object) -> str:
    """A warning of this package as a sentence, without the line of code that gave it."""
    if category.__module__.startswith(f"{__package__.partition('.')[0]}."):
        return f"inpaint-fast: {printable(str(message))}\n"
    return f"{category.__name__}: {message}\n"


def usage() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        ["usage: inpaint-fast COMMAND [options]   (inpaint-fast COMMAND --help for its options)", "", *lines]
    )


if __name__ == "__main__":
    sys.exit(main())
