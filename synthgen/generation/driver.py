"""The main function of generation, which makes RUN/generated from seeds. A resumed run makes only missing shards."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import cast

from synthgen import corpus, durable, outputs
from synthgen.errors import UserError
from synthgen.generation import casting
from synthgen.generation.batching import Batching
from synthgen.generation.claim import Claim, begin, check_run, keep_recipe
from synthgen.generation.division import Shard, plan_shards
from synthgen.generation.filling import Gate, Output
from synthgen.generation.inputs import first_queries, read_inputs, runner
from synthgen.generation.jobs import Jobs
from synthgen.generation.remote import First, Remotes
from synthgen.generation.result import Generation
from synthgen.generation.rounds import Ask, Failure, ask_batch, lockstep, score_too
from synthgen.generation.shards import Layout, facts
from synthgen.generation.stream import stream
from synthgen.recipe import Recipe, check_recipe
from synthgen.removed import read_removed
from synthgen.requests import Request
from synthgen.tables.engines import ENGINES
from synthgen.tables.reference import resolve
from synthgen.teachers import open_remote, open_teacher
from synthgen.teachers.base import FAILURES, RemoteTeacher, Reply, StreamingTeacher, Teacher, TeacherOptions
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
    ui: UI | None = None,
) -> Generation:
    """Ask the teachers for every row of the recipe that `run`/generated does not have yet.

    `fresh` discards existing rows. Rows that `synthgen remove` took out of the run are never made again, even with
    `fresh`. `repair` makes damaged shards again. `retry_failed` makes shards with failures again. Replies that were
    already paid are read from the cache. With `part` (i, n), only the i-th shard and every n-th shard after it are
    made. The manifest is written by the process that finds all shards complete. With `batch`, requests whose replies
    are not in the cache are sent through the provider's Batch API.

    The folder is claimed after all teachers are open, so an error before that leaves the folder unchanged. Raises
    RunChanged when the folder was begun with other inputs, CorpusError when a shard is damaged, and RecipeError or
    TeacherError when a file or a model of the recipe cannot be used. Raises BudgetReached when the next request could
    exceed the budget, and GateDenied when too many requests fail.
    """
    check_recipe(recipe)
    check_run(Path(run))
    with durable.lock(Path(run)):
        begin(recipe, Path(run), fresh)
        return _generate(recipe, Path(run), fresh, repair, retry_failed, part, batch=batch, ui=ui or UI(quiet=True))


def _generate(
    recipe: Recipe,
    run: Path,
    fresh: bool,
    repair: bool,
    retry_failed: bool,
    part: tuple[int, int],
    *,
    batch: bool,
    ui: UI,
) -> Generation:
    """The work of `generate`, in a folder that is already locked."""
    began, folder = time.monotonic(), run / "generated"
    outputs.check(folder, outputs.GENERATED, fresh)
    inputs = replace(read_inputs(recipe), removed=read_removed(run))
    for tombstone in inputs.removed.tombstones:
        ui.note(tombstone.text())
    claim = Claim(folder, inputs)
    if not fresh and claim.check():
        keep_recipe(recipe, run)
        _tidy(folder, repair=repair, retry_failed=retry_failed, ui=ui)
        if (folder / "manifest.json").exists():
            manifest = corpus.verify(folder)
            ui.note(f"{folder} is complete; nothing to do")
            return Generation(folder, True, False, _since(began), manifest=manifest)
    for _ in first_queries(inputs.jobs()):  # raises RecipeError when a template does not fit a seed
        pass
    with ExitStack() as opened:
        teachers = _open(recipe, batch, opened)
        casting.refuse_incapable(recipe, teachers)
        claim.write(fresh)
        # The jobs are made again, because row ids depend on the teachers' revisions, which are known only after the
        # teachers are open.
        jobs = inputs.jobs(casting.versions(recipe, teachers))
        layout = Layout.of(recipe, teachers, inputs.removed)
        planned = plan_shards(jobs.counts, recipe.generate.shard_size)
        done = corpus.committed(folder, [f"logits/{name}" for name in layout.speakers])
        mine = planned[part[0] - 1 :: part[1]]
        work = _Work(folder, jobs, [shard for shard in mine if shard.name not in done], layout)
        with ui.progress("generate", sum(shard.stop - shard.start for shard in mine), work.unit) as bar:
            bar.advance(bar.total - work.size, resumed=True)
            gate = Gate(recipe, len(jobs), sum(corpus.failed(folder, FAILURES).values()))
            output = Output(partial(layout.commit, folder), bar, gate)
            _make(work, output, batch=batch, retry_failed=retry_failed, part=part, ui=ui)
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


def _open(recipe: Recipe, batch: bool, opened: ExitStack) -> dict[str, Teacher | RemoteTeacher]:
    """Open the recipe's teachers. Returns the teachers by name. Local teachers are closed when `opened` is closed.

    Raises UserError when `batch` is given and a teacher has no Batch API."""
    sections = casting.cast(recipe)
    if batch and (len(sections) > 1 or any(ENGINES[s.engine].batches is None for s in sections.values())):
        engines = ", ".join(f"'{section.engine}'" for section in sections.values())
        raise UserError(f"--batch is for one teacher behind an API, not for {engines}", "leave out --batch")
    form = recipe.generate
    options = TeacherOptions(recipe.task, form.json_schema, form.regex, casting.logits_spec(recipe))
    teachers: dict[str, Teacher | RemoteTeacher] = {}
    for name, section in sections.items():
        if casting.in_process(section):
            teacher = open_teacher(section, options)
            opened.callback(teacher.close)
            teachers[name] = teacher
        else:
            teachers[name] = open_remote(section, options)
    return teachers


@dataclass(frozen=True)
class _Work:
    """The shards that this process makes, and the opened teachers (in `layout`)."""

    folder: Path
    jobs: Jobs
    shards: Sequence[Shard]
    layout: Layout

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.jobs.setting.recipe

    @cached_property
    def local(self) -> dict[str, Teacher]:
        """The local teachers by name."""
        here = [name for name, section in casting.cast(self.recipe).items() if casting.in_process(section)]
        return {name: cast(Teacher, self.layout.teachers[name]) for name in here}

    @cached_property
    def remote(self) -> dict[str, RemoteTeacher]:
        """The teachers behind an API, by name."""
        others = [name for name in casting.cast(self.recipe) if name not in self.local]
        return {name: cast(RemoteTeacher, self.layout.teachers[name]) for name in others}

    @property
    def size(self) -> int:
        """The number of jobs in the shards that this process makes."""
        return sum(shard.stop - shard.start for shard in self.shards)

    @property
    def unit(self) -> str:
        """The unit of the progress bar: "rows" when every job has only one request, and "jobs" otherwise."""
        strategy = self.jobs.setting.strategy
        return "jobs" if strategy.most_requests(self.recipe.steps, len(self.recipe.teachers)) > 1 else "rows"


def _make(work: _Work, output: Output, *, batch: bool, retry_failed: bool, part: tuple[int, int], ui: UI) -> None:
    """Make the shards in the way that is fastest for the teachers.

    When every teacher takes single requests, requests of several shards are in flight at the same time. When an engine
    answers in batches, shards are made one after another. The jobs of a shard then run in lockstep: the engine gets the
    requests of all jobs in one round together, then the requests of the next round."""
    recipe, spec = work.recipe, work.layout.spec
    if not work.shards:
        return
    ask_local = partial(ask_batch, work.local, spec, output.bar.tokens)
    streaming = {name: teacher for name, teacher in work.local.items() if isinstance(teacher, StreamingTeacher)}
    if not work.remote:
        if len(streaming) == len(work.local) and not casting.scorers(recipe):
            stream(work.jobs, work.shards, streaming, spec, output)
        else:
            _shard_by_shard(work, ask_local, output)
        return
    first = _by_batch(work, ui) if batch else None
    remotes = Remotes(recipe, work.folder, work.remote, output.bar, note=ui.note, retry_failed=retry_failed, part=part)
    with closing(remotes):
        if work.local:
            _shard_by_shard(work, partial(_ask_all, ask_local, work.local, remotes), output)
        else:
            remotes.fill(work.jobs, work.shards, output, first)


def _by_batch(work: _Work, ui: UI) -> First:
    """Return a function that fills the cache with replies from the provider's Batch API."""
    [(name, teacher)] = work.remote.items()
    batches = ENGINES[casting.cast(work.recipe)[name].engine].batches
    assert batches is not None
    return cast(First, partial(resolve(batches), teacher, Batching(work.jobs, work.shards, work.folder, ui)))


def _ask_all(ask_local: Ask, local: Mapping[str, Teacher], remotes: Remotes, requests: list[Request]) -> list[Reply]:
    """Send each request to its teacher, local or remote. Returns the replies in the order of the requests."""
    replies: list[Reply] = [Reply()] * len(requests)
    for is_local, ask in ((True, ask_local), (False, remotes.ask)):
        places = [place for place, request in enumerate(requests) if (request.teacher in local) == is_local]
        answered = ask([requests[place] for place in places]) if places else []
        for place, reply in zip(places, answered, strict=True):
            replies[place] = reply
    return replies


def _shard_by_shard(work: _Work, ask: Ask, output: Output) -> None:
    """Make one shard after another. The jobs of a shard run in lockstep (see `synthgen.generation.rounds`)."""
    run = runner(work.recipe)
    for shard in work.shards:
        jobs = work.jobs.range(shard.start, shard.stop)
        outcomes = lockstep([run(job) for job in jobs], ask)
        if work.layout.spec:
            outcomes = score_too(outcomes, casting.scorers(work.recipe), [job.score_row for job in jobs], ask)
        output.write(shard, outcomes)
        output.bar.advance(len(jobs), failed=sum(isinstance(one, Failure) for several in outcomes for one in several))
        output.gate.count([one for several in outcomes for one in several])
