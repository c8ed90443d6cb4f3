"""training.json: how a student was trained. Training writes it. Evaluation, the model card and the page read
training.json.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from synthgen.results import stored

Metrics = list[dict[str, float]]
"""Metric name → value, one mapping for each optimizer step."""

FILE = "training.json"


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The distributions that a student learned from: `draws` draws at each position (kind "sampled"), the `k` most
    probable tokens (kind "topk"), or the full distributions of a live teacher (kind "dense"). `vocab_size` is the
    number of ids that a distribution covers, and `teacher` is "name@revision".
    """

    kind: str
    temperature: float
    vocab_size: int
    draws: int | None = None
    k: int | None = None
    teacher: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """How the distributions of several teachers were merged. `merge` names the formula, and `by` names the source of
    the weights.

    `weights` maps a teacher to its mean weight over the rows. If each row has its own weights, `deviations` maps a
    teacher to the standard deviation of its weight over the rows.
    """

    merge: str
    by: str
    weights: dict[str, float]
    deviations: dict[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Masked:
    """How many completion tokens of the training rows are masked, so that they add nothing to the loss. A token is
    masked if the teacher `against` has another most likely token there. `tokens` is the number of all completion
    tokens.
    """

    against: str
    masked: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Across:
    """How a student learned from a teacher with another tokenizer. `tokens_by_divergence` is the number of completion
    tokens whose loss was the divergence. `tokens_by_uld` is the number of tokens whose loss was the distance between
    sorted probabilities (ULD).
    """

    teacher: str
    uld_weight: float
    tokens_by_divergence: int
    tokens_by_uld: int
    tokens_without_target: int


@dataclass(frozen=True, kw_only=True)
class Passage:
    """How a training passed the gate of the audit. `status` is the status of the report for this corpus and intent, or
    "no audit". `use` and `actions` are the intended use. `overridden` is true when the audit did not pass and
    `--override-audit` was given. `waivers` are the failing findings that a person accepted, each with the person's
    name, the day and the reason.
    """

    status: str
    use: str
    actions: list[str] = field(default_factory=list)
    overridden: bool = False
    waivers: list[str] = field(default_factory=list)

    def text(self) -> str:
        """One line of text for people."""
        return f"{self.status} for {self.use} use ({', '.join(self.actions)})"


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a student was trained.

    The function `train` of each kind of student returns a `Training`. `distill.training.train` then adds facts from the
    kind's table entry, and the settings of the student.
    """

    student: str
    """The weights that initialized the student, in one line."""
    learns_by: str
    """The training objective, in one line."""
    learned_from: str
    """The teacher or the data, in words that complete a sentence "The student learned from …"."""
    steps: int
    rows: int
    rows_kept: int | None = None
    """Number of rows that curation kept. None when the student learns in the same way from kept and rejected rows."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Maps a reason to the number of rows that training left out for this reason."""
    tokens: int | None = None
    """Number of completion tokens in all steps together."""
    targets: Targets | None = None
    teacher: str | None = None
    """The recipe's name of the teacher whose stored distributions were used. None if the recipe has only one teacher.
    """
    ensemble: Ensemble | None = None
    across: Across | None = None
    masked: Masked | None = None
    layer_terms: str | None = None
    """The loss terms on the teacher's layers, in words."""
    metrics: dict[str, Metrics] = field(repr=False)
    """The metrics of the student ("distilled") and of its baseline ("cross-entropy")."""
    loss_unit: str = ""
    """Unit of the loss, for the plot of the loss. When empty, the unit in the kind's table entry is used."""
    loss_note: str = ""
    kind: str = ""
    how_to_run: str = ""
    """The call that runs the student: one line of Markdown for the card."""
    library_name: str = ""
    """The library that loads the student, as the Hugging Face hub names it."""
    train: dict[str, Any] = field(default_factory=dict, repr=False)
    """The recipe's settings that determined the student."""
    curated_sha256: str = ""
    logits_sha256: str | None = None
    across_sha256: str | None = None
    audit: Passage | None = None
    """None in folders that an older version wrote."""
    files: dict[str, str] = field(default_factory=dict, repr=False)
    """Maps each file that loading the student reads to its sha256."""
    schema_version: Literal[2] = 2

    def to_dict(self) -> dict[str, Any]:
        """The content of training.json."""
        return asdict(self)


def read_training(path: Path) -> Training:
    """Read training.json. Raises CorpusError when the file is damaged or of another version."""
    return stored.read(path, Training, "train again: `distill train RUN --fresh`")
