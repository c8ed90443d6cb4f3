"""A job: one seed, one sample index, and who is asked. It makes the requests and the rows of a strategy.

Jobs are ordered by split, then seed, then sample, and made when their shard is: memory does not grow with the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from synthgen.errors import TeacherError
from synthgen.generation.rounds import Made, Row, failure
from synthgen.generation.rows import record, split_rationale
from synthgen.prompts import Prompt
from synthgen.recipe import Recipe
from synthgen.records import SPLITS, Message, Record, Source
from synthgen.requests import Request, identify
from synthgen.seeds import Seed
from synthgen.tables.engines import AnyTeacher
from synthgen.teachers.base import RemoteTeacher, Reply, Teacher


def key(model: str) -> str:
    """The short name of a model."""
    return model.rsplit("/", 1)[-1].removeprefix("package:")


def cast(recipe: Recipe) -> dict[str, AnyTeacher]:
    """Everybody who is asked, by name; a single teacher is called by its model."""
    return dict(recipe.teachers) or {key(recipe.teacher.model): recipe.teacher}


def answerers(recipe: Recipe) -> list[str]:
    """Names of the teachers whose completions become rows."""
    everybody = list(cast(recipe))
    if recipe.strategy in ("consensus", "disagreement"):
        return everybody
    return list(recipe.mixture) or everybody[:1]


@dataclass(frozen=True)
class Job:
    """`who` gives for each teacher's name its model and revision as row ids have it, `cast` its section; `answerers`
    are the names of those whose completions become rows; `pool` are all seeds of the same split; `shared` holds what
    jobs of one seed render only once."""

    recipe: Recipe
    prompt: Prompt
    seed: Seed
    index: int
    who: Mapping[str, str]
    cast: Mapping[str, AnyTeacher]
    answerers: Sequence[str]
    pool: Sequence[Seed] = ()
    shared: dict[str, list[Message]] = field(default_factory=dict)

    @property
    def teacher(self) -> str:
        """Name of the teacher that answers this seed: by the weights of the mixture, and the same in any run."""
        names = self.answerers
        if len(names) == 1 or not self.recipe.mixture:
            return names[0]
        weights = self.recipe.mixture
        point = fraction("mixture", self.recipe.generate.seed, self.seed.id) * sum(weights.values())
        for name, weight in weights.items():
            point -= weight
            if point < 0:
                return name
        return names[-1]

    @property
    def judge(self) -> str:
        """Name of the teacher that judges."""
        return self.recipe.steps.judge or next(iter(self.who))

    @property
    def rewriter(self) -> str:
        """Name of the teacher that writes new questions."""
        return self.recipe.steps.rewriter or self.teacher

    @property
    def fields(self) -> dict[str, Any]:
        """The seed's template variables."""
        return self.seed.fields

    def student(self) -> list[Message]:
        """What the student is asked, of the seed as it is."""
        return self._once("student", lambda: self.prompt.student(self.fields))

    def asked(self) -> list[Message]:
        """What the teacher is asked, of the seed as it is."""
        if self.prompt.alike:
            return self.student()
        return self._once("asked", lambda: self.prompt.teacher(self.fields))

    def _once(self, name: str, make: Any) -> list[Message]:
        if name not in self.shared:
            self.shared[name] = make()
        return self.shared[name]

    def answer(
        self,
        student: list[Message] | None = None,
        asked: list[Message] | None = None,
        *,
        number: int | None = None,
        teacher: str = "",
        parents: Sequence[str] = (),
        reference: list[str] | None = None,
    ) -> Request:
        """A request whose reply can become a row: the seed's own question unless messages are given."""
        g = self.recipe.generate
        teacher = teacher or self.teacher
        tools = self.fields.get("tools") if self.cast[teacher].engine == "openai" else None
        return self._request(
            "sample",
            asked or self.asked(),
            {
                "temperature": g.temperature,
                "top_p": g.top_p,
                "max_new_tokens": g.max_new_tokens,
                "seed": g.seed,
                "sample_index": self.index if number is None else number,
            },
            teacher,
            tools=tuple(tools) if isinstance(tools, list) else (),
            prompt=student or self.student(),
            parents=tuple(parents),
            reference=self.seed.reference if student is None else reference,
        )

    def question(
        self, text: str, parents: Sequence[str], *, reference: list[str] | None = None, **more: Any
    ) -> Request:
        """A request for the answer to a new question, in the templates' variable `question`."""
        fields = {**self.fields, **more, "question": text}
        return self.answer(
            self.prompt.student(fields), self.prompt.teacher(fields), parents=parents, reference=reference
        )

    def step(
        self, messages: list[Message], teacher: str, *, greedy: bool = False, parents: Sequence[str] = (), **more: Any
    ) -> Request:
        """A request on the way to a row: its text is used, its distributions are not kept."""
        steps, g = self.recipe.steps, self.recipe.generate
        sampling = {
            "temperature": 0.0 if greedy else steps.temperature,
            "top_p": g.top_p,
            "max_new_tokens": steps.max_new_tokens,
            "seed": g.seed,
            "sample_index": self.index,
        }
        return self._request("sample", messages, sampling, teacher, target=False, parents=tuple(parents), **more)

    def classify(self, asked: list[Message], labels: tuple[str, ...], teacher: str, **more: Any) -> Request:
        """A request for the probabilities of labels."""
        return self._request("classify", asked, self._no_sampling(), teacher, labels=labels, **more)

    def embed(self, asked: list[Message], teacher: str, **more: Any) -> Request:
        """A request to read a text."""
        return self._request("embed", asked, self._no_sampling(), teacher, **more)

    def score(
        self,
        asked: list[Message],
        completion: str,
        token_ids: Sequence[int],
        teacher: str,
        *,
        target: bool = False,
        **more: Any,
    ) -> Request:
        """A request for the log-probabilities of a completion."""
        return self._request(
            "score",
            asked,
            self._no_sampling(),
            teacher,
            completion=({"role": "assistant", "content": completion},),
            completion_ids=tuple(token_ids),
            target=target,
            **more,
        )

    def score_row(self, row: Record, teacher: str) -> Request:
        """A request for another teacher's distributions on a row's tokens."""
        asked = row.teacher_prompt or row.prompt
        return self.score(asked, row.text, row.token_ids or (), teacher, target=True, parents=(row.id,))

    def _no_sampling(self) -> dict[str, Any]:
        seed = self.recipe.generate.seed
        return {"temperature": None, "top_p": None, "max_new_tokens": 0, "seed": seed, "sample_index": 0}

    def _request(self, kind: str, asked: list[Message], sampling: dict[str, Any], teacher: str, **more: Any) -> Request:
        values = {"prompt": asked, "reference": None, **more}
        request = Request(
            kind=kind,
            seed_id=self.seed.id,
            split=self.seed.split,
            teacher_prompt=asked,
            sampling=sampling,
            sources=[
                self.seed_source("seed", self.seed),
                source(self.prompt.version, "template", self.recipe.license or "unknown"),
                self.source("generator", teacher),
            ],
            teacher=teacher,
            **values,
        )
        object.__setattr__(request, "id", identify(request, self.who[teacher]))
        return request

    def source(self, role: str, teacher: str) -> Source:
        """The source entry of a teacher in a role."""
        return source(self.who[teacher], role, self.cast[teacher].license)

    def answer_of(self, reply: Reply) -> str | None:
        """The answer in a reply: what follows the marker, where the recipe has one; None when it is missing."""
        marker = self.recipe.generate.answer_marker
        return split_rationale(reply.text, marker)[1] if marker else reply.text.strip() or None

    def seed_source(self, role: str, seed: Seed) -> Source:
        """The source entry of a seed; one that is shown beside the row's own is named by its id."""
        name = seed.source.source if role == "seed" else f"{seed.source.source}#{seed.id}"
        entry = source(name, role, seed.source.license)
        entry["made_by"], entry["account"] = seed.source.made_by, seed.source.account
        return entry

    def row(
        self,
        request: Request,
        reply: Reply,
        *,
        scores: Mapping[str, float] | None = None,
        sources: Sequence[Source] = (),
        parents: Sequence[str] | None = None,
    ) -> Row:
        """The row of a good reply."""
        made = record(self.recipe, request, reply, self.prompt, request.teacher)
        made.parents = list(request.parents if parents is None else parents)
        made.sources = [*request.sources, *sources]
        made.scores += ({"name": name, "value": float(value)} for name, value in (scores or {}).items())
        return Row(made, {request.teacher: reply.target} if reply.target is not None else {})


def source(name: str, role: str, license: str) -> Source:
    """One entry of a row's sources."""
    return {
        "id": name,
        "role": role,
        "license": license,
        "terms_date": None,
        "made_by": None,
        "account": None,
        "tools": [],
    }


def fraction(*parts: Any) -> float:
    """A number in [0, 1) that is a function of the parts alone."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


class Jobs:
    """All jobs of a recipe by position, made when asked for; `splits` gives the split of each."""

    def __init__(self, recipe: Recipe, seeds: Sequence[Seed], prompt: Prompt, who: Mapping[str, str]) -> None:
        self.recipe, self.prompt, self.who = recipe, prompt, who
        self.cast, self.answerers = cast(recipe), answerers(recipe)
        self.seeds = sorted(seeds, key=lambda s: SPLITS.index(s.split))  # stable: file order inside a split
        self.pools = {split: [s for s in self.seeds if s.split == split] for split in SPLITS}
        self.each = 1 if recipe.strategy in ("classify", "embed", "score") else recipe.generate.num_generations

    def __len__(self) -> int:
        return len(self.seeds) * self.each

    @property
    def splits(self) -> list[str]:
        """The split of every job, in order."""
        return [seed.split for seed in self.seeds for _ in range(self.each)]

    def range(self, start: int, stop: int) -> list[Job]:
        """Jobs `start` to `stop`."""
        return list(self.one_by_one(start, stop))

    def one_by_one(self, start: int, stop: int) -> Iterator[Job]:
        """The same, each made when it is wanted."""
        last: Job | None = None
        for place in range(start, min(stop, len(self))):
            seed, index = self.seeds[place // self.each], place % self.each
            shared = last.shared if last and last.seed is seed else {}
            pool = self.pools[seed.split]
            last = Job(self.recipe, self.prompt, seed, index, self.who, self.cast, self.answerers, pool, shared)
            yield last


def who(recipe: Recipe, teachers: Mapping[str, Teacher | RemoteTeacher] | None = None) -> dict[str, str]:
    """For each teacher's name its model and revision as row ids have it; without teachers, the model alone."""
    if teachers is None:
        return {name: section.model for name, section in cast(recipe).items()}
    return {
        name: f"{key(section.model)}@{teachers[name].identity['revision'][:19]}"
        for name, section in cast(recipe).items()
    }


def score_too(
    jobs: Sequence[Job],
    made: Sequence[Sequence[Made]],
    names: Sequence[str],
    ask: Callable[[list[Request]], list[Reply]],
) -> list[list[Made]]:
    """The same with the distributions of further teachers on each row's tokens; a row that cannot have them is a
    failure."""
    found = [list(some) for some in made]
    for name in names:
        rows = [(i, k, one) for i, some in enumerate(found) for k, one in enumerate(some) if isinstance(one, Row)]
        requests = [jobs[i].score_row(row.record, name) for i, _, row in rows]
        replies = ask(requests) if requests else []
        for (i, k, row), request, reply in zip(rows, requests, replies, strict=True):
            if reply.failure or reply.target is None:
                found[i][k] = failure(request, *(reply.failure or ("logits", "no distributions came back")))
            elif list(reply.token_ids) != list(row.record.token_ids or ()):
                found[i][k] = failure(request, "tokens", f"teacher '{name}' has other tokens for this text")
            else:
                more = replace(row.record, sources=[*row.record.sources, jobs[i].source("logits", name)])
                found[i][k] = Row(more, {**row.targets, name: reply.target})
    return found


def refuse_incapable(
    recipe: Recipe, teachers: Mapping[str, Teacher | RemoteTeacher], needs: Sequence[tuple[str, str]]
) -> None:
    """Raise TeacherError when a teacher cannot do what the recipe wants of it, or cannot score the tokens of another.

    `needs`: (teacher's name, capability)."""
    models = who(recipe, teachers)
    for name, model in models.items():
        first = next(other for other, same in models.items() if same == model)
        if first != name:
            raise TeacherError(f"teachers '{first}' and '{name}' are the same model", "name each model once")
    for name, wanted in needs:
        if wanted not in teachers[name].can:
            raise TeacherError(
                f"teacher '{name}' ({teachers[name].identity['engine']}) does not offer '{wanted}', which this recipe "
                "needs of it",
                "give another model or engine for it",
            )
    for name in recipe.logits.score_by if recipe.logits else ():
        for first in answerers(recipe):
            if teachers[name].identity["tokenizer"] != teachers[first].identity["tokenizer"]:
                raise TeacherError(
                    f"teachers '{first}' and '{name}' have different tokenizers: one cannot score the other's tokens",
                    "leave it out of logits.score_by, or score the finished text with strategy 'score'",
                )
