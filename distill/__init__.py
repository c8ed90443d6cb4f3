"""distill: train, evaluate and measure students on a corpus.

    from distill import train, evaluate
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill.evaluate import evaluate
    from distill.train import train

__all__ = ["evaluate", "train"]


def __getattr__(name: str) -> Any:
    """Import torch only when something is used."""
    import importlib

    if name in __all__:
        return getattr(importlib.import_module(f"distill.{name}"), name)
    raise AttributeError(f"module 'distill' has no attribute '{name}'")
