"""How a student was trained: training.json. Training writes it; evaluation, the model card and the page read it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from synthgen.results import stored

Metrics = list[dict[str, float]]
"""One row for each optimizer step."""

FILE = "training.json"


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The distributions that a student learned from: `draws` a position, or the `k` most probable tokens, at
    `temperature`, over `vocab_size` ids. Kind "dense" means the full distributions of a live teacher. `teacher` is
    "name@revision".
    """

    kind: str
    temperature: float
    vocab_size: int
    draws: int | None = None
    k: int | None = None
    teacher: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """How the distributions of several teachers were merged: `merge` is the formula, and `by` names the source of the
    weights.

    `weights` are means over the rows. `deviations` are their standard deviations when each row has its own weights.
    """

    merge: str
    by: str
    weights: dict[str, float]
    deviations: dict[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Across:
    """For a teacher with another tokenizer: how many completion tokens were learned by each method."""

    teacher: str
    uld_weight: float
    tokens_by_divergence: int
    tokens_by_uld: int
    tokens_without_target: int


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a student was trained.

    The `train` function of each kind of student returns it. `distill.train` adds facts from the kind's table entry and
    the settings of the student.
    """

    student: str
    """One line that says what the student was initialized from."""
    learns_by: str
    """The objective, in one line."""
    learned_from: str
    """The teacher or data, in words that follow "learned from"."""
    steps: int
    rows: int
    rows_kept: int | None = None
    """Rows that curation kept; None when the student learns the same from kept and rejected rows."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows that were not used in training, by reason."""
    tokens: int | None = None
    """Completion tokens seen in all steps."""
    targets: Targets | None = None
    teacher: str | None = None
    """The name in the recipe of the teacher whose stored distributions were used, when there are several."""
    ensemble: Ensemble | None = None
    across: Across | None = None
    layer_terms: str | None = None
    """Losses on the teacher's layers, in words."""
    metrics: dict[str, Metrics] = field(repr=False)
    """Metrics of the student ("distilled") and of its baseline ("cross-entropy")."""
    loss_unit: str = ""
    """Unit of the loss, for its plot; empty for the kind's default."""
    loss_note: str = ""
    kind: str = ""
    how_to_run: str = ""
    """One line of Markdown for the card: the call that runs the student."""
    library_name: str = ""
    """The library that loads the student, by its name on the Hugging Face hub."""
    train: dict[str, Any] = field(default_factory=dict, repr=False)
    """The recipe's settings that determined the student."""
    curated_sha256: str = ""
    across_sha256: str | None = None
    audit_overridden: bool = False
    schema_version: Literal[2] = 2

    def to_dict(self) -> dict[str, Any]:
        """As in training.json."""
        return asdict(self)


def read_training(path: Path) -> Training:
    """Read training.json. Raises CorpusError when the file is damaged or of another version."""
    return stored.read(path, Training, "train again: `distill train RUN --fresh`")
