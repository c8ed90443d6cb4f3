"""Claims the folder RUN/generated for one set of inputs: a recipe with its templates and seeds. The inputs are stored
in the folder, so that a later run with other inputs is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from synthgen import corpus, durable, outputs
from synthgen.generation import ledger
from synthgen.generation.inputs import Inputs
from synthgen.recipe import deciding, differences, dump_recipe
from synthgen.seeds.changes import RowHashes, changed_rows

# The recipe's sections that determine the rows. `seeds` is not among them, because the seeds are compared by a hash of
# their content (`seeds_sha256`), not by their path.
SECTIONS = ("task", "strategy", "split", "teacher", "teachers", "mixture", "generate", "steps", "logits")
_SEEDS = "seeds_sha256"


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
            _SEEDS: self.inputs.seeds.fingerprint,
        }

    def check(self) -> bool:
        """Whether the folder is already claimed for these inputs. When it is claimed for other inputs, raises
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
        changed = differences({**old, _SEEDS: ""}, {**new, _SEEDS: ""})
        if old.get(_SEEDS) == new[_SEEDS]:
            return changed
        before = RowHashes.read(self.folder)
        rows = changed_rows(before, self.inputs.seeds.rows) if before else []
        if rows or changed:  # other changes (split, template) also change the hash of the seeds, which contains splits
            return [*rows, *changed]
        return ["the seeds have changed"]
