"""Strategies that make new questions, and then have them answered. The new text is the templates' `question`.

- `self_instruct`: a new question in the manner of some seeds (2022).
- `evolve`: a question rewritten several times, each time by one of the folder's methods (Evol-Instruct, 2023).
- `magpie`: the question that the teacher itself writes where a user's turn begins (2024).
- `personas`: the question that a described person would ask (Persona Hub, 2024).
- `paraphrase`, `back_translation`: the same question in other words; the known answer still holds.
- `counterfactual`: names and pronouns swapped; both versions are answered.
- `extract`: questions about a document, answered from it.
- `conversation`: several turns; the user's by a template of their own.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from typing import Any

from synthgen.generation.jobs import Job, fraction
from synthgen.generation.rounds import Failure, Made, Rounds, failure
from synthgen.generation.strategies.swaps import swap
from synthgen.prompts import Prompt
from synthgen.records import Message
from synthgen.requests import Request
from synthgen.teachers.base import Reply
from synthgen.verify import normalize

METHOD = "evolve_"  # templates of the methods of `evolve` begin so
_QUOTES = re.compile(r'^(["“\'«])(.*)(["”\'»])$', re.DOTALL)
_ITEM = re.compile(r"^\s*(?:[-*•]|\(?\d{1,2}[.):]|Q\d*[.:)])\s*")


def self_instruct(job: Job) -> Rounds:
    """The row's own seed and others of its side are shown; a copy of one of them is a failure."""
    others = [s for s in job.pool if s.id != job.seed.id]
    others.sort(key=lambda s: fraction("shown", job.recipe.generate.seed, job.seed.id, job.index, s.id))
    shown = [job.seed, *others[: job.recipe.steps.shown - 1]]
    request = job.step(job.prompt.step("new", {"examples": [s.fields for s in shown]}), job.rewriter)
    sources = [job.seed_source("few_shot", seed) for seed in shown[1:]]
    return (yield from _new(job, request, [job.prompt.question(s.fields) for s in shown], sources=sources))


def personas(job: Job) -> Rounds:
    """The seed describes a person; template `ask` has the teacher write what they would ask."""
    return (yield from _new(job, job.step(job.prompt.step("ask", job.fields), job.rewriter), []))


def magpie(job: Job) -> Rounds:
    """Under the system message of template turn_system, the user's turn is opened and left to the model."""
    said: list[Message] = [
        {"role": "system", "content": job.prompt.text("turn_system", job.fields)},
        {"role": "user", "content": ""},
    ]
    return (yield from _new(job, job.step(said, job.rewriter, open_turn=True), []))


def paraphrase(job: Job) -> Rounds:
    """The question in other words."""
    request = job.step(job.prompt.step("paraphrase", job.fields), job.rewriter)
    old = [job.prompt.question(job.fields)]
    return (yield from _new(job, request, old, reference=job.seed.reference))


def back_translation(job: Job) -> Rounds:
    """The question into another language and back; the templates name the language."""
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
    """One row for every rewriting; a rewriting that fails ends the chain, and what came before it stays."""
    names = methods(job.prompt)
    found: list[tuple[str, list[str]]] = []
    made: list[Made] = []
    parents: list[str] = []
    question = job.prompt.question(job.fields)
    known = [question]
    for turn in range(job.recipe.steps.rounds):
        point = fraction("method", job.recipe.generate.seed, job.seed.id, job.index, turn)
        messages = job.prompt.step(names[int(point * len(names))], {**job.fields, "question": question})
        request = job.step(messages, job.rewriter, parents=parents)
        [reply] = yield [request]
        text = new_question(request, reply, known)
        if not isinstance(text, str):
            made.append(text)
            break
        question, parents = text, [*parents, request.id]
        known.append(text)
        found.append((text, parents))
    rows = yield from _answers(job, [job.question(text, before) for text, before in found])
    return [*rows, *made]


def counterfactual(job: Job) -> Rounds:
    """Two rows: the question as it is, and with names and pronouns swapped, in the known answer as well."""
    fields = {name: swap(value) if isinstance(value, str) else value for name, value in job.fields.items()}
    first = job.answer()
    if job.prompt.question(fields) == job.prompt.question(job.fields):
        return [failure(first, "unchanged", "the question has no name or pronoun of the list")]
    reference = None if job.seed.reference is None else [swap(one) for one in job.seed.reference]
    second = job.answer(job.prompt.student(fields), job.prompt.teacher(fields), parents=[first.id], reference=reference)
    requests = [first, second]
    replies = yield requests
    return [
        failure(q, *r.failure) if r.failure else job.row(q, r, scores={"counterfactual": float(place)})
        for place, (q, r) in enumerate(zip(requests, replies, strict=True))
    ]


def extract(job: Job) -> Rounds:
    """Template `questions` has the teacher list questions, one a line; each is answered with the document at hand."""
    request = job.step(job.prompt.step("questions", job.fields), job.rewriter)
    [reply] = yield [request]
    if reply.failure:
        return [failure(request, *reply.failure)]
    questions = items(reply.text, whole=reply.finish_reason != "length")[: job.recipe.steps.candidates]
    if not questions:
        return [failure(request, "no_question", f"no whole line in '{reply.text.strip()[:80]}'")]
    return (yield from _answers(job, [job.question(text, [request.id]) for text in questions]))


def conversation(job: Job) -> Rounds:
    """One row for every turn of the assistant: its prompt is the conversation so far."""
    student, asked, parents = job.student(), job.asked(), list[str]()
    said: list[Message] = []
    made: list[Made] = []
    for turn in range(job.recipe.steps.rounds):
        request = job.answer([*student, *said], [*asked, *said], parents=parents) if said else job.answer()
        [reply] = yield [request]
        if reply.failure:
            return [*made, failure(request, *reply.failure)]
        made.append(job.row(request, reply, sources=[job.source("rewriter", job.rewriter)] if turn else []))
        if turn + 1 == job.recipe.steps.rounds:
            break
        said = [*said, {"role": "assistant", "content": reply.text}]
        shown = [m for m in [*student, *said] if m["role"] != "system"]
        step = job.step(
            job.prompt.step("user_turn", {**job.fields, "conversation": shown}), job.rewriter, parents=[request.id]
        )
        [reply] = yield [step]
        text = new_question(step, reply, [m["content"] for m in shown if m["role"] == "user"])
        if not isinstance(text, str):
            return [*made, text]
        said, parents = [*said, {"role": "user", "content": text}], [*parents, request.id, step.id]
    return made


def methods(prompt: Prompt) -> list[str]:
    """Names of the templates that `evolve` rewrites with."""
    return sorted(name for name in prompt.templates if name.startswith(METHOD) and not name.endswith("_system"))


def _new(
    job: Job,
    request: Request,
    known: Sequence[str],
    *,
    reference: list[str] | None = None,
    sources: Sequence[dict[str, Any]] = (),
) -> Rounds:
    """Ask for a new question, then for its answer."""
    [reply] = yield [request]
    text = new_question(request, reply, known)
    if not isinstance(text, str):
        return [text]
    parents = [*request.parents, request.id]
    return (yield from _answers(job, [job.question(text, parents, reference=reference)], sources))


def _answers(
    job: Job, requests: list[Request], sources: Sequence[dict[str, Any]] = ()
) -> Generator[list[Request], list[Reply], list[Made]]:
    """The rows of requests for new questions."""
    replies = (yield requests) if requests else []
    more = [*sources, job.source("rewriter", job.rewriter)]
    return [
        failure(q, *r.failure) if r.failure else job.row(q, r, sources=more)
        for q, r in zip(requests, replies, strict=True)
    ]


def new_question(request: Request, reply: Reply, known: Sequence[str]) -> str | Failure:
    """The text of a new question; a Failure when it is missing, cut off, or one of those already known."""
    if reply.failure:
        return failure(request, *reply.failure)
    text = reply.text.strip()
    quoted = _QUOTES.match(text)
    text = quoted.group(2).strip() if quoted else text
    if not text:
        return failure(request, "empty", "the new question is empty")
    if reply.finish_reason == "length":
        return failure(request, "cut", f"the new question was cut off at {len(reply.token_ids)} tokens")
    if normalize(text) in {normalize(old) for old in known}:
        return failure(request, "unchanged", f"the new question is an old one: '{text[:80]}'")
    return text


def items(text: str, *, whole: bool = True) -> list[str]:
    """Lines of a list without their bullets and numbers, each once; the last line of a cut text is left out."""
    lines = text.strip().split("\n")
    lines = lines if whole else lines[:-1]
    found = {normalize(line): line for line in reversed([_ITEM.sub("", line).strip() for line in lines])}
    return list(reversed([line for key, line in found.items() if key]))
