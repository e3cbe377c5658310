"""The recipes, for parametrize."""

from __future__ import annotations

import pytest

from inpaint_fast.training import RECIPES

TWINS = ("context_cnn_bow1", "context_cnn_bow5", "context_cnn_lstm", "glcic", "glcic_places2")
"""Recipes that another one stands for: of the same code, with another encoder of captions or other sizes."""
EACH_RECIPE = [pytest.param(name, marks=pytest.mark.long if name in TWINS else ()) for name in RECIPES]
"""`make test` leaves the twins to `make test-long`."""


def few_critic_steps(name: str) -> dict[str, int]:
    """For a recipe with many steps of its critic, as settings: two, which are several, too."""
    return {"critic_steps": 2} if getattr(RECIPES[name], "critic_steps", 0) > 2 else {}
