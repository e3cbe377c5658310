"""The API reference, from the docstrings: python docs/reference.py writes build/docs/ (`make docs`). Needs pdoc."""

from __future__ import annotations

import warnings
from pathlib import Path

import pdoc

import inpaint_fast

OUT = Path(__file__).parents[1] / "build" / "docs"


def main() -> None:
    """Write a page a module: those that `inpaint_fast.__all__` names, and of each what its own `__all__` names."""
    # Of a dataclass and a NamedTuple pdoc reads the annotations in another module than that which wrote them.
    warnings.filterwarnings("ignore", message="Error parsing type annotation")
    for name in inpaint_fast.__all__:  # pdoc looks into the module's dictionary, and some names are imported when used
        setattr(inpaint_fast, name, getattr(inpaint_fast, name))
    pdoc.render.configure(docformat="google", show_source=False, footer_text="inpaint_fast")
    pdoc.pdoc("inpaint_fast", output_directory=OUT)
    print(OUT / "index.html")


if __name__ == "__main__":
    main()
