"""Counts the kept rows, the rejected rows and the failed requests of a corpus, and finds the most frequent reasons.

    outcome = tally(run / "curated")
    outcome.text()                    # "kept 9, rejected 2, failed 1"
    outcome.check(run)                # raises GateDenied when nothing was kept

A corpus without rows is never a success: the method `check`, which commands call, raises an error, the audit does not
pass, and no student is trained.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.compute as pc

from synthgen import corpus
from synthgen.errors import GateDenied
from synthgen.manifest import Manifest
from synthgen.parquet import metadata
from synthgen.recipe.curate import rules
from synthgen.records import UNUSABLE
from synthgen.tables.curation import EDITS

_TOP = 3  # number of reasons that a command prints
_CUT = "prompt_was_cut"  # a row has this score if the server counted too few tokens for the prompt
_SHOWN = 200  # maximum number of characters of a reason that a command prints
_VARIES = re.compile(r"\S*\d\S*")  # words that differ between failures of the same cause, such as ids and numbers


@dataclass(frozen=True)
class Cause:
    """Why requests failed: the kind of failure, one of its reasons, and the number of requests that failed for this
    reason. Reasons that differ only in numbers count as one reason.
    """

    kind: str
    reason: str
    count: int

    def text(self) -> str:
        """One line of text, such as 'server: status 500 (12)'."""
        reason = " ".join(self.reason.split())
        return f"{self.kind}: {reason[:_SHOWN]}{'…' if len(reason) > _SHOWN else ''} ({self.count:,})"


@dataclass(frozen=True)
class Outcome:
    """The numbers of kept rows, of rejected rows and of failed requests. `failed` is None when it is not known.
    `causes` are the reasons of the failures, and `rejected_by` has the number of rows that each check or sweep
    rejected. `causes` and `rejected_by` begin with the most frequent entry. `cut_prompts` is the number of rows for
    which the server seems to have read only a part of the prompt.
    """

    folder: Path
    kept: int
    rejected: int
    failed: int | None
    causes: tuple[Cause, ...]
    rejected_by: dict[str, int]
    cut_prompts: int = 0

    def text(self) -> str:
        """The last line that a command prints."""
        counts = [f"kept {self.kept:,}", f"rejected {self.rejected:,}"]
        return ", ".join(counts if self.failed is None else [*counts, f"failed {self.failed:,}"])

    def warnings(self) -> list[str]:
        """The reasons of failures in words, with a warning first when more requests failed than led to rows."""
        rows = self.kept + self.rejected
        lines = [f"failed by {cause.text()}" for cause in self.causes[:_TOP]]
        if self.failed and self.failed > rows > 0:
            lines.insert(0, f"Warning: {self._failed(self.failed)}, and only {rows:,} rows were made")
        if self.cut_prompts:
            lines.append(
                f"Warning: for {self.cut_prompts:,} rows, the server seems to have left out a part of the prompt"
            )
        return lines

    def to_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "kept": self.kept,
            "rejected": self.rejected,
            "failed": self.failed,
            "failed_by": [asdict(cause) for cause in self.causes[:_TOP]],
            "rejected_by": self.rejected_by,
            "cut_prompts": self.cut_prompts,
        }

    @property
    def reason(self) -> str:
        """Why no row was kept, in words."""
        parts = []
        if self.rejected:
            by = ", ".join(f"{name} ({count:,})" for name, count in list(self.rejected_by.items())[:_TOP])
            whole = "the only row was" if self.rejected == 1 else f"all {self.rejected:,} rows were"
            parts.append(f"{whole} rejected, most often by {by}")
        if self.failed:
            by = "; ".join(cause.text() for cause in self.causes[:_TOP])
            whole = "" if self.rejected else "all " if self.failed > 1 else "the only "
            parts.append(f"{whole}{self._failed(self.failed)}, most often by {by}")
        return ", and ".join(parts) or "no seed led to a row"

    def _failed(self, count: int) -> str:
        """The number of failures in words. In a run that was made from a data set, rows fail, not requests."""
        several = "s" if count > 1 else ""
        if self.causes and all(cause.kind == UNUSABLE for cause in self.causes):
            return f"{count:,} row{several} of the data set cannot be used"
        return f"{count:,} request{several} failed"

    def check(self, run: Path) -> None:
        """Raise GateDenied when no row was kept. `run` is the folder that the message names for `synthgen show`."""
        if self.kept:
            return
        if self.rejected:
            hint = f"change the settings under `curate`; `synthgen show {run} --rejected` shows the rows"
        elif self.failed:
            hint = (
                f"correct the cause and repeat `synthgen generate` with --retry-failed; "
                f"`synthgen show {run} --failures` shows the reasons"
            )
        else:
            removed = (run / "removed.jsonl").exists()
            hint = (
                f"all may have been removed: `synthgen show {run} -n 0`" if removed else "check the seeds of the recipe"
            )
        raise GateDenied(f"{self.folder} has no rows: {self.reason}", hint)


@dataclass(frozen=True)
class Step:
    """One check or sweep of a curation. `dropped` is the number of rows that it was the first to reject, and `left` is
    the number of rows that remain after it.
    """

    rule: str
    dropped: int
    left: int


def funnel(manifest: Manifest) -> list[Step]:
    """The enabled checks and sweeps of a curated corpus in their order. The last entry counts the rows that were
    dropped together with another row of their group. Empty for a corpus that is not curated, or that was made by a
    version that did not count these numbers.
    """
    dropped = manifest.get("dropped_by")
    if dropped is None:
        return []
    chosen = manifest.get("thresholds", {})
    order = [
        name for name in rules() if name in dropped or (name not in EDITS and chosen.get(name) not in (None, False))
    ]
    left = manifest["counts"]["kept"] + manifest["counts"]["rejected"]
    steps = []
    for name in [*order, *(name for name in dropped if name not in order)]:
        left -= dropped.get(name, 0)
        steps.append(Step(name, dropped.get(name, 0), left))
    return steps


def funnel_line(steps: Sequence[Step]) -> list[str]:
    """Text for people: one line with the rules that dropped rows. No line if no rule dropped rows."""
    dropping = [step for step in steps if step.dropped]
    if not dropping:
        return []
    parts = [f"{dropping[0].left + dropping[0].dropped:,} rows"]
    parts += [f"{step.rule}{'' if number else ' dropped'} {step.dropped:,}" for number, step in enumerate(dropping)]
    return [f"in order: {', '.join(parts)}, {dropping[-1].left:,} kept"]


def tally(folder: Path, generated: Path | None = None) -> Outcome:
    """Count the rows and failures of a corpus, finished or not. `generated` is the folder with the failures. By
    default, the failures are in the corpus itself, or in the folder `generated` next to a curated corpus.
    """
    rejected_by: dict[str, int] = {}
    if (folder / "manifest.json").exists():
        rejected_by = corpus.manifest(folder).get("rejected_by", {})
    if generated is None:
        generated = folder.parent / "generated" if (folder / "rejected").is_dir() else folder
    is_known = (generated / "data").is_dir()  # the corpus may have been curated into another folder
    return Outcome(
        folder=folder,
        kept=_rows(folder, "data"),
        rejected=_rows(folder, "rejected"),
        failed=_rows(generated, "failures") if is_known else None,
        causes=causes(generated),
        rejected_by=dict(Counter(rejected_by).most_common()),
        cut_prompts=sum(_scored(path, _CUT) for part in ("data", "rejected") for path in _shards(folder, part)),
    )


def _scored(path: Path, name: str) -> int:
    """The number of rows of a shard that have the score `name`. Reads only the names of the scores."""
    count = 0
    for batch in corpus.scan(path, ["scores.list.element.name"]):
        names = pc.struct_field(batch["scores"].flatten(), "name")
        count += pc.sum(pc.equal(names, name)).as_py() or 0
    return count


def causes(folder: Path, split: str | None = None) -> tuple[Cause, ...]:
    """The reasons of the failures in a generated corpus, the most frequent first."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for path in _shards(folder, "failures", split):
        for batch in corpus.scan(path, ["kind", "reason"]):
            for kind, reason in zip(batch["kind"].to_pylist(), batch["reason"].to_pylist(), strict=True):
                key = (kind, _VARIES.sub("#", reason))
                counts[key] += 1
                examples.setdefault(key, reason)
    return tuple(Cause(key[0], examples[key], count) for key, count in counts.most_common())


def _shards(folder: Path, part: str, split: str | None = None) -> list[Path]:
    """The files of shards in the subfolder `part` of a corpus."""
    return [folder / part / f"{name}.parquet" for name in corpus.shards(folder, part, split)]


def _rows(folder: Path, part: str) -> int:
    """The number of rows of all shards in the subfolder `part` of a corpus. Raises CorpusError for a damaged file."""
    return sum(metadata(path)[1] for path in _shards(folder, part))
