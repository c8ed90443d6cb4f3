"""The input and the result of an audit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from synthgen.manifest import Manifest, SourceTerms
from synthgen.recipe import Recipe

Status = Literal["ALLOW", "CONTESTED", "UNKNOWN", "DENY"]
STATUSES: tuple[Status, ...] = ("ALLOW", "CONTESTED", "UNKNOWN", "DENY")
"""All statuses, from best to worst. An audit passes with one of the first two statuses."""
FAILING: tuple[Status, ...] = ("UNKNOWN", "DENY")
"""The statuses with which nothing passes."""


@dataclass(frozen=True)
class Subject:
    """The subject of an audit: a finished corpus, or a student.

    `of_student` holds the student's sources that are not sources of its rows, such as a model whose weights initialize
    it (see `synthgen.lineage`). `of_student` is empty when no student is trained. `recipe` is the recipe of the audit,
    which names the seeds; None when no recipe is known. If the corpus of a student is not known, `known` is false, and
    the manifest names no files. If `ask_models` is false, no test sends a question to a student or a teacher.
    `begins_with` names the models with whose weights the student begins. It is () for random weights, and None when no
    student is trained or when the models are not known.
    """

    corpus: Path
    manifest: Manifest
    student: Path | None = None
    of_student: tuple[SourceTerms, ...] = ()
    recipe: Recipe | None = None
    known: bool = True
    ask_models: bool = True
    begins_with: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Finding:
    """An audit's judgment of one source, for example of what the source's license says about the intended use.

    `source` names what is judged, and `role` is its role in the corpus. `terms` names the license or rule that applies,
    and `texts` says where each of its texts was read. `duties` has the kind of each of the `obligations`; see
    `synthgen.auditing.algebra.Duty`. `waived` says who accepted a finding that does not pass, and why.
    """

    source: str
    role: str
    terms: str
    status: Status
    reasons: tuple[str, ...]
    obligations: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    duties: tuple[str, ...] = ()
    waived: str = ""


Outcome = Literal["found", "absent", "inconclusive", "not measurable"]
"""The outcome of a test of bias or privacy. `found`: the effect is at least the margin, and chance does not explain it.
`absent`: the effect is smaller than the margin. `inconclusive`: too few data to tell. `not measurable`: the test cannot
be done here.
"""


@dataclass(frozen=True)
class Measurement:
    """One test of bias or privacy: an effect with its interval, and what it says.

    `name` names the test, and `subject` names what was tested, such as a group, a word or a model. `about` says in one
    sentence what the effect is, and `unit` is the unit of the effect. `n` is the number of rows or items, in `clusters`
    independent groups. `low` and `high` are the 95% confidence interval of `estimate`. `null` is the effect if there is
    nothing to find. Tests of bias leave `null` out, because it is zero for all of them. `p` is the p-value of the
    hypothesis that the effect is `null`. `corrected_p` is this p-value after the correction for all tests of the
    `family`. `detectable` is the smallest effect that a test with this amount of data would find in 80 of 100 cases. An
    effect below `margin` does not matter. Numbers that do not exist are null. `note` says why a test is not measurable,
    or what else to know.
    """

    name: str
    subject: str
    about: str
    unit: str
    outcome: Outcome
    n: int = 0
    clusters: int = 0
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    null: float | None = None
    p: float | None = None
    corrected_p: float | None = None
    family: str = ""
    detectable: float | None = None
    margin: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Repair:
    """A change after which more of a corpus passes: what to do, the number of rows that it concerns, and the command
    for it, if there is a command.
    """

    text: str
    rows: int
    command: str = ""

    def line(self) -> str:
        """For people."""
        command = f": `{self.command}`" if self.command else ""
        return f"{self.text} ({self.rows:,} row{'' if self.rows == 1 else 's'}){command}"


@dataclass(frozen=True)
class AuditResult:
    """The result of one audit: its status, its findings, its figures, its tests of bias or privacy, and the repairs
    after which it would pass. A figure maps names to numbers, such as `rows`, the number of rows with each status.
    `notes` says what else to know. If findings are waived, `counts` is the status of the other findings alone.
    """

    status: Status
    findings: tuple[Finding, ...] = ()
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()
    repairs: tuple[Repair, ...] = ()
    notes: tuple[str, ...] = ()
    counts: Status | None = None

    @property
    def gate(self) -> Status:
        """The status that decides whether the report passes."""
        return self.status if self.counts is None else self.counts


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of the statuses; ALLOW when `statuses` is empty."""
    return max(statuses, key=STATUSES.index, default="ALLOW")
