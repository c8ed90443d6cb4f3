"""The main function of generation, which makes RUN/generated from seeds. A resumed run makes only missing shards."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from synthgen import corpus, durable, outputs
from synthgen.errors import UserError
from synthgen.generation import casting
from synthgen.generation.claim import Claim, begin, check_run, keep_recipe
from synthgen.generation.cluster import Away, open_away
from synthgen.generation.division import check_manifest, plan_shards
from synthgen.generation.filling import Gate, Output
from synthgen.generation.inputs import Inputs, first_queries, read_inputs
from synthgen.generation.making import Assignment, make, open_all
from synthgen.generation.result import Generation
from synthgen.generation.shards import Layout, facts
from synthgen.recipe import Recipe, check_recipe
from synthgen.removed import read_removed
from synthgen.teachers.base import FAILURES
from synthgen.ui import UI


def generate(
    recipe: Recipe,
    run: str | Path,
    *,
    fresh: bool = False,
    repair: bool = False,
    retry_failed: bool = False,
    part: tuple[int, int] = (1, 1),
    batch: bool = False,
    executor: str = "local",
    workers: int | None = None,
    ui: UI | None = None,
) -> Generation:
    """Generate every row of the recipe that `run`/generated does not have yet.

    `fresh` discards existing rows. Rows that `synthgen remove` took out of the run are never made again, even with
    `fresh`. `repair` makes damaged shards again. `retry_failed` makes shards with failures again. Replies that were
    already paid are read from the cache. With `part` (i, n), only the i-th shard and every n-th shard after it are
    made. The manifest is written by the process that finds all shards complete. With `batch`, requests whose replies
    are not in the cache are sent through the provider's Batch API. `executor` is `local`, or a Ray cluster (see
    `synthgen.executor.open_cluster`), where at most `workers` workers make shards.

    The folder is claimed after all teachers are open, so an error before that leaves the folder unchanged. Raises
    RunChanged when the folder was begun with other inputs, CorpusError when a shard is damaged, and RecipeError or
    TeacherError when a file or a model of the recipe cannot be used. Raises BudgetReached when the next request could
    exceed the budget, and GateDenied when too many requests fail.
    """
    check_recipe(recipe)
    check_run(Path(run))
    with durable.lock(Path(run)):
        begin(recipe, Path(run), fresh)
        how = _How(repair, retry_failed, part, batch, executor, workers)
        return _generate(recipe, Path(run), fresh, how, ui or UI(quiet=True))


class _How(NamedTuple):
    """The arguments of `generate` that say what is made again, and where and how shards are made."""

    repair: bool
    retry_failed: bool
    part: tuple[int, int]
    batch: bool
    executor: str
    workers: int | None


def _generate(recipe: Recipe, run: Path, fresh: bool, how: _How, ui: UI) -> Generation:
    """The work of `generate`, in a folder that is already locked."""
    began, folder = time.monotonic(), run / "generated"
    outputs.check(folder, outputs.GENERATED, fresh)
    inputs = replace(read_inputs(recipe), removed=read_removed(run))
    for tombstone in inputs.removed.tombstones:
        ui.note(tombstone.text())
    claim = Claim(folder, inputs)
    if not fresh and claim.check():
        keep_recipe(recipe, run)
        _tidy(folder, repair=how.repair, retry_failed=how.retry_failed, ui=ui)
        if (folder / "manifest.json").exists():
            manifest = corpus.verify(folder)
            ui.note(f"{folder} is complete; nothing to do")
            return Generation(folder, True, False, _since(began), manifest=manifest)
    for _ in first_queries(inputs.jobs()):  # raises RecipeError when a template does not fit a seed
        pass
    with ExitStack() as opened:
        away = None
        if how.executor != "local":
            away = _open_away(inputs, folder, how, opened)
            teachers = away.teachers
        else:
            teachers = open_all(recipe, opened, batch=how.batch)
            casting.refuse_incapable(recipe, teachers)
        layout = Layout.of(recipe, teachers, inputs.removed)
        planned = plan_shards(inputs.jobs().counts, recipe.generate.shard_size)
        check_manifest(len(planned), layout.speakers)
        claim.write(fresh)
        # The jobs are made again, because row ids depend on the teachers' revisions, which are known only after the
        # teachers are open.
        jobs = inputs.jobs(casting.versions(recipe, teachers))
        done = corpus.committed(folder, [f"logits/{name}" for name in layout.speakers])
        mine = planned[how.part[0] - 1 :: how.part[1]]
        work = Assignment(folder, jobs, [shard for shard in mine if shard.name not in done], layout)
        with ui.progress("generate", sum(shard.stop - shard.start for shard in mine), work.unit) as bar:
            failed = corpus.failed(folder, FAILURES)
            bar.advance(bar.total - work.size, failed=sum(failed.get(one.name, 0) for one in mine), resumed=True)
            gate = Gate(recipe, len(jobs), sum(failed.values()))
            output = Output(partial(layout.commit, folder), bar, gate)
            if away is not None:
                away.make(recipe, folder, work.shards, output, retry_failed=how.retry_failed, part=how.part, ui=ui)
            else:
                make(work, output, batch=how.batch, retry_failed=how.retry_failed, part=how.part, ui=ui)
    outputs.sweep(folder, outputs.GENERATED)  # workers of a cluster that died may have left temporary files
    left = len({shard.name for shard in planned} - done - {shard.name for shard in mine})
    if left:
        return Generation(folder, False, bool(work.shards), _since(began), left)
    names = [shard.name for shard in planned]
    manifest = corpus.finish(folder, "generated", facts(inputs, folder, teachers), names)
    return Generation(folder, True, bool(work.shards), _since(began), manifest=manifest)


def _since(began: float) -> float:
    return round(time.monotonic() - began, 2)


def _tidy(folder: Path, *, repair: bool, retry_failed: bool, ui: UI) -> None:
    """Remove the temporary files of a killed process. If `repair` is true, also remove damaged shards. If
    `retry_failed` is true, also remove shards that have failures.
    """
    outputs.sweep(folder, outputs.GENERATED)
    if repair:
        for name in corpus.discard_damaged(folder):
            ui.note(f"{folder}: shard {name} was damaged and is made again")
    if retry_failed:
        corpus.discard(folder, corpus.failed(folder, FAILURES))


def _open_away(inputs: Inputs, folder: Path, how: _How, opened: ExitStack) -> Away:
    """Start the workers of a cluster."""
    if how.batch:
        raise UserError("--batch sends from one machine, not from a cluster", "leave out --batch or --executor")
    return open_away(inputs, folder, how.executor, how.workers, opened)
