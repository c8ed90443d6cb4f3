"""distill: train, evaluate and measure students on a corpus.

import distill
distill.train(recipe, "runs/first")
distill.evaluate(recipe, "runs/first")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synthgen.lazy import publish

if TYPE_CHECKING:
    from distill.evaluate import evaluate
    from distill.train import train

__all__ = ["evaluate", "train"]

publish(__name__, {"evaluate": "evaluate", "train": "train"})
