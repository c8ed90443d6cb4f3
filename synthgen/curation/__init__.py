"""Curation judges the rows of RUN/generated and writes RUN/curated. Kept rows are written to data/, and rejected rows
with their reasons to rejected/.

The order is fixed. First, edits change rows. Then checks judge each row. Sweeps compare the rows that passed all
checks, so no row is rejected as a duplicate of a row that was itself rejected. Rows of one group are kept or rejected
together. Finally, a selection keeps some of the rows. Edits, checks, sweeps and selections are entries of the tables in
`synthgen.tables.curation`. To add a rule, write its function and a table entry. The result depends only on the rows and
the recipe. The result does not depend on the number of workers, on shard sizes, or on how often the command was killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from synthgen import corpus, durable, outputs, version
from synthgen.curation import groups
from synthgen.curation.job import JUDGED, Job, Task, changes_completions, plan, tasks
from synthgen.curation.judge import judge_rows
from synthgen.curation.late import Late
from synthgen.curation.shards import Tally, Writing, facts_of, sizes, write_shards
from synthgen.curation.sweeps import sweep
from synthgen.curation.tokens import CUT, tokenizers
from synthgen.datasets.adopting import content_hash
from synthgen.errors import RunChanged, SynthgenError
from synthgen.executor import Executor, open_executor
from synthgen.executor.exchange import read_table
from synthgen.executor.local import cores
from synthgen.manifest import Facts, Manifest, Summaries, lines_of
from synthgen.recipe import CurateSection, Recipe, check_installed, check_recipe, files_read
from synthgen.recipe.curate import fingerprints
from synthgen.tables.reference import resolve
from synthgen.tally import Step, funnel, funnel_line
from synthgen.ui import UI

_WORKER_ROWS = 32768  # minimum rows for each worker; with fewer rows, starting a process takes longer than it saves


@dataclass(frozen=True)
class Curation:
    """The result of `curate`: the folder of the curated corpus, its counts (`kept`, `rejected`, `tokens_kept`, …), and
    the number of reasons that each check or sweep gave. `summaries` are further counts of some checks, such as the
    counts for each evaluation set. `funnel` lists the rules in their order; for each rule, it holds the number of rows
    that this rule was the first to reject.
    """

    folder: Path
    counts: dict[str, int]
    rejected_by: dict[str, int]
    summaries: Summaries = field(default_factory=dict)
    funnel: tuple[Step, ...] = ()

    def text(self) -> str:
        """For people."""
        counts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in self.counts.items())
        reasons = ", ".join(f"{name} {count:,}" for name, count in self.rejected_by.items())
        lines = [f"{self.folder}: {counts}", *funnel_line(self.funnel)]
        lines += [f"rejected by: {reasons}"] if reasons else []
        return "\n".join([*lines, *lines_of(self.summaries)])

    def to_dict(self) -> dict[str, object]:
        """For `--json`."""
        whole = {"folder": str(self.folder), "counts": self.counts, "rejected_by": self.rejected_by}
        return {**whole, "funnel": [asdict(step) for step in self.funnel], "summaries": self.summaries}


def curate(
    recipe: Recipe,
    run: str | Path,
    out: str | Path | None = None,
    *,
    fresh: bool = False,
    repair: bool = False,
    workers: int | None = None,
    executor: str = "local",
    ui: UI | None = None,
) -> Curation:
    """Judge every row of `run`/generated. Kept rows are written to data/, and rejected rows with their reasons to
    rejected/.

    `out` is `run`/curated by default. `executor` says where the work runs: `local`, `ray`, or `ray://HOST:PORT`; see
    `synthgen.executor`. `workers` is the number of processes. The default is the number of CPU cores; a small corpus
    uses fewer. Raises CorpusError when the input is damaged or unfinished, RunChanged when the output was
    made from other rows or thresholds, and the errors that `places` raises.
    """
    check_installed(check_recipe(recipe).curate)
    ui = ui or UI(quiet=True)
    source, folder = places(run, out, fresh=fresh)
    with outputs.locked(folder, source):
        return _curate(recipe, source, folder, fresh, repair, where=(executor, workers), ui=ui)


def _curate(
    recipe: Recipe, source: Path, folder: Path, fresh: bool, repair: bool, *, where: tuple[str, int | None], ui: UI
) -> Curation:
    """Does the work of `curate` while the folder is locked. `where` is (name of the executor, number of workers)."""
    generated = corpus.verify(source)
    inputs: dict[str, object] = {
        "curate": recipe.curate.values(),
        "generated_sha256": durable.digest(generated["files"]),
        **(hashes := _hashes(recipe.curate)),
    }
    known = tokenizers(recipe, generated, ui) if changes_completions(recipe.curate) else {}
    if known:
        inputs["tokenizers"] = {name: one.hash for name, one in known.items()}
    code = fingerprints(recipe.curate)
    if code:
        inputs["code"] = code
    if fresh:
        outputs.discard(folder, outputs.CURATED)
    outputs.sweep(folder, outputs.CURATED)
    corpus.claim(folder, inputs, "curate")
    if repair:
        for name in corpus.discard_damaged(folder):
            ui.note(f"{folder}: shard {name} was damaged and is made again")
    if (folder / "manifest.json").exists():
        finished = corpus.verify(folder)
        ui.note(f"{folder} is complete; nothing to do")
        return _result(folder, finished)
    job = plan(source, folder, recipe.curate, corpus.inputs_hash(folder), known)
    job = replace(job, files=hashes.get("files_sha256", {}), code=code)
    by = {"code": version.code()}
    if job.by.exists() and corpus.load_json(job.by) != by:
        ui.note(f"{folder} was begun by another version of synthgen and is made again from the start")
        outputs.discard(folder, outputs.CURATED)
        corpus.claim(folder, inputs, "curate")
    durable.write_json(job.by, by)
    cut = tasks(source, generated)
    with open_executor(*where, few=min(cores(), max(1, sizes(cut) // _WORKER_ROWS))) as executor:
        total = _run(job, cut, executor, ui)
    outputs.discard(folder, outputs.STEPS)
    names = [name for task in cut for name, _ in task.shards]
    _check_all(folder, total, sizes(cut))
    facts = _facts(generated, recipe, total)
    if summaries := _summaries(job):
        facts["summaries"] = summaries
    if not inputs.items() >= _hashes(recipe.curate).items():
        raise RunChanged(
            "a file that the rules read has changed during the curation", "repeat the command with --fresh"
        )
    return _result(folder, corpus.finish(folder, "curated", facts, names))


def _hashes(section: CurateSection) -> dict[str, dict[str, str]]:
    """The hash of each file or folder that the rules read, except for the corpus. The result is empty if the rules read
    no other file.
    """
    found = {str(path): content_hash(path) for path in files_read(section)}
    return {"files_sha256": found} if found else {}


def _summaries(job: Job) -> Summaries:
    """The counts of those checks that have a `summary`."""
    counting = [(rule, rule.entry.summary) for rule in job.checks if rule.entry.summary]
    return {rule.name: resolve(summary)(rule.section, job.folder) for rule, summary in counting}


def places(run: str | Path, out: str | Path | None = None, *, fresh: bool = False) -> tuple[Path, Path]:
    """Return (folder of the generated corpus, folder of the curated corpus) for `curate`. Writes nothing.

    Raises UserError when the output folder overlaps the corpus or another stage's folder, and RunChanged when it holds
    files that curation did not write.
    """
    source = corpus.resolve(Path(run), prefer=("generated",))
    folder = Path(out) if out else source.parent / "curated"
    outputs.apart(folder, source, "curated")
    outputs.check(folder, outputs.CURATED, fresh)
    return source, folder


def _run(job: Job, cut: Sequence[Task], executor: Executor, ui: UI) -> Tally:
    """Run all steps of the curation in order, skip finished steps, and return the counts of the curated corpus."""
    done = frozenset(corpus.committed(job.folder, ["rejected"]))
    whole = all(name in done for task in cut for name, _ in task.shards)
    late = [] if whole or not cut else _judged(job, cut, executor, ui)
    total = Tally()
    copied = _copies_distributions(job, cut)
    writing = [Writing(job, one, tuple(late), done.intersection(dict(one.shards)), copied) for one in cut]
    with ui.progress("write", sizes(cut), "rows") as bar:
        for task, tally in zip(cut, executor.map(write_shards, writing), strict=True):
            total += tally
            bar.advance(task.rows, resumed=all(name in done for name, _ in task.shards))
    return total


def _copies_distributions(job: Job, cut: Sequence[Task]) -> bool:
    """Whether the curated corpus gets its own files of distributions. It does if an edit cut token ids, or if the rows
    are from a curated corpus that has its own files. Otherwise training reads the files of the generated corpus.
    """
    edited = [job.edited(name) for task in cut for name, _ in task.shards]
    own = corpus.manifest(job.source)["kind"] == "curated" and (job.source / "logits").is_dir()
    return own or any(CUT in (read_table(path).schema.metadata or {}) for path in edited if path.exists())


def _judged(job: Job, cut: Sequence[Task], executor: Executor, ui: UI) -> list[Late]:
    """Run edits and checks, then the sweeps. Before and after each sweep, rows of incomplete groups are rejected.
    Returns a `Late` for each step after the checks.
    """
    missing = [task for task in cut if not job.step(JUDGED, task.number).exists()]
    with ui.progress("check", sizes(cut), "rows") as bar:
        bar.advance(sizes(cut) - sizes(missing), resumed=True)
        for task, _ in zip(missing, executor.map(judge_rows, [(job, task) for task in missing]), strict=True):
            bar.advance(task.rows)
    order = groups.order_of(job, cut)
    late = groups.drop_broken(job, cut, order, [], "groups")
    for rule in job.sweeps:
        late.append(sweep(job, rule, cut, late, order, executor))
        late += groups.drop_broken(job, cut, order, late, f"{rule.name}-groups")
    return late


def _check_all(folder: Path, total: Tally, rows: int) -> None:
    """Raise SynthgenError unless the numbers of kept and of rejected rows add up to `rows`, the number of rows of the
    generated corpus.
    """
    kept, rejected = total.counts["kept"], total.counts["rejected"]
    if kept + rejected != rows:
        raise SynthgenError(
            f"{folder}: {kept} kept and {rejected} rejected rows do not add up to the {rows} generated rows",
            "this is a bug in synthgen; please report it",
        )


def _facts(generated: Manifest, recipe: Recipe, total: Tally) -> Facts:
    """The facts about the curated corpus for its manifest."""
    counts, rejected_by = facts_of(total)
    return {
        "description": generated["description"],
        "notes": generated.get("notes", []),
        "task": generated["task"],
        "strategy": generated["strategy"],
        "prompt_version": generated["prompt_version"],
        "labels": generated["labels"],
        "teachers": generated["teachers"],
        "sources": generated["sources"],
        "counts": counts,
        "rejected_by": rejected_by,
        "dropped_by": dict(sorted(total.dropped.items())),
        "thresholds": recipe.curate.values(),
    }


def _result(folder: Path, manifest: Manifest) -> Curation:
    found = manifest.get("rejected_by", {}), manifest.get("summaries", {})
    return Curation(folder, manifest["counts"], *found, tuple(funnel(manifest)))
