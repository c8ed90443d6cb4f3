"""distill: train, evaluate, measure and export students on a corpus.

import distill
distill.train(recipe, "runs/first")
distill.evaluate(recipe, "runs/first")
distill.curve(recipe, "runs/first")
distill.export("runs/first", "onnx")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synthgen.lazy import publish

if TYPE_CHECKING:
    from distill.curve import curve
    from distill.evaluate import evaluate
    from distill.export.make import export
    from distill.train import train

__all__ = ["curve", "evaluate", "export", "train"]

publish(__name__, {"curve": "curve", "evaluate": "evaluate", "export": "export.make", "train": "train"})
