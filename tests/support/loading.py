"""Counts how often a test loads weights."""

from __future__ import annotations

from typing import Any

import pytest

from synthgen.lm import weights


def loads_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that gets the name of each model whose weights are loaded from now on."""
    names: list[str] = []
    real = weights.load_model

    def load_model(files: Any, dtype: str) -> Any:
        names.append(files.name)
        return real(files, dtype)

    monkeypatch.setattr(weights, "load_model", load_model)
    return names
