"""The engine's batch setting (batch_size, vLLM's max_num_seqs) on a sample of the recipe: tried in turn and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from synthgen.errors import UserError
from synthgen.generation import strategies
from synthgen.generation.jobs import Jobs, cast, who
from synthgen.generation.rounds import ask_batch
from synthgen.prompts import load_prompt
from synthgen.recipe import Recipe
from synthgen.requests import Request
from synthgen.seeds import load_seeds
from synthgen.tables.engines import LocalTeacher, TeacherSection
from synthgen.teachers import open_teacher
from synthgen.teachers.base import Teacher
from synthgen.ui import UI

_SIZES = (4, 8, 16, 32, 64, 128, 256)
_AS_GOOD = 0.97  # of the fastest: of settings that fast the smallest needs least memory
_TIMES = 2  # each, the better one counts


@dataclass(frozen=True)
class Tried:
    """One setting; rates are of the better of two tries; `problem` says why there is none."""

    value: int
    rows_per_second: float
    tokens_per_second: float
    problem: str = ""


@dataclass(frozen=True)
class Tuned:
    """All that was tried on `requests` requests of `teacher`, and the best value of the recipe's key `key`."""

    teacher: str
    key: str
    requests: int
    tried: list[Tried]
    best: int

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def tune(recipe: Recipe, *, requests: int = 64, ui: UI | None = None) -> Tuned:
    """Time the first teacher's first questions at several batch sizes; nothing is written.

    Raises UserError for a teacher without a batch of its own, and what `generate` raises for a recipe that it
    could not run.
    """
    ui = ui or UI(quiet=True)
    prompt = load_prompt(recipe.prompts, recipe.task)
    seeds = load_seeds(recipe.seeds, recipe.split, strategies.question(recipe, prompt))
    name, section = next(iter(cast(recipe).items()))
    if not isinstance(section, LocalTeacher):
        raise UserError(
            f"teacher '{name}' ({section.engine}) has no batch of its own",
            "requests in flight find their number by themselves; teacher.max_in_flight is the most",
        )
    some = sample(Jobs(recipe, seeds, prompt, who(recipe)), name, requests)
    if not some:
        raise UserError(
            f"the first questions of this recipe are not for teacher '{name}'", "tune it in a recipe of its own"
        )
    key = "batch_size" if isinstance(section, TeacherSection) else "max_num_seqs"
    spec = recipe.logits.spec() if recipe.logits and recipe.strategy not in ("classify", "embed") else None
    sizes = [size for size in _SIZES if size < len(some)] + [next((s for s in _SIZES if s >= len(some)), _SIZES[-1])]
    tried: list[Tried] = []
    teacher: Any = None
    with ui.progress("tune", len(sizes), "settings") as bar:
        for size in sizes:
            if teacher is None or key != "batch_size":  # vLLM must be started anew
                teacher = open_teacher(section.model_copy(update={key: size}), recipe.generate)
            teacher.batch_size = size
            tried.append(attempt(teacher, name, size, some, spec, bar.tokens))
            if key != "batch_size":
                teacher.close()
            bar.advance(1)
            if tried[-1].problem:
                break
    teacher.close()
    good = [one for one in tried if not one.problem]
    if not good:
        raise UserError(f"{key} {sizes[0]} fails: {tried[0].problem}", "give a smaller model, dtype or max_new_tokens")
    fastest = max(one.rows_per_second for one in good)
    best = next(one.value for one in good if one.rows_per_second >= _AS_GOOD * fastest)
    return Tuned(section.model, key, len(some), tried, best)


def sample(jobs: Jobs, name: str, count: int) -> list[Request]:
    """First requests of jobs all over the recipe, as many as `count`, of those that ask `name`."""
    step = max(1, len(jobs) // count)
    found: list[Request] = []
    for place in range(0, len(jobs), step):
        [job] = jobs.range(place, place + 1)
        rounds = strategies.STRATEGIES[jobs.recipe.strategy].make(job)
        try:
            found += [request for request in next(rounds) if request.teacher == name]
        except StopIteration:
            continue
        rounds.close()
        if len(found) >= count:
            break
    return found[:count]


def attempt(
    teacher: Teacher,
    name: str,
    size: int,
    requests: Sequence[Request],
    spec: dict[str, Any] | None,
    tick: Callable[[int], None],
) -> Tried:
    """Answer all requests, after a first batch of `size` that is not timed."""
    best, tokens = float("inf"), 0
    try:
        ask_batch({name: teacher}, spec, tick, requests[:size])
        for _ in range(_TIMES):
            began = time.perf_counter()
            replies = ask_batch({name: teacher}, spec, tick, requests)
            best = min(best, time.perf_counter() - began)
            tokens = sum(len(reply.token_ids) for reply in replies)
    except (MemoryError, RuntimeError) as error:  # torch's own is a RuntimeError
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        return Tried(size, 0.0, 0.0, str(error).splitlines()[0][:200])
    return Tried(size, len(requests) / best, tokens / best)
