"""Looking at rows: a few records of a run or corpus, kept or rejected, and the counts of the whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from synthgen import corpus
from synthgen.errors import UserError
from synthgen.records import Record


@dataclass(frozen=True)
class Shown:
    """`counts` of the whole corpus from its manifest, `rejected_by` check, and the first records asked for."""

    folder: Path
    kind: str
    counts: dict[str, int]
    rejected_by: dict[str, int]
    records: list[Record]

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "folder": str(self.folder)}

    def text(self) -> str:
        """For people."""
        counts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in self.counts.items())
        lines = [f"{self.folder} ({self.kind}): {counts}"]
        if "answers_checked" in self.counts:
            right, checked = self.counts.get("answers_correct", 0), self.counts["answers_checked"]
            lines.append(f"verified correct: {right} of {checked} ({right / checked:.1%})")
        if self.rejected_by:
            lines.append("rejected by: " + ", ".join(f"{k} {v:,}" for k, v in self.rejected_by.items()))
        for record in self.records:
            lines += ["", f"── {record.id}  seed {record.seed_id}  {record.split}  {record.teacher}"]
            lines += [f"{m['role']}: {m['content']}" for m in [*record.prompt, *record.completion]]
            if record.label_probs:
                lines.append("label probabilities: " + ", ".join(f"{p:.3f}" for p in record.label_probs))
            if record.reference:
                lines.append(f"answer: {record.answer}   reference: {' or '.join(record.reference)}")
            lines += [f"rejected by {v['check']}: {v['reason']}" for v in record.verdicts]
        return "\n".join(lines)


def show(path: str | Path, n: int = 5, *, rejected: bool = False, split: str | None = None) -> Shown:
    """The first `n` records of a run or corpus. Raises CorpusError, or UserError when there are no rejects to show."""
    folder = corpus.resolve(Path(path))
    found = corpus.manifest(folder)
    if rejected and found["kind"] != "curated":
        raise UserError(f"{folder} is not curated, so it has no rejects", f"curate it: `synthgen curate {path}`")
    records: list[Record] = []
    for _, some in corpus.records(folder, "rejected" if rejected else "data", split):
        records += some[: n - len(records)]
        if len(records) >= n:
            break
    return Shown(folder, found["kind"], found["counts"], found.get("rejected_by", {}), records)
