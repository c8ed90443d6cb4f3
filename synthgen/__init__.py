"""synthgen: make a distillation corpus from a teacher model, curate and audit it, and train a student from it.

    import synthgen
    recipe = synthgen.load_recipe("reasoning")
    synthgen.run(recipe, "runs/first")

Each command of the same name is one of these functions. Importing this loads none of torch, pandas, datasets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synthgen.lazy import publish

if TYPE_CHECKING:
    from synthgen.audit import audit
    from synthgen.curate import curate
    from synthgen.errors import SynthgenError, UserError
    from synthgen.generate import generate
    from synthgen.generate.plan import plan
    from synthgen.generate.tune import tune
    from synthgen.pipeline import run
    from synthgen.recipe import Recipe, load_recipe
    from synthgen.records import Record, Verdict
    from synthgen.report import write_report
    from synthgen.show import show

__version__ = "0.1.0"

__all__ = [
    "Recipe",
    "Record",
    "SynthgenError",
    "UserError",
    "Verdict",
    "audit",
    "curate",
    "generate",
    "load_recipe",
    "plan",
    "run",
    "show",
    "tune",
    "write_report",
]

_HOMES = {
    "Recipe": "recipe",
    "Record": "records",
    "SynthgenError": "errors",
    "UserError": "errors",
    "Verdict": "records",
    "audit": "audit",
    "curate": "curate",
    "generate": "generate",
    "load_recipe": "recipe",
    "plan": "generate.plan",
    "run": "pipeline",
    "show": "show",
    "tune": "generate.tune",
    "write_report": "report",
}

publish(__name__, _HOMES)
