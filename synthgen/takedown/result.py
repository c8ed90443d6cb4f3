"""The result of `remove`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

_ELSEWHERE = (
    "not reached: the seed files themselves, exports and corpora outside this folder, copies that `load_dataset` keeps "
    "in its own cache, other runs, students elsewhere, and what a provider keeps"
)


@dataclass(frozen=True)
class Removal:
    """The result of `remove`. `what` says what the id means. `counts` holds the numbers of removed `rows`, `failures`
    and cached `replies`, and of `seeds` whose jobs are left out. The entries `kept` and `rejected` of `counts` say how
    many of the removed rows curation had kept and rejected. `made` are files and folders made from the rows; they are
    deleted and can be made again. `students` are the folders of students that learned from this corpus. `unsearched`
    are files in the run that no command of synthgen writes. With `planned`, nothing was changed. `already` is the date
    of an earlier removal, if nothing has been found since.
    """

    run: Path
    name: str
    what: str
    planned: bool
    counts: dict[str, int]
    made: list[str] = field(default_factory=list)
    students: list[str] = field(default_factory=list)
    unsearched: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    already: str = ""

    def to_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {**asdict(self), "run": str(self.run)}

    def text(self) -> str:
        """For people."""
        if self.already:
            return f"{self.run}: '{self.name}' was already removed on {self.already}; nothing is left of it"
        c = self.counts
        parts = [f"{_number(c['rows'], 'row')} generated"]
        if c.get("kept") or c.get("rejected"):
            parts[0] += f" ({c['kept']:,} kept and {c['rejected']:,} rejected by curation)"
        parts += [_number(c["failures"], "failure"), _number(c["replies"], "cached reply")]
        verb = "would remove" if self.planned else "removed"
        lines = [f"{self.run}: {verb} {self.what} and what was derived from it: {', '.join(parts)}"]
        if self.made:
            lines.append(f"{'to delete' if self.planned else 'deleted'}, and made again when needed: {_few(self.made)}")
        for student in self.students:
            lines.append(
                f"{self.run / student} was trained on this corpus. It stays as it is, and its card says so; "
                "`synthgen run`, or `distill train` with --fresh, trains it again"
            )
        lines += self.notes
        if self.unsearched:
            lines.append(f"not searched, since synthgen did not make them: {_few(self.unsearched)}")
        return "\n".join([*lines, _ELSEWHERE])


def _number(count: int, what: str) -> str:
    several = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{count:,} {what if count == 1 else several}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
