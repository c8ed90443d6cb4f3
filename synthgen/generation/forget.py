"""Finds what a removal affects in addition to rows: the seeds whose jobs are left out, and the cached replies to the
requests of these jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.generation import casting
from synthgen.generation.cache import Cache
from synthgen.generation.inputs import Inputs, read_inputs
from synthgen.generation.jobs import Job, Jobs
from synthgen.generation.rounds import Rounds
from synthgen.generation.setting import LeftOut, Setting
from synthgen.recipe import Recipe
from synthgen.removed import NOTHING, Removed
from synthgen.requests import Query, Request
from synthgen.tables.reference import resolve
from synthgen.tables.strategies import STRATEGIES
from synthgen.teachers import open_remote
from synthgen.teachers.base import RemoteTeacher, Reply, TeacherOptions

Answer = Callable[[Request], Reply | None]
"""A function that returns the cached reply to a request, or None."""


@dataclass(frozen=True)
class Concerned:
    """The seeds and cache entries that a removal affects. `seeds` holds the ids of the seeds with at least one job that
    is left out. `keys` holds the cache keys of these jobs' requests. `complete` is false if some of these requests may
    be missing: a teacher cannot be opened, or a job also asks a local teacher, on whose reply its later requests may
    depend.
    """

    seeds: frozenset[str]
    keys: tuple[bytes, ...]
    complete: bool


def seeds_of(recipe: Recipe) -> Inputs | None:
    """The seeds and templates of a run. None when the seeds or templates cannot be read, or when the run has no
    teacher.
    """
    if recipe.teacher is None:
        return None
    try:
        return read_inputs(recipe, hashed=False)
    except SynthgenError:
        return None


def concerned(inputs: Inputs, removed: Removed, cache: Path) -> Concerned:
    """Find the seeds and cache entries that a removal affects. Sends nothing. Replies are read from the file `cache`,
    because later requests of a job depend on the replies to its earlier requests.
    """
    recipe = inputs.recipe
    remote, complete = _remote(recipe)
    versions = {**casting.versions(recipe), **_versions(recipe, remote)}
    identified = len(remote) == len(versions)
    setting = Setting(recipe, inputs.prompt, inputs.seeds, versions, identified, removed=removed)
    run: Callable[[Job], Rounds] = resolve(STRATEGIES[recipe.strategy].run)
    seeds, keys = set[str](), dict[bytes, None]()
    paid = any(teacher.paid for teacher in remote.values()) and cache.exists()
    with closing(Cache(cache)) if paid else closing(_NoCache()) as replies:
        answer = _reader(remote, replies)
        for job in Jobs(setting).one_by_one():
            if not _is_left_out(run, job, answer if removed.rows else lambda request: None):
                continue
            seeds.add(job.seed.id)
            plain = replace(job, setting=replace(setting, removed=NOTHING), shared={})
            for query in _walk(run(plain), answer) if paid else ():
                if query.request.teacher in remote:
                    keys[remote[query.request.teacher].call(query.request).key] = None
                else:
                    complete = False
    return Concerned(frozenset(seeds), tuple(keys), complete)


class _NoCache:
    def find(self, keys: list[bytes]) -> dict[bytes, None]:
        return {}

    def close(self) -> None:
        return None


def _remote(recipe: Recipe) -> tuple[dict[str, RemoteTeacher], bool]:
    """The teachers behind an API, by name, and whether all of them can be opened. No API key is needed."""
    options = TeacherOptions(
        recipe.task, recipe.generate.json_schema, recipe.generate.regex, casting.logits_spec(recipe)
    )
    teachers: dict[str, RemoteTeacher] = {}
    complete = True
    for name, section in casting.cast(recipe).items():
        if casting.in_process(section):
            continue
        keyless = {"api_key_env": None} if hasattr(section, "api_key_env") else {}
        try:
            teachers[name] = open_remote(section.model_copy(update=keyless), options)
        except SynthgenError:  # the teacher cannot be opened, for example because its tokenizer was deleted
            complete = False
    return teachers, complete


def _versions(recipe: Recipe, remote: Mapping[str, RemoteTeacher]) -> dict[str, str]:
    sections = casting.cast(recipe)
    return {
        name: f"{casting.short_name(sections[name].model)}@{teacher.identity['revision'][:19]}"
        for name, teacher in remote.items()
    }


def _reader(remote: Mapping[str, RemoteTeacher], cache: Cache | _NoCache) -> Answer:
    def answer(request: Request) -> Reply | None:
        teacher = remote.get(request.teacher)
        if teacher is None:
            return None
        key = teacher.call(request).key
        entry = cache.find([key]).get(key)
        if entry is None:
            return None
        return Reply(failure=entry.failure) if entry.failure else teacher.read(request, entry.body or b"")

    return answer


def _walk(rounds: Rounds, answer: Answer) -> Iterator[Query]:
    """Yield the queries of a job, as far as the replies to its earlier queries are known."""
    try:
        wanted = next(rounds)
        while True:
            yield from wanted
            replies = [answer(query.request) for query in wanted]
            known = [reply for reply in replies if reply is not None]
            if len(known) < len(replies):
                rounds.close()
                return
            wanted = rounds.send(known)
    except StopIteration:
        return


def _is_left_out(run: Callable[[Job], Rounds], job: Job, answer: Answer) -> bool:
    if job.left_out:
        return True
    try:
        for _ in _walk(run(job), answer):
            pass
    except LeftOut:
        return True
    return False
