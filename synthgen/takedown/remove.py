"""Carries out a removal.

The order makes a removal safe to kill. First the journal RUN/.removing.json is written: from then on, every command
refuses the run until the removal is complete. After the journal, the tombstone is written. Each step after the journal
may be repeated. The steps after the tombstone change the paid cache, the shards, and the files that were made from the
rows. The manifest is written last, and then the journal is deleted.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pyarrow as pa

from synthgen import corpus, durable, outputs
from synthgen.errors import UserError
from synthgen.files import is_regular, read_json
from synthgen.generation import cache
from synthgen.generation.claim import check_run
from synthgen.generation.forget import Concerned, concerned, seeds_of
from synthgen.generation.inputs import Inputs
from synthgen.generation.shards import counts_of
from synthgen.manifest import Facts, Manifest, SourceTerms, from_json
from synthgen.parquet import read
from synthgen.recipe import load_recipe
from synthgen.removed import (
    JOURNAL,
    Removed,
    Tombstone,
    completing,
    read_journal,
    read_removed,
    tombstone_of,
    write_tombstone,
)
from synthgen.results.training import FILE
from synthgen.takedown.result import Removal
from synthgen.takedown.selection import Selected, meant, select
from synthgen.takedown.shards import Rewriting, rewrite

_SEGMENT = outputs.SHARD.replace("parquet", "bin")
# Files that are made from rows and can be made again: the training cache, hidden states, checkpoints from which
# training would resume, evaluations with sample texts, and the page.
_MADE = re.compile(
    rf"(?P<folder>.*/)?((?P<stage>cache/(rows|distributions)-[^/]+/{_SEGMENT}|hidden/.+/layer-\d+/[^/]+\.parquet)"
    r"|checkpoints/(distilled|cross-entropy)((-\d{7}|-best)\.safetensors|\.jsonl)|evaluation\.json)"
    r"|(?P<page>report\.html)"
)
_KNOWN = re.compile(
    r"(generated|curated|audit|ledger|cache|hidden|student)/.*|recipe\.yaml|log\.jsonl|report\.html|removed\.jsonl"
    r"|(.*/)?\.lock"
)
_FOUND = ("rows", "failures", "replies")


@dataclass
class _Job:
    """One removal: its tombstone, the manifest that the corpus had (None for an unfinished corpus), and what is known
    about the rows, the seeds and the cached replies. `resumed` says that an earlier process was killed, and `judged`
    says that evaluations of the run's student ask a judge.
    """

    run: Path
    what: str
    tombstone: Tombstone
    manifest: Manifest | None
    selected: Selected
    concerned: Concerned | None
    resumed: bool
    judged: bool
    removed: Removed = field(init=False)

    def __post_init__(self) -> None:
        self.removed = Removed((self.tombstone,))

    @property
    def folder(self) -> Path:
        """The generated corpus."""
        return self.run / "generated"


def remove(run: str | Path, source: str, *, plan: bool = False) -> Removal:
    """Delete everything in a run that was derived from `source`, and keep it from coming back.

    `source` is the id of a seed, the id of a row, or the id of a source as rows state it (a seed file, a data set, a
    template or a model). All rows of a group are removed together. Curated rows, audits, the training cache and the
    page are deleted and can be made again. A student that was trained on the rows stays, and is marked as out of date.
    With `plan`, nothing is changed. If a call was interrupted, the same call completes the removal.

    Raises UserError when the run does not have the id, or when another process uses the run or the cache. Raises
    CorpusError when a file of the run is damaged.
    """
    folder = Path(run)
    check_run(folder)
    if not folder.is_dir():
        raise UserError(f"'{folder}' does not exist", "give the folder of a run")
    if not (folder / "generated" / "inputs.json").exists():
        raise UserError(
            f"{folder} has no generated rows, so nothing can be removed from it",
            "give the folder of a run; if its rows come from another run, remove the source there and make them again",
        )
    if plan:
        return _result(_prepare(folder, source), planned=True)
    with durable.lock(folder), durable.lock(folder / "generated"):
        job = _prepare(folder, source)
        result = _result(job, planned=False)
        if not result.already:
            _carry_out(job)
        return result


def _prepare(run: Path, source: str) -> _Job:
    """Find out what must be removed. Changes nothing."""
    folder, journal = run / "generated", read_journal(run)
    recipe = load_recipe(run / "recipe.yaml")
    inputs = seeds_of(recipe)
    if journal is not None:
        if journal["name"] != source:
            raise UserError(
                f"the removal of '{journal['name']}' from {run} was interrupted",
                completing(run, journal["name"]),
            )
        what, tombstone = str(journal["what"]), tombstone_of(journal["tombstone"])
        manifest = None if journal["manifest"] is None else from_json(journal["manifest"], str(run / JOURNAL))
    else:
        _refuse_open_batches(folder)
        finished = (folder / "manifest.json").exists()
        manifest = corpus.verify(folder) if finished else None
        if not finished:
            corpus.committed(folder)
        what, tombstone = _meant(folder, source, inputs)
    selected = select(folder, Removed((tombstone,)), generated=recipe.teacher is not None)
    selected.seeds |= set(() if journal is None else journal["seeds"])  # their rows may be gone already
    if journal is None:
        tombstone = replace(tombstone, rows=tuple(sorted({*tombstone.rows, *selected.others})))
    found = None if inputs is None else concerned(inputs, Removed((tombstone,)), _replies())
    judged, resumed = recipe.evaluate.judge is not None, journal is not None
    job = _Job(run, what, tombstone, manifest, selected=selected, concerned=found, resumed=resumed, judged=judged)
    if journal is None:
        job.tombstone = _counted(job)
    return job


def _refuse_open_batches(folder: Path) -> None:
    """Raise UserError when a provider still answers a batch: its replies would be stored in the cache afterwards."""
    path = folder / "batches.json"
    entries = read_json(path, "restore the file") if path.exists() else []
    if isinstance(entries, list) and any(isinstance(one, dict) and not one.get("done") for one in entries):
        raise UserError(
            f"a batch of {folder.parent} has not ended, and its replies would come back",
            "repeat `synthgen generate` with --batch until it has ended, and then remove the source",
        )


def _meant(folder: Path, source: str, inputs: Inputs | None) -> tuple[str, Tombstone]:
    """What `source` means. `source` may also name something that was removed before."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    try:
        return meant(folder, source, inputs, today)
    except UserError:
        if (earlier := _earlier(folder.parent, source)) is None:
            raise
        return f"'{source}'", Tombstone(source, today, earlier.sources, earlier.seeds, earlier.rows)


def _earlier(run: Path, source: str) -> Tombstone | None:
    """The latest tombstone with this name."""
    return next((one for one in reversed(read_removed(run).tombstones) if one.name == source), None)


def _counted(job: _Job) -> Tombstone:
    """The tombstone with its counts, and with the corpora and students that held the rows."""
    seeds = job.selected.seeds | (job.concerned.seeds if job.concerned else frozenset())
    curated = _curated(job.run)
    counts = {
        "seeds": len(seeds),
        "rows": len(job.selected.ids),
        "kept": sum(_count(folder, "data", job.selected.ids) for folder in curated),
        "rejected": sum(_count(folder, "rejected", job.selected.ids) for folder in curated),
        "failures": sum(table.num_rows - len(kept) for table, kept in _failures(job)),
        "replies": cache.count(_replies(), job.concerned.keys) if job.concerned else 0,
    }
    hashes = set()
    for folder in (job.folder, *curated, *(folder / "curated" for folder in _repaired(job.run))):
        if (folder / "manifest.json").exists():
            hashes.add(durable.digest(corpus.manifest(folder)["files"]))
    learned = _learned(job.run)
    # add the hashes of corpora that no longer exist, because they may have had the rows
    hashes |= set(learned.values())
    changed = counts["rows"] or counts["failures"]
    return replace(
        job.tombstone,
        counts=counts,
        corpora=tuple(sorted(hashes)) if changed else (),
        students=tuple(learned) if changed else (),
    )


def _learned(run: Path) -> dict[str, str]:
    """The folders of the students in a run, each with the hash of the corpus that it was trained on. Students of a data
    set, which have a corpus of their own, are left out.
    """
    found = {}
    for path in sorted(run.rglob("inputs.json")):
        sha256 = corpus.load_json(path).get("curated_sha256") if is_regular(path) else None
        if sha256 and not (path.parent / "corpus" / "manifest.json").exists():
            found[path.parent.relative_to(run).as_posix()] = str(sha256)
    return found


def _replies() -> Path:
    return durable.cache_folder() / "replies.sqlite"


def _curated(run: Path) -> list[Path]:
    """The folders inside a run that `curate` made from the run's rows."""
    found = [path.parent for path in sorted(run.rglob("inputs.json")) if is_regular(path)]
    return [folder for folder in found if outputs.CURATED.begun(folder)]


def _repaired(run: Path) -> list[Path]:
    """The folders inside a run that `audit --keep-allowed` made from the run's rows."""
    found = [path.parent.parent for path in sorted(run.rglob("curated/inputs.json")) if is_regular(path)]
    return [folder for folder in found if folder != run and outputs.ALLOWED.begun(folder)]


def _count(folder: Path, part: str, ids: set[str]) -> int:
    return sum(row_id in ids for _, batch in corpus.batches(folder, part, ["id"]) for row_id in batch["id"].to_pylist())


def _failures(job: _Job) -> Iterator[tuple[pa.Table, list[int]]]:
    """For each shard with failures: its table, and the places of the failures that stay. If the affected seeds are
    unknown, no failure stays, because any failure may belong to an affected seed.
    """
    for name in corpus.shards(job.folder, "failures"):
        table = read(job.folder / "failures" / f"{name}.parquet")
        yield table, _staying(job, table)


def _staying(job: _Job, table: pa.Table) -> list[int]:
    if job.concerned is None and not job.tombstone.seeds:
        return []
    gone = job.selected.seeds | (job.concerned.seeds if job.concerned else frozenset())
    pairs = zip(table["id"].to_pylist(), table["seed_id"].to_pylist(), strict=True)
    return [
        place
        for place, (row_id, seed_id) in enumerate(pairs)
        if seed_id not in gone and not job.removed.has_row(row_id, seed_id, ())
    ]


def _result(job: _Job, *, planned: bool) -> Removal:
    made = [path for path in outputs.files_in(job.run) if _is_made(job.run, path)]
    changed = _changes_rows(job)
    folders = [f"{folder.relative_to(job.run).as_posix()}/" for folder in _curated(job.run)]
    for repaired in (folder.relative_to(job.run).as_posix() for folder in _repaired(job.run)):
        folders += [f"{repaired}/curated/", f"{repaired}/audit/"]
        made.append(f"{repaired}/recipe.yaml")
    folders += ["audit/"] if outputs.AUDITED.begun(job.run / "audit") else []
    notes = []
    if job.concerned is None and job.manifest and job.manifest["teachers"]:
        notes.append("the seeds cannot be read, so all failures go, and replies in the cache of paid replies stay")
    elif job.concerned is not None and not job.concerned.complete:
        notes.append("some requests depend on replies that are not known, so their replies may still be in the cache")
    if job.judged:
        notes.append("replies of the judge of an evaluation, which may quote held-out rows, stay in the cache")
    students, counts = list(job.tombstone.students), job.tombstone.counts
    earlier = _earlier(job.run, job.tombstone.name)
    inside = tuple(f"{name}/" for name in (*students, *(f.rstrip("/") for f in folders)))
    others = [p for p in outputs.files_in(job.run) if not _KNOWN.fullmatch(p) and not p.startswith(inside)]
    return Removal(
        job.run,
        job.tombstone.name,
        job.what,
        planned,
        dict(counts),
        made=[*folders, *made] if changed else [],
        students=students,
        unsearched=[path for path in others if path not in made and Path(path).name != JOURNAL],
        notes=notes,
        already=earlier.date if earlier and not job.resumed and not any(counts[name] for name in _FOUND) else "",
    )


def _changes_rows(job: _Job) -> bool:
    """Whether shards change. The result is true after a kill, because shards may then be incomplete."""
    return job.resumed or any(job.tombstone.counts[name] for name in ("rows", "failures"))


def _carry_out(job: _Job) -> None:
    """Remove. Every step may be repeated after a kill."""
    run, folder = job.run, job.folder
    durable.write_json(
        run / JOURNAL,
        {
            "name": job.tombstone.name,
            "what": job.what,
            "tombstone": job.tombstone.to_dict(),
            "manifest": job.manifest,
            "seeds": sorted(job.selected.seeds),
        },
    )
    write_tombstone(run, job.tombstone)
    if job.concerned and job.concerned.keys and (job.resumed or job.tombstone.counts["replies"]):
        cache.forget(_replies(), job.concerned.keys)
    if _changes_rows(job):
        for name in ("README.md", "manifest.json"):
            (folder / name).unlink(missing_ok=True)
        durable.fsync_folder(folder)
        _delete_made(run)
        _mark_students(job)
        work = Rewriting(folder, job.removed, job.selected.ids, partial(_staying, job), job.resumed)
        for name in corpus.shards(folder):
            rewrite(work, name)
        outputs.sweep(folder, outputs.GENERATED)
        if job.manifest is not None:
            _finish(job, job.manifest)
    (run / JOURNAL).unlink()
    durable.fsync_folder(run)


def _delete_made(run: Path) -> None:
    """Delete what was made from the rows, and temporary files of killed processes."""
    for made, folders in ((outputs.CURATED, _curated(run)), (outputs.ALLOWED, _repaired(run))):
        for folder in folders:
            outputs.sweep(folder, made)
            outputs.discard(folder, made)
    if (run / "audit").is_dir():
        outputs.sweep(run / "audit", outputs.AUDITED)
        outputs.discard(run / "audit", outputs.AUDITED)
    parents = set()
    for path in [path for path in outputs.files_in(run) if _is_made(run, path)]:
        (run / path).unlink()
        parents.add((run / path).parent)
    for parent in parents:
        durable.fsync_folder(parent)


def _is_made(run: Path, path: str) -> bool:
    """Whether a file is made from rows. A temporary file counts as the file that it would become. In a folder that
    belongs to neither a stage nor a student, a file with a name such as evaluation.json is the user's own.
    """
    plain = "/".join(part.removeprefix(durable.TEMPORARY).removeprefix("gone-") for part in path.split("/"))
    found = _MADE.fullmatch(plain)
    if found is None or found["page"] or (found["stage"] and not found["folder"]):
        return found is not None
    student = run / (found["folder"] or "")
    return any(is_regular(student / name) for name in ("inputs.json", FILE))


def _mark_students(job: _Job) -> None:
    """For each student, state in its card that it was trained on something that was removed. The text is the same at
    each call.
    """
    for name in job.tombstone.students:
        card = job.run / name / "README.md"
        if not is_regular(card):
            continue
        text = card.read_text(encoding="utf-8")
        if (marked := job.tombstone.marked(text)) != text:
            durable.write_text(card, marked)


def _finish(job: _Job, manifest: Manifest) -> None:
    """Write the card and the manifest of the remaining corpus."""
    counts, cost = counts_of(job.folder)
    if not manifest["teachers"]:  # without a teacher, the rows are from a data set
        counts = {**manifest["counts"], **{k: counts[k] for k in ("rows", "failures") if k in manifest["counts"]}}
    facts: Facts = {
        "description": manifest["description"],
        "notes": manifest.get("notes", []),
        "task": manifest["task"],
        "strategy": manifest["strategy"],
        "prompt_version": manifest["prompt_version"],
        "labels": manifest["labels"],
        "teachers": manifest["teachers"],
        "sources": _sources(job, manifest),
        "counts": counts,
    }
    if "cost_usd" in manifest:
        facts["cost_usd"] = None if cost is None else round(cost, 6)
    corpus.finish(job.folder, "generated", facts, corpus.shards(job.folder))


def _sources(job: _Job, manifest: Manifest) -> list[SourceTerms]:
    """The sources that are left in the corpus after whole sources were removed. The models that wrote only removed
    sources are left out too.
    """
    gone = set(job.tombstone.sources)
    left = [one for one in manifest["sources"] if one["source"] not in gone]
    recipe = load_recipe(job.run / "recipe.yaml")
    makers = {one.made_by.model for one in recipe.seeds if one.made_by and one.source in gone}
    makers -= {one.made_by.model for one in recipe.seeds if one.made_by and one.source not in gone}
    return [one for one in left if not (one["role"] == "generator" and one["source"] in makers)]
