"""Generation on a cluster: decides how the workers share the work, starts them, and lets them make shards.

Teachers whose replies cost nothing are opened by each worker, which makes whole shards alone. When replies cost money,
or the recipe has a budget, this process schedules the requests of all workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from synthgen.errors import UserError
from synthgen.executor import open_cluster
from synthgen.generation import casting
from synthgen.generation.away import Task, alone, recordings, together
from synthgen.generation.crew import Crew
from synthgen.generation.division import Shard, plan_shards
from synthgen.generation.filling import Output
from synthgen.generation.inputs import Inputs
from synthgen.generation.limits import Limits
from synthgen.generation.making import open_all
from synthgen.generation.remote import Remotes
from synthgen.generation.sharing import FarTeacher, SharingCrew
from synthgen.recipe import Recipe
from synthgen.tables.engines import ENGINES
from synthgen.teachers.base import Identity, RemoteTeacher
from synthgen.ui import UI

_EACH = 8  # requests in flight for each worker; with more workers, some would have nothing to do


@dataclass(frozen=True)
class _Known:
    """A teacher that the workers have opened, and this process has not."""

    identity: Identity


@dataclass(frozen=True)
class Away:
    """The workers of a run, and what is known about their teachers."""

    crew: Crew
    teachers: casting.Teachers

    def make(
        self, recipe: Recipe, folder: Path, shards: Sequence[Shard], output: Output, *, retry_failed: bool,
        part: tuple[int, int], ui: UI,
    ) -> None:  # fmt: skip
        """Make the shards. Raises the errors of `synthgen.generation.making.make`, and errors of the cluster."""
        if not shards:
            return
        self.crew.folder = folder
        if not isinstance(self.crew, SharingCrew):
            self.crew.make(shards, output.bar, output.gate)
            return
        far = {name: FarTeacher(name, cast(RemoteTeacher, real), self.crew) for name, real in self.teachers.items()}
        remotes = Remotes(recipe, folder, far, output.bar, note=ui.note, retry_failed=retry_failed, part=part)
        with closing(remotes):
            self.crew.share(shards, output.bar, output.gate, remotes)


def open_away(inputs: Inputs, folder: Path, executor: str, workers: int | None, opened: ExitStack) -> Away:
    """Start the workers, at most `workers`. They end when `opened` is closed.

    Raises UserError when the recipe's teachers cannot work on a cluster, and the errors of teachers that cannot be
    opened.
    """
    recipe = inputs.recipe
    sections = casting.cast(recipe)
    shards = len(plan_shards(inputs.jobs().counts, recipe.generate.shard_size))
    shared = is_shared(recipe)
    refuse_mixed(recipe)
    hashes = inputs.seeds.fingerprint, inputs.prompt.version, recordings(recipe)
    task = Task(recipe, folder.absolute(), *hashes, inputs.removed)
    if shared:
        teachers = open_all(recipe, opened)
        casting.refuse_incapable(recipe, teachers)
        cluster = opened.enter_context(open_cluster(executor, workers))
        in_flight = sum(Limits.of(section).max_in_flight for section in sections.values())
        most = workers or -(-in_flight // _EACH)
        identities = {name: teacher.identity for name, teacher in teachers.items()}
        crew: Crew = SharingCrew(
            partial(cluster.worker, together, task), max(1, min(cluster.room(), shards, most)), identities
        )
        opened.callback(crew.close)
        return Away(crew, teachers)
    cluster = opened.enter_context(open_cluster(executor, workers))
    gpus = _gpus(recipe) if cluster.gpus else 0
    crew = Crew(partial(cluster.worker, alone, task, gpus=gpus), max(1, min(cluster.room(gpus), shards)))
    opened.callback(crew.close)
    known: Mapping[str, object] = {name: _Known(identity) for name, identity in crew.meet().items()}
    return Away(crew, cast(casting.Teachers, known))


def is_shared(recipe: Recipe) -> bool:
    """Whether one process must schedule the requests of all workers, because replies cost money, or because the recipe
    has a budget.
    """
    remote = [one for one in casting.cast(recipe).values() if not casting.in_process(one)]
    return bool(remote) and (recipe.generate.budget is not None or any(ENGINES[one.engine].prices for one in remote))


def refuse_mixed(recipe: Recipe) -> None:
    """Raise UserError when the recipe can only be generated on one machine."""
    if is_shared(recipe) and any(map(casting.in_process, casting.cast(recipe).values())):
        raise UserError(
            "a recipe with local teachers and also paid teachers or a budget can only be generated on one machine",
            "leave out --executor, or generate with one kind of teacher",
        )


def _gpus(recipe: Recipe) -> int:
    """The number of GPUs that a worker needs for the recipe's local teachers."""
    local = [section for section in casting.cast(recipe).values() if casting.in_process(section)]
    if all(getattr(section, "device", "auto") == "cpu" for section in local):
        return 0
    sizes = [getattr(one, "tensor_parallel_size", 0) * getattr(one, "data_parallel_size", 0) for one in local]
    return max(1, sum(sizes))
