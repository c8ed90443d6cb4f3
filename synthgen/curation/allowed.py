"""Writes a new run with those rows of a corpus that may be used as intended, for `synthgen audit --keep-allowed`.

    done = keep_allowed(recipe, "runs/first", "runs/first-allowed")
    done.report.status                # "ALLOW": the corpus that was written passes

OUT is a run: recipe.yaml, curated/ and audit/. The new corpus has the same shards as the corpus that was audited. Rows
that may be used stay in data/, or in rejected/ if curation had rejected them. Every other row is withheld: it stays in
rejected/ with its id, its sources and the reason, but without its text, so that the folder may be shared. The stored
distributions of withheld rows are left out, too. `synthgen.auditing.allowed` decides which rows may be used. Rows of
one group are kept or withheld together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen import corpus, durable, outputs
from synthgen.auditing import Report, audit, intended, intent_of
from synthgen.auditing.allowed import Allowed, allowed
from synthgen.auditing.catalogue import catalogue_hash
from synthgen.auditing.combinations import CHECK, COLUMNS, REJECTED_COLUMNS, Combination, coded, withheld
from synthgen.auditing.judging import assess
from synthgen.auditing.result import Subject
from synthgen.curation.lists import appended, as_lists, empty_lists, lengths
from synthgen.curation.shards import COUNTED, Tally, counted, facts_of
from synthgen.errors import GateDenied
from synthgen.executor import LocalExecutor, Services
from synthgen.executor.local import cores
from synthgen.lineage import student_sources
from synthgen.manifest import Facts, Manifest
from synthgen.parquet import read
from synthgen.recipe import Recipe, check_recipe, dump_recipe
from synthgen.records import SCHEMA, VERDICTS
from synthgen.ui import UI

GROUP = "its whole group is left out, because another row of the group may not be used"
UNQUOTED = "the reason is not shown here, because it may quote the row"
"""The text that replaces the reasons of curation in a withheld row."""
_EMPTY = ("prompt", "completion", "edits")
_NULL = (
    *("teacher_prompt", "tools", "rationale", "answer", "reference", "prompt_token_ids", "token_ids", "label_probs"),
    "usage",
)
"""The columns that hold text or numbers of tokens. In a withheld row, these columns are empty or null. The user's own
columns are null, too."""
_WORKER_ROWS = 32768  # minimum rows for each worker; with fewer rows, starting a process takes longer than it saves


@dataclass(frozen=True)
class KeptAllowed:
    """The result of `keep_allowed`: the folder of the new run, the rows that it keeps, and how many kept rows were left
    out for each reason. `sides` says which sides of conflicts were left out. `report` is the audit of the new corpus.
    """

    folder: Path
    kept: int
    left_out: dict[str, int]
    sides: tuple[str, ...]
    report: Report

    def text(self) -> str:
        """For people."""
        lines = [f"{self.folder}: {self.kept:,} rows kept, {sum(self.left_out.values()):,} left out"]
        lines += [f"  {count:>9,} rows: {reason}" for reason, count in self.left_out.items()]
        return "\n".join([*lines, *self.sides, f"audit of {self.folder}: {self.report.text()}"])

    def to_dict(self) -> dict[str, object]:
        """For `--json`."""
        facts = {"folder": str(self.folder), "kept": self.kept, "left_out": self.left_out, "sides": list(self.sides)}
        return {**facts, "audit": self.report.to_dict()}


@dataclass(frozen=True)
class _Piece:
    """The input of `_write`: some shards, the decision, the groups that are left out, and the folders of
    distributions.
    """

    source: Path
    folder: Path
    shards: tuple[str, ...]
    decision: Allowed
    groups: frozenset[str]
    logits: tuple[Path, ...]
    done: frozenset[str]


@dataclass
class _Written:
    """What `_write` wrote: counts, and for each reason the number of kept rows that were left out."""

    tally: Tally
    left_out: Counter[str]
    sources: set[Combination]


def keep_allowed(
    recipe: Recipe,
    run: str | Path,
    out: str | Path,
    *,
    use: str | None = None,
    fresh: bool = False,
    workers: int | None = None,
    ui: UI | None = None,
) -> KeptAllowed:
    """Write the allowed rows of a corpus, and audit them. Allowed rows may be used as the recipe's section `audit`
    says. `use` replaces the key `audit.use`. `out` becomes a run with this recipe. A repeated call resumes.

    Raises GateDenied when no row may be used, or when the student's own sources do not pass. Also raises the errors of
    `synthgen.audit`. Raises RunChanged when `out` was made from other rows or for another use.
    """
    check_recipe(recipe)
    ui = ui or UI(quiet=True)
    recipe = recipe.model_copy(update={"audit": intended(recipe, use)})
    source, folder = corpus.resolve(Path(run)), Path(out)
    outputs.apart(folder, source)
    outputs.check(folder, outputs.ALLOWED, fresh)
    with outputs.locked(folder, source):
        return _keep(recipe, source, folder, fresh, workers, ui)


def _keep(recipe: Recipe, source: Path, folder: Path, fresh: bool, workers: int | None, ui: UI) -> KeptAllowed:
    """Does the work of `keep_allowed` while the folder is locked."""
    manifest, place = corpus.verify(source), folder / "curated"
    of_student = tuple(student_sources(recipe))
    assessment = assess(Subject(source, manifest, of_student=of_student), recipe.audit)
    decision = allowed(assessment)
    reasons = [decision.reason(one) for one in assessment.occurring.kept]
    if None not in reasons:
        raise _no_row(source, next(filter(None, reasons), "there are no rows"))
    logits = _logits(source, manifest)
    inputs: dict[str, object] = {
        "audited_sha256": durable.digest(manifest["files"]),
        "intent": intent_of(recipe.audit, of_student),
        "catalog_sha256": catalogue_hash(),
        "logits_sha256": durable.digest([corpus.manifest(one.parent.parent)["files"] for one in logits[:1]]),
    }
    if fresh:
        outputs.discard(folder, outputs.ALLOWED)
    outputs.sweep(folder, outputs.ALLOWED)
    corpus.claim(place, inputs, "audit --keep-allowed")
    durable.write_text(folder / "recipe.yaml", dump_recipe(recipe))
    names = corpus.shards(source)
    done = frozenset(corpus.committed(place, ["rejected"]))
    piece = _Piece(source, place, tuple(names), decision, groups=_groups(source, decision), logits=logits, done=done)
    rows = sum(entry["rows"] for name, entry in manifest["files"].items() if name.startswith("data/"))
    written = _write_all(piece, workers or min(cores(), max(1, rows // _WORKER_ROWS)), ui)
    if not written.tally.counts["kept"]:
        raise _no_row(source, GROUP)
    if not (place / "manifest.json").exists():
        corpus.finish(place, "curated", _facts(manifest, written), names)
    report = audit(recipe, folder, ui=ui)
    return KeptAllowed(
        folder, written.tally.counts["kept"], dict(written.left_out.most_common()), decision.sides, report
    )


def _no_row(source: Path, why: str) -> GateDenied:
    return GateDenied(f"no row of {source} may be used as intended: {why}", f"read {source.parent}/audit/report.md")


def _logits(source: Path, manifest: Manifest) -> tuple[Path, ...]:
    """The folders of stored distributions of a corpus, one for each teacher."""
    own = any(name.startswith("logits/") for name in manifest["files"])
    root = (source if own else source.parent / "generated") / "logits"
    return tuple(sorted(path for path in root.iterdir() if path.is_dir())) if root.is_dir() else ()


def _groups(source: Path, decision: Allowed) -> frozenset[str]:
    """The groups that have a row which may not be used."""
    found: set[str] = set()
    for _, batch in corpus.batches(source, "data", ["group_id", *COLUMNS], rows=65536):
        if batch["group_id"].null_count == batch.num_rows:
            continue
        gone = np.array([reason is not None for reason in _reasons(batch["sources"], decision)], bool)
        found.update(group for group in batch["group_id"].filter(pa.array(gone)).to_pylist() if group is not None)
    return frozenset(found)


def _reasons(sources: pa.Array, decision: Allowed) -> list[str | None]:
    """For each row: why it may not be used, or None."""
    sets, index = coded(sources)
    reasons = [decision.reason(one) for one in sets]
    return [reasons[n] for n in index.tolist()]


def _write_all(piece: _Piece, workers: int, ui: UI) -> _Written:
    size = max(1, -(-len(piece.shards) // (workers * 4)))
    pieces = [
        _Piece(**{**vars(piece), "shards": piece.shards[start : start + size]})
        for start in range(0, len(piece.shards), size)
    ]
    whole = _Written(Tally(), Counter(), set())
    with LocalExecutor(workers) as executor, ui.progress("write", len(piece.shards), "shards") as bar:
        for one, written in zip(pieces, executor.map(_write, pieces), strict=True):
            whole.tally += written.tally
            whole.left_out += written.left_out
            whole.sources |= written.sources
            bar.advance(len(one.shards), resumed=piece.done.issuperset(one.shards))
    return whole


def _write(piece: _Piece, services: Services) -> _Written:
    """Write the shards that do not exist yet, and count the rows of all shards."""
    written = _Written(Tally(), Counter(), set())
    for name in piece.shards:
        if name not in piece.done:
            corpus.commit(piece.folder, name, dict(_tables(piece, name)))
        for part, columns in (("data", COLUMNS), ("rejected", REJECTED_COLUMNS)):
            path = piece.folder / part / f"{name}.parquet"
            written.tally += counted(part, corpus.read_columns(path, COUNTED))
            rows = corpus.read_columns(path, columns)
            if part == "rejected":
                gone = withheld(rows)
                written.left_out.update(_kept_before(rows["verdicts"].filter(pa.array(gone))))
                rows = rows.filter(pa.array(~gone))
            written.sources.update(coded(rows["sources"].combine_chunks())[0] if rows.num_rows else ())
    return written


def _kept_before(verdicts: pa.ChunkedArray) -> Iterator[str]:
    """The reason of each withheld row that curation had kept."""
    return (entries[0]["reason"] for entries in verdicts.to_pylist() if entries[0]["check"] == CHECK)


def _tables(piece: _Piece, name: str) -> Iterator[tuple[str, pa.Table]]:
    """Yield (folder in the corpus, table) for each table of one shard."""
    data = corpus.read_shard(piece.source / "data" / f"{name}.parquet")
    path = piece.source / "rejected" / f"{name}.parquet"
    rejected = corpus.read_shard(path) if path.exists() else data.slice(0, 0)
    kept, gone = _divided(data, piece)
    before = withheld(rejected)
    still, gone_too = _divided(rejected.filter(pa.array(~before)), piece)
    yield "data", kept
    yield "rejected", pa.concat_tables([still, rejected.filter(pa.array(before)), gone, gone_too])
    ids = pa.concat_arrays([part["id"].combine_chunks() for part in (kept, still)])
    for folder in piece.logits:
        if (folder / f"{name}.parquet").exists():
            owner = folder.parent.parent
            stored = corpus.check_file(owner, corpus.manifest(owner), f"logits/{folder.name}/{name}.parquet")
            yield f"logits/{folder.name}", _of_rows(read(stored), ids)


def _of_rows(table: pa.Table, ids: pa.Array) -> pa.Table:
    """The distributions of the rows with these ids, in the order of the ids."""
    place = pc.index_in(ids, value_set=table["id"].combine_chunks())
    return table.take(place.drop_null())


def _divided(table: pa.Table, piece: _Piece) -> tuple[pa.Table, pa.Table]:
    """The rows of a table that may be used, and the other rows without their text."""
    reasons = _reasons(table["sources"].combine_chunks(), piece.decision)
    if piece.groups:
        groups = table["group_id"].to_pylist()
        reasons = [
            reason or (GROUP if group in piece.groups else None) for reason, group in zip(reasons, groups, strict=True)
        ]
    gone = np.array([reason is not None for reason in reasons], bool)
    return table.filter(pa.array(~gone)), _without_text(table.filter(pa.array(gone)), [r for r in reasons if r])


def _without_text(table: pa.Table, reasons: Sequence[str]) -> pa.Table:
    """The rows with their reasons, and without the values that may not be shared."""
    count = table.num_rows
    for name in (*_EMPTY, *_NULL, *table.column_names[len(SCHEMA) :]):
        place = table.schema.get_field_index(name)
        field = table.schema.field(place)
        nothing = empty_lists(count, field.type) if name in _EMPTY else pa.nulls(count, field.type)
        table = table.set_column(place, field.with_nullable(True), nothing)
    place = table.schema.get_field_index("verdicts")
    entries = _entries(reasons)
    verdicts = appended(_unquoted(table["verdicts"].combine_chunks()), [(np.arange(count, dtype=np.int64), entries)])
    return table.set_column(place, table.schema.field(place), verdicts)


def _unquoted(verdicts: pa.ListArray) -> pa.ListArray:
    """The verdicts of curation without their reasons, since a reason may quote the row."""
    entries = verdicts.flatten()
    columns = [
        pa.repeat(UNQUOTED, len(entries)) if field.name == "reason" else pc.struct_field(entries, field.name)
        for field in entries.type
    ]
    return as_lists(lengths(verdicts), pa.StructArray.from_arrays(columns, fields=list(entries.type)), verdicts.type)


def _entries(reasons: Sequence[str]) -> pa.Array:
    """One entry of the column `verdicts` for each reason."""
    count, kind = len(reasons), VERDICTS.value_type
    values: Mapping[str, pa.Array] = {
        "check": pa.repeat(CHECK, count),
        "rule": pa.repeat(CHECK, count),
        "reason": pa.array(reasons, pa.string()),
        "teaches": pa.repeat("nothing", count),
    }
    columns = [values.get(field.name, pa.nulls(count, field.type)) for field in kind]
    return pa.StructArray.from_arrays(columns, fields=list(kind))


def _facts(before: Manifest, written: _Written) -> Facts:
    """The facts about the new corpus for its manifest: the facts about the audited corpus with new counts. A source
    remains only if its role and its license occur in a row that was not left out. Names are not compared, because a
    manifest and its rows may name the same model differently.
    """
    counts, rejected_by = facts_of(written.tally)
    present = {(term.role, term.license) for one in written.sources for term in one}
    return {
        "description": before["description"],
        "notes": before.get("notes", []),
        "task": before["task"],
        "strategy": before["strategy"],
        "prompt_version": before["prompt_version"],
        "labels": before["labels"],
        "teachers": before["teachers"],
        "sources": [one for one in before["sources"] if (one["role"], one["license"]) in present],
        "counts": counts,
        "rejected_by": rejected_by,
        "dropped_by": dict(sorted(written.tally.dropped.items())),
        "thresholds": before.get("thresholds", {}),
    }
