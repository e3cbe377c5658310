"""inpaint-fast bench STEM"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence

from inpaint_fast import benchmarks
from inpaint_fast.cli._options import check_name

HELPERS = ("counters", "harness", "machine", "peers", "plot", "processes", "rooflines")


def main(argv: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    modules = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.ispkg]
    stems = [name for name in modules if name not in HELPERS]
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: inpaint-fast bench STEM [--case REGEX] [--repeats N] [--csv FILE] [--plot FILE]")
        print("\nbenchmarks: " + ", ".join(stems) + "   (inpaint-fast bench STEM --help for all options)")
        return 0 if argv else 2
    stem = check_name(argv[0], stems, "benchmark")
    return importlib.import_module(f"inpaint_fast.benchmarks.{stem}").main(list(argv[1:]))
