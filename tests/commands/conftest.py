"""For each test, a copy of the finished run and of its recipe. A test may damage both copies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def recipe(tmp_path, finished) -> Path:
    """A copy of the finished run's recipe, seeds and templates, which a test may change."""
    return shutil.copytree(finished.recipe.parent, tmp_path / "task") / "recipe.yaml"


@pytest.fixture
def run(tmp_path, finished, recipe) -> Path:
    """A copy of the finished run, which a test may damage. Its recipe is the fixture `recipe`."""
    folder = shutil.copytree(finished.run, tmp_path / "run")
    resolved = folder / "recipe.yaml"
    resolved.write_text(resolved.read_text().replace(str(finished.recipe.parent), str(recipe.parent)))
    return folder
