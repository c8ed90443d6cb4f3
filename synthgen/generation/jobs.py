"""Jobs. A job is one seed with one sample index. The methods of a job build the queries of a strategy and make rows
from the replies.

Jobs are ordered by split, then by seed, then by sample index. A job is built only when it is needed, so memory does not
grow with the number of jobs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from synthgen.generation import casting
from synthgen.generation.rounds import Row
from synthgen.generation.rows import record, split_rationale
from synthgen.generation.setting import LeftOut, Setting
from synthgen.prompts import Prompt
from synthgen.recipe import Recipe
from synthgen.records import Message, Record, Sampling, Source
from synthgen.requests import Lineage, Query, Request, identify
from synthgen.seeds import Seed
from synthgen.sources import own_license, stated_sources
from synthgen.tables.engines import ENGINES
from synthgen.teachers.base import Reply


@dataclass(frozen=True)
class Job:
    """One seed with one sample `index`. `shared` holds messages that all jobs of one seed share, so that they are
    rendered only once.
    """

    setting: Setting
    seed: Seed
    index: int
    shared: dict[str, list[Message]] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.setting.recipe

    @property
    def prompt(self) -> Prompt:
        """The templates."""
        return self.setting.prompt

    @property
    def left_out(self) -> bool:
        """Whether the job's seed, or something that all jobs use, was removed from the run."""
        return self.setting.left_out or self.setting.removed.has_seed(self.seed.id, self.seed.source.source)

    @property
    def fields(self) -> dict[str, object]:
        """The seed's template variables."""
        return self.seed.fields

    @property
    def teacher(self) -> str:
        """Name of the teacher that answers this seed. If the recipe has a mixture, the teacher is drawn with the
        mixture's weights. The draw depends only on the seed's id and `generate.seed`.
        """
        names = self.setting.answerers
        weights = self.recipe.mixture
        if len(names) == 1 or not weights:
            return names[0]
        point = fraction("mixture", self.recipe.generate.seed, self.seed.id) * sum(weights.values())
        for name, weight in weights.items():
            point -= weight
            if point < 0:
                return name
        return names[-1]

    @property
    def judge(self) -> str:
        """Name of the teacher that acts as judge."""
        return casting.judge(self.recipe)

    @property
    def rewriter(self) -> str:
        """Name of the teacher that writes new questions."""
        return self.recipe.steps.rewriter or self.teacher

    def student(self) -> list[Message]:
        """The student's prompt for the seed's own question."""
        question = self.seed.question if self.setting.shows_user else None
        return self._once("student", lambda: self.prompt.student(self.fields, question))

    def asked(self) -> list[Message]:
        """The teacher's prompt for the seed's own question."""
        if self.prompt.alike:
            return self.student()
        return self._once("asked", lambda: self.prompt.teacher(self.fields))

    def _once(self, name: str, render: Callable[[], list[Message]]) -> list[Message]:
        if name not in self.shared:
            self.shared[name] = render()
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
    ) -> Query:
        """A query whose reply can become a row. `student` is the row's prompt, and `asked` is the prompt that the
        teacher gets. By default, both prompts ask the seed's own question. `number` is the sample index, which is the
        job's index by default.
        """
        generate = self.recipe.generate
        sampling: Sampling = {
            "temperature": generate.temperature,
            "top_p": generate.top_p,
            "max_new_tokens": generate.max_new_tokens,
            "seed": generate.seed,
            "sample_index": self.index if number is None else number,
        }
        name = teacher or self.teacher
        tools = self.fields.get("tools") if ENGINES[self.setting.sections[name].engine].sends_tools else None
        request = Request(
            "sample",
            asked or self.asked(),
            sampling,
            tools=tuple(tools) if isinstance(tools, list) else (),
            teacher=name,
        )
        return self._query(
            request,
            prompt=student or self.student(),
            parents=parents,
            reference=self.seed.reference if student is None else reference,
        )

    def question(self, text: str, parents: Sequence[str], *, reference: list[str] | None = None) -> Query:
        """A query for the answer to the new question `text`. Templates get `text` as the variable `question`."""
        fields = {**self.fields, "question": text}
        return self.answer(
            self.prompt.student(fields), self.prompt.teacher(fields), parents=parents, reference=reference
        )

    def step(
        self,
        messages: list[Message],
        teacher: str,
        *,
        greedy: bool = False,
        open_turn: bool = False,
        parents: Sequence[str] = (),
    ) -> Query:
        """A query for an intermediate step of a strategy, such as a rewritten question or a judgment. The strategy uses
        only the text of the reply. The reply does not become a row, and no distributions are stored.
        """
        steps, generate = self.recipe.steps, self.recipe.generate
        sampling: Sampling = {
            "temperature": 0.0 if greedy else steps.temperature,
            "top_p": generate.top_p,
            "max_new_tokens": steps.max_new_tokens,
            "seed": generate.seed,
            "sample_index": self.index,
        }
        request = Request("sample", messages, sampling, open_turn=open_turn, target=False, teacher=teacher)
        return self._query(request, parents=parents)

    def classify(
        self,
        asked: Sequence[Message],
        labels: tuple[str, ...],
        teacher: str,
        *,
        prompt: list[Message] | None = None,
        parents: Sequence[str] = (),
    ) -> Query:
        """A query for the probabilities of labels. A language model gets the messages `asked`. A model with a
        classification head gets only the text of the last message of `prompt`.
        """
        text = str(prompt[-1]["content"]) if prompt else ""
        request = Request("classify", asked, self._greedy(), labels=labels, text=text, teacher=teacher)
        return self._query(request, prompt=prompt, parents=parents, reference=self.seed.reference if prompt else None)

    def embed(self, asked: list[Message], teacher: str) -> Query:
        """A query for the embedding of a text."""
        return self._query(Request("embed", asked, self._greedy(), teacher=teacher))

    def score(
        self,
        asked: Sequence[Message],
        completion: str,
        token_ids: Sequence[int],
        teacher: str,
        *,
        prompt: list[Message] | None = None,
        parents: Sequence[str] = (),
        target: bool = False,
        role: str = "generator",
    ) -> Query:
        """A query for the log-probabilities of a completion's tokens. When the completion comes from the seed and
        becomes a row, `prompt` is the row's prompt. Otherwise `prompt` is None.
        """
        request = Request(
            "score",
            asked,
            self._greedy(),
            completion=({"role": "assistant", "content": completion},),
            completion_ids=tuple(token_ids),
            target=target,
            teacher=teacher,
        )
        reference = self.seed.reference if prompt else None
        return self._query(request, prompt=prompt, parents=parents, reference=reference, role=role)

    def score_row(self, row: Record, teacher: str) -> Query:
        """A query for the distributions of another teacher over the tokens of a row."""
        asked = row.teacher_prompt or row.prompt
        return self.score(asked, row.text, row.token_ids or (), teacher, target=True, parents=(row.id,), role="logits")

    def _greedy(self) -> Sampling:
        seed = self.recipe.generate.seed
        return {"temperature": None, "top_p": None, "max_new_tokens": 0, "seed": seed, "sample_index": 0}

    def _query(
        self,
        request: Request,
        *,
        prompt: list[Message] | None = None,
        parents: Sequence[str] = (),
        reference: list[str] | None = None,
        role: str = "generator",
    ) -> Query:
        setting = self.setting
        lineage = Lineage(
            self.seed.id,
            self.seed.split,
            request.messages if prompt is None else prompt,
            (*setting.seed_sources(self.seed), *setting.template_sources, setting.source(role, request.teacher)),
            reference,
            tuple(parents),
        )
        if setting.identified:
            request = request._replace(id=identify(request, lineage, setting.versions[request.teacher]))
        if setting.removed and setting.removed.has_row(request.id, self.seed.id, lineage.sources, parents):
            raise LeftOut
        return Query(request, lineage)

    def source(self, role: str, teacher: str) -> Source:
        """The entry for `teacher` in a row's sources, with the given role."""
        return self.setting.source(role, teacher)

    def example_sources(self, seed: Seed) -> list[Source]:
        """The entries in a row's sources for a seed that is used as an example, and for the model that wrote the seed.
        The name of the example contains the seed's id.
        """
        return stated_sources(seed.source, f"{seed.source.source}#{seed.id}", "few_shot", own_license(seed.fields))

    def others(self, count: int) -> list[Seed]:
        """Draw `count` seeds of the split that this job's seed is in; the job's own seed is left out. The draw depends
        only on `generate.seed`, the ids of the seeds and the sample index. The draw therefore does not change when a
        seed is removed. A job that draws a removed seed is left out.
        """
        seeds, generate, removed = self.setting.seeds, self.recipe.generate, self.setting.removed
        drawn = seeds.nearest(
            self.seed.split,
            count,
            lambda seed_id: fraction("shown", generate.seed, self.seed.id, self.index, seed_id),
            without=self.seed.id,
        )
        if removed and any(removed.has_seed(seed.id, seed.source.source) for seed in drawn):
            raise LeftOut
        return drawn

    def answer_of(self, reply: Reply) -> str | None:
        """The answer in a reply. If the recipe has an answer marker, the answer is the first line after the marker, or
        None when the reply does not contain the marker. If the recipe has no answer marker, the answer is the whole
        text, or None when the text is empty.
        """
        marker = self.recipe.generate.answer_marker
        return split_rationale(reply.text, marker)[1] if marker else reply.text.strip() or None

    def row(
        self,
        query: Query,
        reply: Reply,
        *,
        scores: Mapping[str, float] | None = None,
        sources: Sequence[Source] = (),
        parents: Sequence[str] | None = None,
        group: tuple[str, str] | None = None,
    ) -> Row:
        """The row of a successful reply. `sources` are added to the query's sources. If `parents` is given, it replaces
        the query's parents. `group` is (id of the row's group, the row's role in the group, such as 'chosen').
        """
        lineage = query.lineage
        if sources or parents is not None or group:
            lineage = lineage._replace(
                sources=(*lineage.sources, *sources),
                parents=lineage.parents if parents is None else tuple(parents),
                group_id=group[0] if group else None,
                pair_role=group[1] if group else None,
            )
            query = Query(query.request, lineage)
        made = record(self.recipe, query, reply, self.prompt, scores or {})
        return Row(made, {query.request.teacher: reply.target} if reply.target is not None else {})


def fraction(*parts: object) -> float:
    """A number in [0, 1) that depends only on the arguments."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


class Jobs:
    """All jobs of a recipe. A job is identified by its index, and is built when it is requested. `counts` holds the
    number of jobs of each split.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.places = setting.seeds.places()
        self.each = setting.recipe.generate.num_generations if setting.strategy.several_samples else 1
        self.counts = {split: count * self.each for split, count in setting.seeds.counts.items()}

    def __len__(self) -> int:
        return len(self.places) * self.each

    def range(self, start: int, stop: int) -> list[Job]:
        """The jobs from index `start` up to, but not including, `stop`."""
        return list(self.one_by_one(start, stop))

    def one_by_one(self, start: int = 0, stop: int | None = None) -> Iterator[Job]:
        """Yield the jobs from index `start` up to, but not including, `stop`. The default is all jobs. Each job is
        built when it is requested.
        """
        last: Job | None = None
        for place in range(start, len(self) if stop is None else min(stop, len(self))):
            index = place % self.each
            if last is None or not index:
                last = Job(self.setting, self.setting.seeds[int(self.places[place // self.each])], index)
            else:
                last = Job(self.setting, last.seed, index, last.shared)
            yield last
