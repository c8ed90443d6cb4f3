"""Claims the folder RUN/generated for one set of inputs: a recipe with its templates and seeds. The inputs are stored
in the folder, so that a later run with other inputs is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from synthgen import corpus, durable, outputs
from synthgen.errors import RunChanged
from synthgen.generation import ledger
from synthgen.generation.inputs import Inputs
from synthgen.recipe import Recipe, deciding, differences, dump_recipe, load_recipe
from synthgen.recipe.load import is_resolved
from synthgen.removed import refuse_half
from synthgen.seeds.changes import RowHashes, changed_rows

# The recipe's sections that determine the rows. The section `seeds` is left out, because the seeds are compared by a
# hash of their content (`seeds_sha256`), not by their path.
SECTIONS = ("task", "strategy", "split", "teacher", "teachers", "mixture", "generate", "steps", "logits")
SEEDS = "seeds_sha256"


@dataclass(frozen=True)
class Claim:
    """The folder RUN/generated and the inputs of its rows."""

    folder: Path
    inputs: Inputs

    @cached_property
    def values(self) -> dict[str, Any]:
        """The content of inputs.json."""
        decides = deciding(self.inputs.recipe)
        return {
            "recipe": {name: decides[name] for name in SECTIONS},
            "prompt_version": self.inputs.prompt.version,
            SEEDS: self.inputs.seeds.fingerprint,
        }

    def check(self) -> bool:
        """Whether the folder is already claimed for these inputs. When the folder is claimed for other inputs, raises
        RunChanged, which names the differences.

        Nothing is written."""
        return corpus.is_begun(self.folder, self.values, "generate", self._differences)

    def write(self, fresh: bool) -> None:
        """Claim the folder if it is not claimed yet. With `fresh`, the folder's content is discarded first.

        A new claim also writes RUN/recipe.yaml."""
        if fresh:
            outputs.discard(self.folder, outputs.GENERATED)
            ledger.discard(self.folder.parent / ledger.FOLDER)
        outputs.sweep(self.folder, outputs.GENERATED)
        if self.check():
            return
        recipe = self.folder.parent / "recipe.yaml"
        durable.write_text(recipe, dump_recipe(self.inputs.recipe))
        self.inputs.seeds.rows.write(self.folder)
        durable.write_json(self.folder / "inputs.json", self.values)

    def _differences(self, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
        """Describe the differences between two versions of inputs.json for the user. For seeds, the description names
        each changed file and counts its changed rows.
        """
        changed = differences({**old, SEEDS: ""}, {**new, SEEDS: ""})
        if old.get(SEEDS) == new[SEEDS]:
            return changed
        before = RowHashes.read(self.folder)
        rows = changed_rows(before, self.inputs.seeds.rows) if before else []
        if rows or changed:  # a change of the split or of a template also changes the hash of the seeds
            return [*rows, *changed]
        return ["the seeds have changed"]


def check_run(run: Path) -> None:
    """Raise RunChanged when the folder `run` has files but no recipe.yaml, or when its recipe.yaml was not written by
    synthgen. Writes nothing.
    """
    path = run / "recipe.yaml"
    names = {p.name for p in run.iterdir()} if run.is_dir() else set()
    # a run that was killed while it wrote recipe.yaml leaves only the temporary file
    if not path.exists() and names - {".lock", durable.TEMPORARY + path.name}:
        raise RunChanged(f"{run} is not empty and is not a run", "give another folder with -o")
    if path.exists() and not is_resolved(path):
        raise RunChanged(f"{path} was not written by a run and would be overwritten", "give another folder with -o")


def begin(recipe: Recipe, run: Path, fresh: bool) -> None:
    """Check that the folder `run` belongs to this recipe, or to no recipe yet. Raises RunChanged, which names the
    differing keys, when the folder belongs to another recipe.

    A run without a shard belongs to no recipe yet, so a mistake in the recipe can be corrected and the folder used
    again. Writes nothing: RUN/recipe.yaml is written later. For an existing run, this file is written after the run's
    inputs have been read and compared. For a new run, this file is written after the teachers have been opened. If a
    command fails earlier, the folder can still be used with another recipe.
    """
    check_run(run)
    refuse_half(run)
    path = run / "recipe.yaml"
    if path.exists() and any((run / "generated").rglob("*.parquet")):
        old = load_recipe(path)
        changed = [] if fresh else differences(deciding(old), deciding(recipe))
        if changed:
            raise RunChanged(
                f"{run} belongs to another recipe: {'; '.join(changed[:5])}"
                + (f"; and {len(changed) - 5} more" if len(changed) > 5 else ""),
                "give another folder with -o, or make the changed stages again with --fresh",
            )


def keep_recipe(recipe: Recipe, run: Path) -> None:
    """Write `recipe` to RUN/recipe.yaml, unless that file already holds the same recipe. `recipe` can differ from the
    recipe in that file, because some keys, such as the budget, may be changed, and because the recipe may be moved.
    """
    path = run / "recipe.yaml"
    if not path.exists() or load_recipe(path) != recipe:
        durable.write_text(path, dump_recipe(recipe))
