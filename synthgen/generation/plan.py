"""Makes the plan of a recipe: counts, tokens, cost and one rendered prompt. Nothing is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from synthgen.errors import RecipeError, TeacherError
from synthgen.generation import casting
from synthgen.generation.division import plan_shards
from synthgen.generation.inputs import first_queries, most_requests, read_inputs
from synthgen.generation.prices import PICO, prices
from synthgen.recipe import Recipe, check_audits, check_installed, check_models, check_recipe
from synthgen.records import Message
from synthgen.requests import Query, Request
from synthgen.tables.engines import ENGINES
from synthgen.tables.reference import resolve
from synthgen.teachers.base import Caller, TeacherOptions

_CHARACTERS_PER_TOKEN = 4  # this number is typical of English prose, and the text of a plan states it


@dataclass(frozen=True)
class Plan:
    """The counts, tokens and cost of a recipe.

    `splits` is the number of seeds in each split, and `rows` is the number of rows. `requests` and `completion_tokens`
    are maximum numbers. `prompt_tokens` is estimated from the number of characters. For a strategy with several rounds
    of requests, only the first round is known in advance. The requests of later rounds are assumed to be as long as
    those of the first round. `cost_usd` is an estimate. This estimate assumes that completions have half the maximum
    length. `most_usd` is the maximum cost without retries. This maximum assumes one prompt token for each byte and
    completions of the maximum length. `cost_usd` and `most_usd` are None when a price is unknown.
    """

    task: str
    strategy: str
    teacher: str
    seeds: int
    splits: dict[str, int]
    rows: int
    requests: dict[str, int]
    shards: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    most_usd: float | None
    prompt: Sequence[Message] = field(repr=False)
    student_prompt: Sequence[Message] = field(repr=False)

    def to_dict(self) -> dict[str, object]:
        """The object that `--json` prints."""
        return dict(self.__dict__)

    def text(self) -> str:
        """The plan as text for the user."""
        prompt = "\n".join(f"  {message['role']}: {message['content']}" for message in self.prompt)
        requests = ", ".join(f"{split} {count:,}" for split, count in self.requests.items())
        cost = "unknown; set teacher.prices"
        if self.cost_usd is not None and self.most_usd is not None:
            cost = f"about ${self.cost_usd:.2f}, at most ${self.most_usd:.2f} (not counting retries)"
            cost = cost if self.most_usd else "$0.00"
        return (
            f"task: {self.task} ({self.strategy}), teacher: {self.teacher}\n"
            f"seeds: {self.seeds:,}, {shares(self.splits)}\n"
            f"requests: {requests}; shards: {self.shards}\n"
            f"tokens: about {self.prompt_tokens:,} in prompts (4 characters a token), "
            f"at most {self.completion_tokens:,} in completions\n"
            f"cost: {cost}\n"
            f"first prompt:\n{prompt}"
        )


def shares(counts: dict[str, int]) -> str:
    """The number and the share of each split as text, such as 'train 148 (82%), test 32 (18%)'."""
    total = sum(counts.values())
    return ", ".join(f"{split} {count:,} ({count / total:.0%})" for split, count in counts.items() if count)


@dataclass
class _Estimate:
    """Sums over requests. `usual` is the estimated cost, and `most` is the maximum cost, both in picodollars. `usual`
    and `most` become None when a request's price is unknown.
    """

    characters: int = 0
    completion_tokens: int = 0
    usual: int | None = 0
    most: int | None = 0


def plan(recipe: Recipe) -> Plan:
    """Read seeds and templates and make the plan. Loads no teacher and sends nothing. The chat template of a local
    teacher is checked if its model is a folder.
    """
    check_models(check_recipe(recipe))
    check_installed(recipe.curate)
    check_audits(recipe.audit)
    inputs = read_inputs(recipe, hashed=False)
    casting.refuse_hiding(recipe, _tokens_of_folders(recipe))
    jobs = inputs.jobs()
    estimator = _Estimator(recipe)
    requests: dict[str, int] = {}
    first: Query | None = None
    for split, queries in first_queries(jobs):
        requests[split] = requests.get(split, 0) + (estimator.most if queries else 0)
        for query in queries:
            first = first or query
            estimator.add(query.request, len(queries))
    if first is None:
        raise RecipeError(
            f"strategy '{recipe.strategy}' asks nothing about these seeds",
            "check that the seeds have the columns that the strategy needs",
        )
    total = estimator.total
    return Plan(
        task=recipe.task,
        strategy=recipe.strategy,
        teacher=", ".join(section.model for section in casting.cast(recipe).values()),
        seeds=len(inputs.seeds),
        splits={split: count for split, count in inputs.seeds.counts.items() if count},
        rows=len(jobs),
        requests=requests,
        shards=len(plan_shards(jobs.counts, recipe.generate.shard_size)),
        prompt_tokens=total.characters // _CHARACTERS_PER_TOKEN,
        completion_tokens=total.completion_tokens,
        cost_usd=None if total.usual is None else total.usual / PICO,
        most_usd=None if total.most is None else total.most / PICO,
        prompt=first.request.messages,
        student_prompt=first.lineage.prompt,
    )


def _tokens_of_folders(recipe: Recipe) -> dict[str, object]:
    """The `Tokens` of the local teachers whose model is a folder, by the teacher's name. Models without chat template
    are left out. Nothing is returned when transformers is not installed.
    """
    found: dict[str, object] = {}
    for name, section in casting.cast(recipe).items():
        if casting.in_process(section) and Path(section.model).is_dir():
            try:
                from synthgen.lm.tokens import Tokens

                found[name] = Tokens.open(section.model)
            except (ModuleNotFoundError, TeacherError):
                continue
    return found


class _Estimator:
    """Sums the costs of requests. `most` is the maximum number of requests of one job."""

    def __init__(self, recipe: Recipe) -> None:
        sections, generate = casting.cast(recipe), recipe.generate
        form = TeacherOptions(recipe.task, generate.json_schema, generate.regex, casting.logits_spec(recipe))
        self.callers: dict[str, Caller] = {}
        for name, section in sections.items():
            if previews := ENGINES[section.engine].previews:
                self.callers[name] = cast(Caller, resolve(previews)(section, form))
        self.prices = {name: prices(section) for name, section in sections.items()}
        self.most = most_requests(recipe)
        steps = recipe.steps.max_new_tokens if self.most > 1 else 0
        self.longest = max(generate.max_new_tokens, steps)
        self.total = _Estimate()

    def add(self, request: Request, together: int) -> None:
        """Add one of the requests of a job's first round to the sums. `together` is the number of requests in this
        round. The request is added `self.most / together` times, so that the sums contain the maximum number of
        requests for each job.
        """
        total, times = self.total, self.most / together
        call = self.callers[request.teacher].call(request) if request.teacher in self.callers else None
        characters = sum([len(message["content"] or "") for message in request.messages])
        completion = self.longest if request.kind == "sample" else call.most_completion if call else 0
        total.characters += round(characters * times)
        total.completion_tokens += round(completion * times)
        price = self.prices[request.teacher]
        if price is None or total.usual is None or total.most is None:
            total.usual = total.most = None
            return
        total.usual += round(price.most(characters // _CHARACTERS_PER_TOKEN, completion // 2) * times)
        total.most += round(price.most(call.most_prompt if call else 0, completion) * times)
