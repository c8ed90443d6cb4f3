"""The recipe: one YAML file that says what a run is. It is validated and frozen; unknown keys are refused.

    recipe = load_recipe("prompts/reasoning/recipe.yaml")     # or "reasoning", the name of a shipped task

Relative paths in a recipe are relative to its own folder. `RUN/recipe.yaml` is the resolved recipe: paths are
absolute and defaults are written out, so that this file alone repeats the run.

Each section has a file of its own. `check` holds the rules across sections, `locate` finds the line of an error.
"""

from synthgen.recipe.audit import AuditSection
from synthgen.recipe.check import speakers
from synthgen.recipe.compare import deciding, differences
from synthgen.recipe.curate import CurateSection
from synthgen.recipe.evaluate import EvaluateSection
from synthgen.recipe.generate import Budget, GenerateSection, StepsSection, Strategy
from synthgen.recipe.load import dump_recipe, find_recipe, load_recipe, local_teacher, shipped, with_limits
from synthgen.recipe.logits import LogitsSection
from synthgen.recipe.recipe import Recipe
from synthgen.recipe.seeds import SeedSource, Split
from synthgen.recipe.targets import Across, Ensemble, Hidden, OnlineSection, RationaleSection, Relations
from synthgen.recipe.train import HOW, TrainSection

__all__ = [
    "HOW",
    "Across",
    "AuditSection",
    "Budget",
    "CurateSection",
    "Ensemble",
    "EvaluateSection",
    "GenerateSection",
    "Hidden",
    "LogitsSection",
    "OnlineSection",
    "RationaleSection",
    "Recipe",
    "Relations",
    "SeedSource",
    "Split",
    "StepsSection",
    "Strategy",
    "TrainSection",
    "deciding",
    "differences",
    "dump_recipe",
    "find_recipe",
    "load_recipe",
    "local_teacher",
    "shipped",
    "speakers",
    "with_limits",
]
