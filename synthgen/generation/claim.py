"""Claims a run's folder for exactly one set of inputs, after all inputs could be opened."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from synthgen import corpus, durable, outputs
from synthgen.generation.inputs import Inputs
from synthgen.recipe import deciding, differences, dump_recipe
from synthgen.seeds.changes import RowHashes, changed_rows

# The sections that determine the rows. For seeds, the content counts (`seeds_sha256`), not their path.
SECTIONS = ("task", "strategy", "split", "teacher", "teachers", "mixture", "generate", "steps", "logits")
_SEEDS = "seeds_sha256"


@dataclass(frozen=True)
class Claim:
    """The folder RUN/generated and the inputs of its rows."""

    folder: Path
    inputs: Inputs

    @cached_property
    def values(self) -> dict[str, Any]:
        """What inputs.json holds."""
        decides = deciding(self.inputs.recipe)
        return {
            "recipe": {name: decides[name] for name in SECTIONS},
            "prompt_version": self.inputs.prompt.version,
            _SEEDS: self.inputs.seeds.fingerprint,
        }

    def check(self) -> bool:
        """Whether the folder holds rows of these inputs. Raises RunChanged, which names the differences, when it holds
        rows of other inputs.

        Nothing is written."""
        return corpus.is_begun(self.folder, self.values, "generate", self._differences)

    def write(self, fresh: bool) -> None:
        """Claim the folder if it is not claimed yet. `fresh` discards its content.

        Also writes RUN/recipe.yaml when the run has none or holds no rows yet."""
        if fresh:
            outputs.discard(self.folder, outputs.GENERATED)
        outputs.sweep(self.folder, outputs.GENERATED)
        if self.check():
            return
        recipe = self.folder.parent / "recipe.yaml"
        durable.write_text(recipe, dump_recipe(self.inputs.recipe))
        self.inputs.seeds.rows.write(self.folder)
        durable.write_json(self.folder / "inputs.json", self.values)

    def _differences(self, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
        """The differences in words; for seeds, which rows of which file changed."""
        changed = differences({**old, _SEEDS: ""}, {**new, _SEEDS: ""})
        if old.get(_SEEDS) == new[_SEEDS]:
            return changed
        before = RowHashes.read(self.folder)
        rows = changed_rows(before, self.inputs.seeds.rows) if before else []
        if rows or changed:  # a changed split or template also moves seeds between splits
            return [*rows, *changed]
        return ["the seeds have changed"]
