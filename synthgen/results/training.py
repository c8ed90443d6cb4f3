"""What training.json says of a trained student, as the page, the model card and the evaluation need it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from synthgen.results import stored
from synthgen.tables.students import KINDS

# The keys of training.json as train functions write them today, and the fields here that they fill.
_WRITTEN = {
    "rows kept by curation": "rows_kept",
    "rows left out": "left_out",
    "completion tokens trained on": "tokens",
    "learns by": "learns_by",
    "learned from": "learned_from",
}


@dataclass(frozen=True)
class Training:
    """A finished student.

    `student`: what it was made from, in one line. `learns_by`: the objective, in one line. `learned_from`: whose
    distributions or which texts, in one line. `how_to_run`: Markdown of one line for the card. `metrics`: for each
    trained model, a row for each optimizer step. `teacher`: the teacher it learned from, where the recipe names one of
    several; `ensemble`: how several teachers' distributions were merged.
    """

    kind: str
    steps: int = 0
    rows: int = 0
    curated_sha256: str = ""
    student: str = ""
    rows_kept: int | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    tokens: int | None = None
    learns_by: str = ""
    learned_from: str = ""
    library_name: str = "transformers"
    how_to_run: str = ""
    loss_unit: str = "nats"
    loss_note: str = ""
    teacher: str | None = None
    ensemble: dict[str, Any] | None = None
    metrics: dict[str, list[dict[str, float]]] = field(default_factory=dict, repr=False)
    audit_overridden: bool = False


def training_of(facts: dict[str, Any]) -> Training:
    """The facts of training.json. Raises pydantic's ValidationError for facts that are none."""
    return stored.parse(_renamed(facts), Training)


def read_training(path: Path) -> Training:
    """The facts in training.json. Raises CorpusError for a damaged file."""
    return stored.read(path, Training, "train again: `distill train RUN --fresh`", _renamed)


def _renamed(facts: Any) -> Any:
    """The fields of a Training. What training.json leaves out is filled from the kind's entry in KINDS."""
    if not isinstance(facts, dict):
        return facts  # which will be refused
    values: dict[str, Any] = {_WRITTEN.get(str(key), str(key)): value for key, value in facts.items()}
    entry = KINDS.get(values.get("kind", ""))
    if entry is not None:
        first_line = (entry.section.__doc__ or "").strip().split("\n")[0]
        defaults: dict[str, Any] = {
            "student": first_line.rstrip("."),
            "library_name": entry.library_name,
            "how_to_run": entry.how_to_run,
            "loss_unit": entry.loss_unit,
            "loss_note": entry.loss_note,
        }
        if "distance" in values:
            defaults["loss_unit"] = f"{values['distance']} distance"
            defaults["learns_by"] = f"the {values['distance']} distance from the teacher's vectors"
        values = {**defaults, **values}
    names = {f.name for f in fields(Training)}
    return {key: value for key, value in values.items() if key in names}
