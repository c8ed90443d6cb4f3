"""The recipe: one YAML file that describes a run. Every key is checked, and a `Recipe` object is frozen.

    recipe = load_recipe("prompts/reasoning/recipe.yaml")     # or "reasoning", the name of a shipped task
    recipe = with_values(recipe, {"train.max_steps": 10})     # checked again

Relative paths in a recipe are relative to the recipe's folder. `RUN/recipe.yaml` is the resolved recipe: all paths are
absolute and all defaults are written out, so the run can be repeated from this file alone.

Each section has its own module here, which checks the section's keys. The module `check` holds the rules across
sections, `explain` describes all problems, and `locate` finds the line of each problem.
"""

from synthgen.recipe.across import Across
from synthgen.recipe.audit import AuditSection, check_audits
from synthgen.recipe.check import broken_rules
from synthgen.recipe.compare import deciding, differences, digest_of_rows
from synthgen.recipe.curate import CurateSection, check_installed, files_read
from synthgen.recipe.ensemble import Ensemble
from synthgen.recipe.evaluate import EvaluateSection
from synthgen.recipe.generate import Budget, GenerateSection
from synthgen.recipe.hidden import Hidden
from synthgen.recipe.load import (
    check_recipe,
    dump_recipe,
    find_recipe,
    has_local_teacher,
    load_recipe,
    local_teacher,
    recipe_of_values,
    schema_comment,
    shipped,
    with_limits,
    with_values,
)
from synthgen.recipe.logits import LogitsSection
from synthgen.recipe.online import OnlineSection
from synthgen.recipe.places import check_models, gguf_in_package
from synthgen.recipe.rationale import RationaleSection
from synthgen.recipe.relations import Relations
from synthgen.recipe.root import Recipe
from synthgen.recipe.seeds import MadeBy, SeedSource
from synthgen.recipe.speakers import NO_TEACHER, speakers
from synthgen.recipe.split import Split
from synthgen.recipe.steps import StepsSection
from synthgen.recipe.train import TRAIN_MAY_CHANGE, TrainSection

__all__ = [
    "NO_TEACHER",
    "TRAIN_MAY_CHANGE",
    "Across",
    "AuditSection",
    "Budget",
    "CurateSection",
    "Ensemble",
    "EvaluateSection",
    "GenerateSection",
    "Hidden",
    "LogitsSection",
    "MadeBy",
    "OnlineSection",
    "RationaleSection",
    "Recipe",
    "Relations",
    "SeedSource",
    "Split",
    "StepsSection",
    "TrainSection",
    "broken_rules",
    "check_audits",
    "check_installed",
    "check_models",
    "check_recipe",
    "deciding",
    "differences",
    "digest_of_rows",
    "dump_recipe",
    "files_read",
    "find_recipe",
    "gguf_in_package",
    "has_local_teacher",
    "load_recipe",
    "local_teacher",
    "recipe_of_values",
    "schema_comment",
    "shipped",
    "speakers",
    "with_limits",
    "with_values",
]
