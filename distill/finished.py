"""What a student was made from, what its training was, and whether it is there: asked without loading torch.

    training = read_training(run / "student")       # training.json
    is_trained(recipe.train, run / "curated", run / "student")
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from synthgen import corpus, durable
from synthgen.errors import CorpusError
from synthgen.logits import LogitsMeta
from synthgen.recipe import HOW, TrainSection, differences

Metrics = list[dict[str, float]]
"""One row for each optimizer step."""

TRAINING = "training.json"


class EnsembleFacts(TypedDict):
    """How several teachers' distributions were merged. `weights` are means over the rows; `deviations` are there where
    each row has its own weights."""

    merge: str
    by: str
    weights: dict[str, float]
    deviations: NotRequired[dict[str, float]]


class AcrossFacts(TypedDict):
    """How many completion tokens learned which way from a teacher with another tokenizer."""

    teacher: str
    uld_weight: float
    tokens_by_divergence: int
    tokens_by_uld: int
    tokens_without_target: int


class Inputs(TypedDict):
    """What decides a student: its settings, and hashes of the corpora that it learns from. A student's inputs.json."""

    train: dict[str, Any]
    curated_sha256: str
    across_sha256: NotRequired[str]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a student was trained: training.json. A kind's `train` gives it; `distill.train` fills in what the kind's
    entry in the table says and what decided the student."""

    kind: str = ""
    student: str
    """What the student was made from, in one line."""
    how_to_run: str = ""
    """The call that runs the student, in one line for its card."""
    library_name: str = ""
    """The library that loads the student, by its name on the Hugging Face hub."""
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
    targets: LogitsMeta | None = None
    """What the distributions have in common that the student learned from."""
    teacher: str | None = None
    """The name in the recipe of the teacher whose stored distributions were chosen among several."""
    ensemble: EnsembleFacts | None = None
    across: AcrossFacts | None = None
    layer_terms: str | None = None
    """Terms on the teacher's layers, in words."""
    metrics: dict[str, Metrics]
    """Of the student ("distilled") and of its baseline ("cross-entropy")."""
    train: dict[str, Any] = field(default_factory=dict)
    """The recipe's settings that decided the student."""
    curated_sha256: str = ""
    across_sha256: str | None = None
    audit_overridden: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As in training.json."""
        return asdict(self)


def read_training(folder: Path) -> Training:
    """The training.json of a finished student. Raises CorpusError when there is none, or one of another version."""
    path = folder / TRAINING
    if not path.exists():
        raise CorpusError(f"there is no trained student at {folder}", "train one: `distill train RUN`")
    values = corpus.load_json(path)
    strange = sorted(set(values) - {each.name for each in fields(Training)}) if isinstance(values, dict) else ["?"]
    try:
        if strange:
            raise TypeError(f"'{strange[0]}' is not one of its keys")
        return Training(**values)
    except TypeError as error:
        raise CorpusError(
            f"{path} is of another version: {error}", "train the student again: `distill train RUN --fresh`"
        ) from None


def made_from(section: TrainSection, manifest: dict[str, Any]) -> Inputs:
    """What decides a student of these settings and of the corpus with this manifest."""
    inputs: Inputs = {
        "train": section.model_dump(mode="json", exclude=set(HOW)),
        "curated_sha256": durable.digest(manifest["files"]),
    }
    if section.across:
        other = corpus.resolve(Path(section.across.run), prefer=("generated", "curated"))
        inputs["across_sha256"] = durable.digest(corpus.manifest(other)["files"])
    return inputs


def is_trained(section: TrainSection, source: Path, folder: Path) -> bool:
    """Whether `folder` holds the finished student of these settings and of the curated corpus `source`."""
    if not ((folder / TRAINING).exists() and (folder / "inputs.json").exists()):
        return False
    return not differences(corpus.load_json(folder / "inputs.json"), dict(made_from(section, corpus.verify(source))))
