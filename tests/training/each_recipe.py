"""The recipes, for parametrize."""

from __future__ import annotations

import pytest

from inpaint_fast.training import RECIPES

TWINS = ("context_cnn_bow1", "context_cnn_bow5", "context_cnn_lstm", "glcic", "glcic_places2")
"""Recipes that another one stands for: of the same code, with another encoder of captions or other sizes."""
EACH_RECIPE = [pytest.param(name, marks=pytest.mark.long if name in TWINS else ()) for name in RECIPES]
"""`make test` leaves the twins to `make test-long`."""
