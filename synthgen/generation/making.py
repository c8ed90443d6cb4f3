"""Makes shards with the teachers of a recipe, in the way that is fastest for the teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import cast

from synthgen.errors import UserError
from synthgen.generation import casting
from synthgen.generation.batching import Batching
from synthgen.generation.division import Shard
from synthgen.generation.filling import Output
from synthgen.generation.inputs import runner
from synthgen.generation.jobs import Jobs
from synthgen.generation.remote import First, Remotes
from synthgen.generation.rounds import Ask, Failure, ask_batch, lockstep, score_too
from synthgen.generation.shards import Layout
from synthgen.generation.stream import stream
from synthgen.recipe import Recipe
from synthgen.requests import Request
from synthgen.tables.engines import ENGINES
from synthgen.tables.reference import resolve
from synthgen.teachers import open_remote, open_teacher
from synthgen.teachers.base import RemoteTeacher, Reply, StreamingTeacher, Teacher, TeacherOptions
from synthgen.ui import UI


def open_all(recipe: Recipe, opened: ExitStack, *, batch: bool = False) -> dict[str, Teacher | RemoteTeacher]:
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
class Assignment:
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


def make(work: Assignment, output: Output, *, batch: bool, retry_failed: bool, part: tuple[int, int], ui: UI) -> None:
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


def _by_batch(work: Assignment, ui: UI) -> First:
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


def _shard_by_shard(work: Assignment, ask: Ask, output: Output) -> None:
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
