"""Strategies that make new questions and ask the teacher for their answers. Templates get a new question as the
variable `question`.

- `self_instruct`: a new question in the style of some seeds (2022).
- `evolve`: the seed's question, rewritten several times (Evol-Instruct, 2023). Each rewriting uses one of the
  templates in the prompt folder that describe a method of rewriting.
- `magpie`: the question that the teacher writes at the start of an empty user turn (2024).
- `personas`: the question that a described person would ask (Persona Hub, 2024).
- `paraphrase`, `back_translation`: the seed's question in other words. The seed's reference remains correct.
- `counterfactual`: the seed's question, and this question with names and pronouns swapped. The teacher answers the
  question and its swapped form.
- `extract`: questions about a document. The document is in the prompt of each answer.
- `conversation`: a conversation of several turns. A separate template asks for the user's later turns.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from synthgen.generation.jobs import Job, fraction
from synthgen.generation.rounds import Outcome, Rounds, failure, unfinished
from synthgen.generation.strategies.questions import items, new_question
from synthgen.generation.strategies.swaps import swap
from synthgen.records import Message, Source
from synthgen.requests import Query
from synthgen.teachers.base import Reply


def self_instruct(job: Job) -> Rounds:
    """Ask for a new question in the style of examples: the questions of this seed and of other seeds of the same split.
    If the new question equals an example, the job fails.
    """
    others = job.others(job.recipe.steps.shown - 1)
    shown = [job.seed, *others]
    query = job.step(job.prompt.step("new", {"examples": [seed.fields for seed in shown]}), job.rewriter)
    sources = [one for seed in others for one in job.example_sources(seed)]
    return (yield from _new(job, query, [job.prompt.question(seed.fields) for seed in shown], sources=sources))


def personas(job: Job) -> Rounds:
    """Ask for a question that a certain person would ask. The seed describes this person. The template is `ask`."""
    return (yield from _new(job, job.step(job.prompt.step("ask", job.fields), job.rewriter), []))


def magpie(job: Job) -> Rounds:
    """Let the teacher write a question. The teacher gets a system message, rendered from the template `turn_system`,
    and the start of a user turn without text. The teacher continues this turn as the user would.
    """
    messages: list[Message] = [
        {"role": "system", "content": job.prompt.render("turn_system", job.fields)},
        {"role": "user", "content": ""},
    ]
    return (yield from _new(job, job.step(messages, job.rewriter, open_turn=True), []))


def paraphrase(job: Job) -> Rounds:
    """Ask for the question in other words."""
    query = job.step(job.prompt.step("paraphrase", job.fields), job.rewriter)
    old = [job.prompt.question(job.fields)]
    return (yield from _new(job, query, old, reference=job.seed.reference))


def back_translation(job: Job) -> Rounds:
    """Let the teacher translate the question into another language and back. The templates name the language."""
    there = job.step(job.prompt.step("translate", job.fields), job.rewriter)
    [reply] = yield [there]
    text = new_question(there, reply, [])
    if not isinstance(text, str):
        return [text]
    messages = job.prompt.step("back", {**job.fields, "translation": text})
    back = job.step(messages, job.rewriter, parents=[there.id])
    old = [job.prompt.question(job.fields)]
    return (yield from _new(job, back, old, reference=job.seed.reference))


def evolve(job: Job) -> Rounds:
    """Rewrite the question several times, and make one row for each rewritten question. When a rewriting fails, no
    further rewriting is tried, but the questions that were rewritten before become rows.
    """
    methods = job.prompt.beginning(job.setting.strategy.template_prefix)
    rewritten: list[tuple[str, list[str]]] = []
    failed: list[Outcome] = []
    parents: list[str] = []
    question = job.prompt.question(job.fields)
    known = [question]
    for turn in range(job.recipe.steps.rounds):
        point = fraction("method", job.recipe.generate.seed, job.seed.id, job.index, turn)
        messages = job.prompt.step(methods[int(point * len(methods))], {**job.fields, "question": question})
        query = job.step(messages, job.rewriter, parents=parents)
        [reply] = yield [query]
        text = new_question(query, reply, known)
        if not isinstance(text, str):
            failed.append(text)
            break
        question, parents = text, [*parents, query.id]
        known.append(text)
        rewritten.append((text, parents))
    rows = yield from _answers(job, [job.question(text, before) for text, before in rewritten])
    return [*rows, *failed]


def counterfactual(job: Job) -> Rounds:
    """Make two rows that form a group. The first row has the seed's question. In the second row, names and pronouns are
    swapped in the question and in the reference.
    """
    fields = {name: swap(value) if isinstance(value, str) else value for name, value in job.fields.items()}
    first = job.answer()
    if job.prompt.question(fields) == job.prompt.question(job.fields):
        return [failure(first, "unchanged", "the question has no name or pronoun that can be swapped")]
    reference = None if job.seed.reference is None else [swap(answer) for answer in job.seed.reference]
    second = job.answer(job.prompt.student(fields), job.prompt.teacher(fields), parents=[first.id], reference=reference)
    queries, roles = [first, second], ("original", "counterfactual")
    replies = yield queries
    return [
        failure(query, *reply.failure)
        if reply.failure
        else job.row(query, reply, scores={"counterfactual": float(place)}, group=(first.id, roles[place]))
        for place, (query, reply) in enumerate(zip(queries, replies, strict=True))
    ]


def extract(job: Job) -> Rounds:
    """Ask for questions about a document. The template `questions` asks for one question in each line. Each question
    becomes a row, and its prompt contains the document.
    """
    query = job.step(job.prompt.step("questions", job.fields), job.rewriter)
    [reply] = yield [query]
    if reply.failure:
        return [failure(query, *reply.failure)]
    questions = items(reply.text, whole=reply.finish_reason == "stop")[: job.recipe.steps.candidates]
    if not questions:
        return [failure(query, "no_question", f"no complete line in '{reply.text.strip()[:80]}'")]
    return (yield from _answers(job, [job.question(text, [query.id]) for text in questions]))


def conversation(job: Job) -> Rounds:
    """Make a conversation, and one row for each turn of the assistant. The row's completion is this turn, and the row's
    prompt is the conversation before it. All rows form one group.
    """
    student, asked, parents = job.student(), job.asked(), list[str]()
    turns: list[Message] = []
    outcomes: list[Outcome] = []
    first = ""
    for turn in range(job.recipe.steps.rounds):
        query = job.answer([*student, *turns], [*asked, *turns], parents=parents) if turns else job.answer()
        first = first or query.id
        [reply] = yield [query]
        if reply.failure:
            return [*outcomes, failure(query, *reply.failure)]
        sources = [job.source("rewriter", job.rewriter)] if turn else []
        outcomes.append(job.row(query, reply, sources=sources, group=(first, f"turn_{turn + 1}")))
        if turn + 1 == job.recipe.steps.rounds:
            break
        cut = unfinished(query, reply)
        turns = [*turns, {"role": "assistant", "content": reply.text}]
        shown = [message for message in [*student, *turns] if message["role"] != "system"]
        step = job.step(
            job.prompt.step("user_turn", {**job.fields, "conversation": shown}), job.rewriter, parents=[query.id]
        )
        if cut is not None:  # a conversation ends after a reply that was cut off
            return [*outcomes, failure(step, cut.kind, f"turn {turn + 1} is not finished: {cut.reason}")]
        [reply] = yield [step]
        text = new_question(step, reply, [str(m["content"]) for m in shown if m["role"] == "user"])
        if not isinstance(text, str):
            return [*outcomes, text]
        turns, parents = [*turns, {"role": "user", "content": text}], [*parents, query.id, step.id]
    return outcomes


def _new(
    job: Job,
    query: Query,
    known: Sequence[str],
    *,
    reference: list[str] | None = None,
    sources: Sequence[Source] = (),
) -> Rounds:
    """Send `query`, which asks for a new question, and then ask for the answer to this question."""
    [reply] = yield [query]
    text = new_question(query, reply, known)
    if not isinstance(text, str):
        return [text]
    parents = [*query.lineage.parents, query.id]
    return (yield from _answers(job, [job.question(text, parents, reference=reference)], sources))


def _answers(
    job: Job, queries: list[Query], sources: Sequence[Source] = ()
) -> Generator[list[Query], list[Reply], list[Outcome]]:
    """Send the queries, and return a row or a failure for each reply."""
    replies = (yield queries) if queries else []
    sources = [*sources, job.source("rewriter", job.rewriter)]
    return [
        failure(query, *reply.failure) if reply.failure else job.row(query, reply, sources=sources)
        for query, reply in zip(queries, replies, strict=True)
    ]
