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
    """The distributions that a student learned from: `draws` of each, or the `k` likeliest tokens, at `temperature`,
    over `vocab_size` ids. "dense": a live teacher's whole distributions. `teacher`: "name@revision"."""

    kind: str
    temperature: float
    vocab_size: int
    draws: int | None = None
    k: int | None = None
    teacher: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """How several teachers' distributions were merged: `merge` is the formula, `by` says where the weights come from.

    `weights` are means over the rows; `deviations` are their standard deviations, where each row has its own weights.
    """

    merge: str
    by: str
    weights: dict[str, float]
    deviations: dict[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Across:
    """How many completion tokens learned which way from a teacher with another tokenizer."""

    teacher: str
    uld_weight: float
    tokens_by_divergence: int
    tokens_by_uld: int
    tokens_without_target: int


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a student was trained.

    The `train` function of a kind of student gives it. `distill.train` fills in what the kind's entry in the table says
    and what decided the student.
    """

    student: str
    """What the student was made from, in one line."""
    learns_by: str
    """The objective, in one line."""
    learned_from: str
    """What taught the student, in words that go after "learned from"."""
    steps: int
    rows: int
    rows_kept: int | None = None
    """Rows that curation kept; None where that makes no difference to what a row teaches."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows that did not teach, by reason."""
    tokens: int | None = None
    """Completion tokens that all steps taught."""
    targets: Targets | None = None
    teacher: str | None = None
    """The name in the recipe of the teacher whose stored distributions were chosen among several."""
    ensemble: Ensemble | None = None
    across: Across | None = None
    layer_terms: str | None = None
    """Losses on the teacher's layers, in words."""
    metrics: dict[str, Metrics] = field(repr=False)
    """Of the student ("distilled") and of its baseline ("cross-entropy")."""
    loss_unit: str = ""
    """Unit of the loss, for its plot; the kind's own when left out."""
    loss_note: str = ""
    kind: str = ""
    how_to_run: str = ""
    """Markdown of one line for the card: the call that runs the student."""
    library_name: str = ""
    """The library that loads the student, by its name on the Hugging Face hub."""
    train: dict[str, Any] = field(default_factory=dict, repr=False)
    """The recipe's settings that decided the student."""
    curated_sha256: str = ""
    across_sha256: str | None = None
    audit_overridden: bool = False
    schema_version: Literal[2] = 2

    def to_dict(self) -> dict[str, Any]:
        """As in training.json."""
        return asdict(self)


def read_training(path: Path) -> Training:
    """The training in a training.json. Raises CorpusError for a damaged file, or another version's."""
    return stored.read(path, Training, "train again: `distill train RUN --fresh`")
