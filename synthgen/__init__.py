"""synthgen: make a distillation corpus from a teacher model, curate and audit it, and train a student on it.

    import synthgen

    recipe = synthgen.load_recipe("reasoning")
    synthgen.run(recipe, "runs/first")

This package has a function for each command of `synthgen`, with the same name. Importing the package loads neither
torch, pandas nor datasets.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synthgen.auditing import audit
    from synthgen.curation import curate
    from synthgen.curation.allowed import keep_allowed
    from synthgen.curation.verdicts import Rejection, Verdicts
    from synthgen.display import show
    from synthgen.errors import SynthgenError, UserError
    from synthgen.exporting.job import export
    from synthgen.generation.driver import generate
    from synthgen.generation.plan import plan
    from synthgen.generation.tune import tune
    from synthgen.notebook import open
    from synthgen.pipeline import curate_dataset, run
    from synthgen.recipe import Recipe, check_recipe, load_recipe, with_values
    from synthgen.records import Record
    from synthgen.reporting.page import report
    from synthgen.takedown.remove import remove
    from synthgen.tasks.initial import init

__version__ = "0.1.0"

__all__ = [
    "Recipe",
    "Record",
    "Rejection",
    "SynthgenError",
    "UserError",
    "Verdicts",
    "audit",
    "check_recipe",
    "curate",
    "curate_dataset",
    "export",
    "generate",
    "init",
    "keep_allowed",
    "load_recipe",
    "open",
    "plan",
    "remove",
    "report",
    "run",
    "show",
    "tune",
    "with_values",
]

_HOMES = {
    "Recipe": "synthgen.recipe",
    "Record": "synthgen.records",
    "SynthgenError": "synthgen.errors",
    "UserError": "synthgen.errors",
    "Rejection": "synthgen.curation.verdicts",
    "Verdicts": "synthgen.curation.verdicts",
    "audit": "synthgen.auditing",
    "check_recipe": "synthgen.recipe",
    "curate": "synthgen.curation",
    "curate_dataset": "synthgen.pipeline",
    "export": "synthgen.exporting.job",
    "generate": "synthgen.generation.driver",
    "init": "synthgen.tasks.initial",
    "keep_allowed": "synthgen.curation.allowed",
    "load_recipe": "synthgen.recipe",
    "open": "synthgen.notebook",
    "plan": "synthgen.generation.plan",
    "remove": "synthgen.takedown.remove",
    "report": "synthgen.reporting.page",
    "run": "synthgen.pipeline",
    "show": "synthgen.display",
    "tune": "synthgen.generation.tune",
    "with_values": "synthgen.recipe",
}

_ON_STORES = (
    *("audit", "curate", "curate_dataset", "export", "generate", "keep_allowed"),
    *("open", "remove", "report", "run", "show"),
)
"""Functions whose arguments for folders may also be URLs of a store."""


def __getattr__(name: str) -> object:
    """Load the module of a public name when the name is first used, so that importing the package is fast."""
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    if name in _ON_STORES:
        value = importlib.import_module("synthgen.stores").on_stores(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
