"""distill: train, evaluate, measure and export students on a corpus.

import distill

distill.train(recipe, "runs/first")
distill.evaluate(recipe, "runs/first")
distill.curve(recipe, "runs/first")
distill.export("runs/first", "onnx")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill.curves import curve
    from distill.evaluation.evaluate import evaluate
    from distill.exporting.make import export
    from distill.training import train

__all__ = [
    "curve",
    "evaluate",
    "export",
    "train",
]

_HOMES = {
    "curve": "distill.curves",
    "evaluate": "distill.evaluation.evaluate",
    "export": "distill.exporting.make",
    "train": "distill.training",
}


def __getattr__(name: str) -> object:
    """Import the module of a public name when the name is first used, so that `import distill` is fast."""
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value: object = importlib.import_module("synthgen.stores").on_stores(
        getattr(importlib.import_module(_HOMES[name]), name)
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
