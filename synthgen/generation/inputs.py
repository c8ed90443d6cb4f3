"""Reads and checks the inputs of a recipe's generation: its templates and its seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from synthgen.errors import RecipeError, one_line
from synthgen.generation import casting
from synthgen.generation.jobs import Job, Jobs
from synthgen.generation.rounds import Rounds
from synthgen.generation.setting import LeftOut, Setting
from synthgen.prompts import Fields, Prompt, load_prompt
from synthgen.recipe import Recipe
from synthgen.removed import NOTHING, Removed
from synthgen.requests import Query
from synthgen.seeds import Seeds, load_seeds
from synthgen.tables.reference import resolve
from synthgen.tables.strategies import REWARDS, STRATEGIES


@dataclass(frozen=True)
class Inputs:
    """The templates and the seeds of a recipe, and what was removed from the run."""

    recipe: Recipe
    prompt: Prompt
    seeds: Seeds
    removed: Removed = NOTHING

    def jobs(self, versions: dict[str, str] | None = None) -> Jobs:
        """All jobs of the recipe. `versions` holds the models and revisions of the opened teachers, by name. Without
        `versions`, requests get no ids, because the ids depend on the revisions.
        """
        if versions is None:
            named = casting.versions(self.recipe)
            return Jobs(Setting(self.recipe, self.prompt, self.seeds, named, identified=False, removed=self.removed))
        return Jobs(Setting(self.recipe, self.prompt, self.seeds, versions, removed=self.removed))


def read_inputs(recipe: Recipe, *, hashed: bool = True) -> Inputs:
    """Read templates and seeds. Raises RecipeError when a template or a seed is missing or cannot be used.

    With `hashed`, a fingerprint of the seeds is computed. A run needs the fingerprint, an estimate does not."""
    casting.cast(recipe)  # raises RecipeError when the recipe has no teacher
    prompt = load_prompt(recipe.prompts, recipe.task)
    asked = question(recipe, prompt)
    return Inputs(recipe, prompt, load_seeds(recipe.seeds, recipe.split, asked, hashed=hashed))


def question(recipe: Recipe, prompt: Prompt) -> Callable[[Fields], str]:
    """Return a function that renders a seed's question from the seed's fields. Raises RecipeError when a template that
    the recipe's strategy needs is missing.
    """
    strategy = STRATEGIES[recipe.strategy]
    prompt.need((*strategy.templates, strategy.question), recipe.strategy)
    if strategy.judged and (template := REWARDS[recipe.steps.choose].template):
        prompt.need((template,), recipe.strategy)
    if strategy.template_prefix and not prompt.beginning(strategy.template_prefix):
        prompt.need((f"{strategy.template_prefix}NAME",), recipe.strategy)
    if strategy.question_of is None:
        return lambda fields: prompt.ask(strategy.question, fields)
    asked = resolve(strategy.question_of)
    return lambda fields: str(asked(fields, prompt))


def runner(recipe: Recipe) -> Callable[..., Rounds]:
    """The generator function of the recipe's strategy. This function takes a job and returns the generator of the job's
    rounds. For a job that uses something that was removed from the run, this generator yields nothing.
    """
    run: Callable[[Job], Rounds] = resolve(STRATEGIES[recipe.strategy].run)
    return lambda job: _obeying(run, job) if job.setting.removed else run(job)


def _obeying(run: Callable[[Job], Rounds], job: Job) -> Rounds:
    if job.left_out:
        return []
    try:
        return (yield from run(job))
    except LeftOut:
        return []


def most_requests(recipe: Recipe) -> int:
    """The maximum number of requests of one job."""
    return STRATEGIES[recipe.strategy].most_requests(recipe.steps, len(recipe.teachers))


def first_queries(jobs: Jobs) -> Iterator[tuple[str, list[Query]]]:
    """For every job, yield its split and the queries of its first round. Sends nothing.

    Raises RecipeError when a template does not fit a seed."""
    run = runner(jobs.setting.recipe)
    for job in jobs.one_by_one():
        rounds = run(job)
        try:
            queries = next(rounds)
        except StopIteration:
            queries = []
        except RecipeError as error:
            raise RecipeError(one_line(f"seed '{job.seed.id}': {error.message}"), error.hint) from None
        yield job.seed.split, queries
        rounds.close()
