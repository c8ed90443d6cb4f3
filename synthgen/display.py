"""`show`: some rows of a run or corpus (kept rows, rejected rows or failures), and the counts of the whole corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path
from typing import Any

from synthgen import corpus
from synthgen.errors import UserError, nearest
from synthgen.manifest import Manifest, Summaries, lines_of
from synthgen.records import Record, from_rows
from synthgen.removed import notices
from synthgen.tables.curation import SELECTIONS, SWEEPS
from synthgen.tally import Cause, Step, causes, funnel, funnel_line, tally

_TOP = 10  # number of reasons that are shown


@dataclass(frozen=True)
class Failed:
    """A request that did not lead to a row."""

    id: str
    seed_id: str
    split: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Shown:
    """The result of `show`: the first `records` or `failures` of the requested kind, and the `counts` of the whole
    corpus.

    `rejected_by` has the number of rows that each check rejected, and `funnel` has the number of rows that each check
    was the first to reject. `summaries` has further counts of some checks. `failed_by` is the number of failures of
    each kind, and `causes` are the reasons of the failures, the most frequent first. `failed_by` and `causes` are empty
    unless failures were requested. `removed` are lines about what was removed from the run.
    """

    folder: Path
    kind: str
    counts: dict[str, int]
    rejected_by: dict[str, int]
    records: list[Record]
    matched: dict[str, Record] = field(default_factory=dict)
    failures: list[Failed] = field(default_factory=list)
    failed_by: dict[str, int] = field(default_factory=dict)
    causes: tuple[Cause, ...] = ()
    summaries: Summaries = field(default_factory=dict)
    funnel: tuple[Step, ...] = ()
    removed: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "folder": str(self.folder)}

    def text(self) -> str:
        """For people."""
        counts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in self.counts.items())
        lines = [f"{self.folder} ({self.kind}): {counts}"]
        checked, right = self.counts.get("answers_checked", 0), self.counts.get("answers_correct", 0)
        if checked:
            lines.append(f"verified correct: {right} of {checked} ({right / checked:.1%})")
        lines += funnel_line(self.funnel)
        if self.rejected_by:
            lines.append("rejected by: " + ", ".join(f"{k} {v:,}" for k, v in self.rejected_by.items()))
        lines += [*lines_of(self.summaries), *self.removed]
        for record in self.records:
            lines += ["", f"── {record.id}  seed {record.seed_id}  {record.split}  {record.teacher}"]
            lines += [f"{m['role']}: {m['content']}" for m in [*record.prompt, *record.completion]]
            if record.label_probs:
                lines.append("label probabilities: " + ", ".join(f"{p:.3f}" for p in record.label_probs))
            if record.reference:
                lines.append(f"answer: {record.answer}   reference: {' or '.join(record.reference)}")
            lines += [f"rejected by {v['check']}: {v['reason']}" for v in record.verdicts]
            for matched in (self.matched[i] for i in compared_with(record) if i in self.matched):
                lines += [f"compared with {matched.id}:", differences(_whole(record), _whole(matched))]
        if self.failed_by:
            lines.append("failed by: " + ", ".join(f"{k} {v:,}" for k, v in self.failed_by.items()))
            lines += [f"  {cause.text()}" for cause in self.causes[:_TOP]]
            left = sum(cause.count for cause in self.causes[_TOP:])
            lines += [f"  {left:,} failures for other reasons"] if left else []
        for failed in self.failures:
            lines += ["", f"── {failed.id}  seed {failed.seed_id}  {failed.split}", f"{failed.kind}: {failed.reason}"]
        return "\n".join(lines)


def compared_with(record: Record) -> list[str]:
    """The ids of the rows of the corpus that a sweep or selection compared with this row. The verdict of a check may
    name a row of another data set, such as an evaluation set.
    """
    comparing = {**SWEEPS, **SELECTIONS}
    return [v["matched_id"] for v in record.verdicts if v["check"] in comparing and v["matched_id"]]


def _whole(record: Record) -> str:
    return "\n".join(str(message.get("content") or "") for message in [*record.prompt, *record.completion])


def differences(first: str, second: str) -> str:
    """Both texts in one: [-words of the first text alone-], {+words of the second text alone+}, and the words that both
    have. Line breaks become spaces.
    """
    one, other = first.split(), second.split()
    parts = []
    for kind, a, b, c, d in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(" ".join(one[a:b]))
            continue
        parts += [f"[-{' '.join(one[a:b])}-]"] if b > a else []
        parts += [f"{{+{' '.join(other[c:d])}+}}"] if d > c else []
    return " ".join(parts)


def show(
    path: str | Path,
    n: int = 5,
    *,
    rejected: bool = False,
    rule: str | None = None,
    failures: bool = False,
    split: str | None = None,
) -> Shown:
    """Read the first `n` rows of a run or corpus. With `split`, only rows of this split are read. `rule` is the name of
    the check or sweep that rejected the rows, and may only be given with `rejected`.

    With `rejected`, only rejected rows are read. With `failures`, the requests that did not lead to a row are read
    instead of rows. Raises CorpusError when there is no corpus, and UserError when this kind of corpus has no rejected
    rows or no failures.
    """
    if rejected and failures:
        raise UserError(
            "rejected rows and failures cannot be shown together", "give only one of --rejected and --failures"
        )
    if rule is not None and not rejected:
        raise UserError("--rule selects rejected rows, so it needs --rejected", "give --rejected, too")
    if failures:
        return _failures(Path(path), n, split)
    folder = corpus.resolve(Path(path))
    found = corpus.manifest(folder)
    if rejected and found["kind"] != "curated":
        raise UserError(
            f"{folder} is not a curated corpus, so it has no rejected rows", f"curate the run: `synthgen curate {path}`"
        )
    rejected_by, summaries = found.get("rejected_by", {}), found.get("summaries", {})
    if rule is not None and rule not in rejected_by:
        known = ", ".join(rejected_by) or "none"
        raise UserError(
            f"no row of {folder} was rejected by '{rule}'{nearest(rule, rejected_by)}",
            f"rules that rejected rows: {known}",
        )
    read = _records(folder, found, "rejected" if rejected else "data", split)
    records = list(islice((one for one in read if rule is None or rule in {v["check"] for v in one.verdicts}), n))
    ids = {row_id for record in records for row_id in compared_with(record)}
    matched = {one.id: one for one in _by_id(folder, found, ids)}
    counts, steps = found["counts"], tuple(funnel(found))
    shown = Shown(folder, found["kind"], counts, rejected_by, records, matched, summaries=summaries, funnel=steps)
    return replace(shown, removed=notices(folder.absolute().parent))


def _by_id(folder: Path, manifest: Manifest, ids: set[str]) -> Iterator[Record]:
    """The kept and rejected rows with these ids in a curated corpus. In a shard that has none of these rows, only the
    ids are read.
    """
    wanted = set(ids)
    for path in (f"{part}/{name}.parquet" for part in ("data", "rejected") for name in corpus.shards(folder, part)):
        if not wanted:
            return
        if not wanted.isdisjoint(corpus.read_columns(folder / path, ["id"])["id"].to_pylist()):
            rows = from_rows(corpus.read_shard(corpus.check_file(folder, manifest, path)).to_pylist())
            yield from (row for row in rows if row.id in wanted)
            wanted -= {row.id for row in rows}


def _failures(path: Path, n: int, split: str | None) -> Shown:
    folder = corpus.resolve(path, prefer=("generated",))
    finished = (folder / "manifest.json").exists()
    if (folder / "rejected").is_dir() or (finished and corpus.manifest(folder)["kind"] != "generated"):
        raise UserError(
            f"{folder} is not a generated corpus, so it has no failures", "give the run that contains this folder"
        )
    whole = tally(folder)
    # A run that stopped because too many requests failed has no manifest yet.
    counts = corpus.manifest(folder)["counts"] if finished else {"rows": whole.kept, "failures": whole.failed or 0}
    found = causes(folder, split)
    kinds: Counter[str] = Counter()
    for cause in found:
        kinds[cause.kind] += cause.count
    first: list[Failed] = []
    for name in corpus.shards(folder, "failures", split):
        for batch in corpus.scan(_checked(folder, f"failures/{name}.parquet", finished)):
            first += [Failed(**row) for row in batch.slice(0, n - len(first)).to_pylist()]
    by_kind = dict(kinds.most_common())
    return Shown(folder, "generated", counts, {}, [], failures=first, failed_by=by_kind, causes=found)


def _checked(folder: Path, path: str, finished: bool) -> Path:
    """The path of a file in a corpus. In a finished corpus, the file is compared with its hash."""
    return corpus.check_file(folder, corpus.manifest(folder), path) if finished else folder / path


def _records(folder: Path, manifest: Manifest, part: str, split: str | None) -> Iterator[Record]:
    """Yield the records in one subfolder of a corpus (`part`), reading 16 rows at a time. Each file is compared with
    its hash before it is read.
    """
    for name in corpus.shards(folder, part, split):
        for batch in corpus.scan(corpus.check_file(folder, manifest, f"{part}/{name}.parquet"), size=16):
            yield from from_rows(batch.to_pylist())
