"""Measures the speed of a teacher with several values of its batch setting (batch_size, or vLLM's max_num_seqs), on a
sample of the recipe's requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from synthgen.errors import UserError
from synthgen.generation import casting
from synthgen.generation.inputs import read_inputs, runner
from synthgen.generation.jobs import Jobs
from synthgen.generation.rounds import ask_batch
from synthgen.logits import LogitsSpec
from synthgen.recipe import Recipe
from synthgen.requests import Request
from synthgen.tables.engines import ENGINES, AnyTeacher
from synthgen.teachers import open_teacher
from synthgen.teachers.base import Teacher, TeacherOptions, Tick
from synthgen.ui import UI

_SIZES = (4, 8, 16, 32, 64, 128, 256)
# The smallest value whose rate is at least this share of the best rate is chosen, because small batches need less
# memory.
_AS_GOOD = 0.97
_TIMES = 2  # number of measurements for each value; the faster measurement is used


@dataclass(frozen=True)
class Trial:
    """The result for one value of the batch setting. The rates come from the faster of two measurements. If the
    measurement failed, the rates are 0, and `problem` says why.
    """

    value: int
    rows_per_second: float
    tokens_per_second: float
    problem: str = ""


@dataclass(frozen=True)
class Tuning:
    """All trials, and the chosen value `best` for the recipe's key `key`. `requests` is the number of requests with
    which each trial measured the speed of `teacher`.
    """

    teacher: str
    key: str
    requests: int
    tried: list[Trial]
    best: int

    def to_dict(self) -> dict[str, object]:
        """The object that `--json` prints."""
        return asdict(self)

    def text(self) -> str:
        """A table of the trials for the user."""
        lines = [f"{self.key:>12}  rows/s  tokens/s   ({self.teacher}, {self.requests} requests)"]
        for trial in self.tried:
            rates = trial.problem or f"{trial.rows_per_second:6.1f}  {trial.tokens_per_second:8.0f}"
            lines.append(f"{trial.value:12}  {rates}{'   ← best' if trial.value == self.best else ''}")
        return "\n".join(lines)


def tune(recipe: Recipe, *, requests: int = 64, ui: UI | None = None) -> Tuning:
    """Measure the speed of the recipe's first teacher at several batch sizes. Writes nothing.

    The measurement uses requests from jobs that are spread over the whole recipe.

    Raises UserError when the teacher has no batch setting, and the errors of `generate` for an unusable recipe.
    """
    ui = ui or UI(quiet=True)
    inputs = read_inputs(recipe, hashed=False)
    name, section = next(iter(casting.cast(recipe).items()))
    engine = ENGINES[section.engine]
    if not engine.batch_key:
        raise UserError(
            f"teacher '{name}' ({section.engine}) has no batch setting",
            "synthgen adapts the number of requests in flight; teacher.max_in_flight is the maximum",
        )
    sampled = sample(inputs.jobs(casting.versions(recipe)), name, requests)
    if not sampled:
        raise UserError(
            f"the first questions of this recipe go to teachers other than '{name}'",
            "use a recipe in which this teacher is the only one",
        )
    key, form, spec = engine.batch_key, recipe.generate, casting.logits_spec(recipe)
    options = TeacherOptions(recipe.task, form.json_schema, form.regex, spec)
    sizes = [size for size in _SIZES if size < len(sampled)]
    sizes.append(next((size for size in _SIZES if size >= len(sampled)), _SIZES[-1]))
    trials: list[Trial] = []
    with ui.progress("tune", len(sizes), "settings") as bar:
        timed = partial(attempt, name=name, requests=sampled, spec=spec, tick=bar.tokens)
        for trial in _trials(section, options, sizes, timed):
            trials.append(trial)
            bar.advance(1)
    good = [trial for trial in trials if not trial.problem]
    if not good:
        raise UserError(f"{key} {sizes[0]} fails: {trials[0].problem}", "use a smaller model, dtype or max_new_tokens")
    fastest = max(trial.rows_per_second for trial in good)
    best = next(trial.value for trial in good if trial.rows_per_second >= _AS_GOOD * fastest)
    return Tuning(section.model, key, len(sampled), trials, best)


def _trials(
    section: AnyTeacher, options: TeacherOptions, sizes: Sequence[int], timed: Callable[[Teacher, int], Trial]
) -> Iterator[Trial]:
    """Yield the trial of each batch size, in order. Stops after the first trial that fails."""
    engine = ENGINES[section.engine]
    teacher: Teacher | None = None
    try:
        for size in sizes:
            if teacher is not None and not engine.batch_key_is_free:
                teacher.close()
                teacher = None
            teacher = teacher or open_teacher(section.model_copy(update={engine.batch_key: size}), options)
            if engine.batch_key_is_free:
                setattr(teacher, "batch_size", size)  # noqa: B010 - an attribute that the protocol does not have
            trial = timed(teacher, size)
            yield trial
            if trial.problem:
                return
    finally:
        if teacher is not None:
            teacher.close()


def sample(jobs: Jobs, name: str, count: int) -> list[Request]:
    """Up to `count` requests to the teacher `name`. The requests are taken from the first rounds of jobs that are
    spread evenly over all jobs of the recipe.
    """
    run = runner(jobs.setting.recipe)
    requests: list[Request] = []
    for place in range(0, len(jobs), max(1, len(jobs) // count)):
        [job] = jobs.range(place, place + 1)
        rounds = run(job)
        try:
            requests += [query.request for query in next(rounds) if query.request.teacher == name]
        except StopIteration:
            continue
        rounds.close()
        if len(requests) >= count:
            break
    return requests[:count]


def attempt(
    teacher: Teacher, size: int, *, name: str, requests: Sequence[Request], spec: LogitsSpec | None, tick: Tick
) -> Trial:
    """Measure the time that the teacher takes to answer all requests. Before this, a batch of `size` requests is
    answered without measuring, as a warm-up.
    """
    best, tokens = float("inf"), 0
    try:
        ask_batch({name: teacher}, spec, tick, requests[:size])
        for _ in range(_TIMES):
            began = time.perf_counter()
            replies = ask_batch({name: teacher}, spec, tick, requests)
            best = min(best, time.perf_counter() - began)
            tokens = sum(len(reply.token_ids) for reply in replies)
    except (MemoryError, RuntimeError) as error:  # torch's out-of-memory error is a RuntimeError
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        return Trial(size, 0.0, 0.0, str(error).splitlines()[0][:200])
    return Trial(size, len(requests) / best, tokens / best)
