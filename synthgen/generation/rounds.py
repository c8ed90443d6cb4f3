"""Runs strategies. A strategy is a Python generator. The generator yields lists of queries, receives their replies in
the same order, and returns the job's outcomes: rows, and failures with a reason.

`lockstep` runs all jobs of a shard together, round by round. In each round, an engine that answers in batches gets the
requests of all jobs in one call. The batches depend only on the shard's jobs, so a shard that is generated again has
the same bits. For teachers that take single requests, `synthgen.generation.filling` runs each job independently.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from synthgen.logits import LogitsSpec, Target
from synthgen.records import Record, Source
from synthgen.requests import Query, Request
from synthgen.sources import source
from synthgen.teachers.base import Embeds, Reply, Teacher
from synthgen.teachers.gate import admitted


@dataclass(frozen=True)
class Row:
    """A record, and the distributions over its tokens. `targets` maps a teacher's name to its distributions."""

    record: Record
    targets: dict[str, Target] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """The outcome of a request or a job that made no row."""

    id: str
    seed_id: str
    split: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Answer:
    """The cost of a reply. If another model answered in place of the requested model, `other` is the source entry of
    the model that answered.
    """

    cost_usd: float | None
    other: Source | None = None


Outcome = Row | Failure
Rounds = Generator[list[Query], list[Reply], list[Outcome]]

Ask = Callable[[list[Request]], list[Reply]]
"""A function that answers requests. The function returns the replies in the order of the requests."""


def failure(query: Query, kind: str, reason: str) -> Failure:
    """The outcome of a query that failed. `kind` and `reason` say why the query failed."""
    return Failure(query.id, query.lineage.seed_id, query.lineage.split, kind, reason)


def unfinished(query: Query, reply: Reply) -> Failure | None:
    """The failure of a query whose reply failed or is not a finished text. None when the reply is finished.

    A step of a strategy, such as a new question or a judgment, may only use a finished reply.
    """
    if reply.failure:
        return failure(query, *reply.failure)
    if reply.finish_reason == "length":
        return failure(query, "cut", f"the reply was cut off at {_tokens(reply)} tokens: '{reply.text.strip()[:60]}'")
    if reply.finish_reason != "stop":
        return failure(query, "cut", f"the reply did not end as a finished text, but as '{reply.finish_reason}'")
    return None


def _tokens(reply: Reply) -> int:
    return len(reply.token_ids) or (reply.usage or {}).get("completion_tokens") or 0


def lockstep(jobs: Sequence[Rounds], ask: Ask) -> list[list[Outcome]]:
    """Run all jobs to their end. Returns the outcomes of each job. In each round, `ask` gets the requests of all
    unfinished jobs together.
    """
    outcomes: list[list[Outcome]] = [[] for _ in jobs]
    answers: list[list[Answer]] = [[] for _ in jobs]
    waiting: list[tuple[int, list[Query]]] = []

    def go_on(number: int, replies: list[Reply] | None) -> None:
        try:
            wanted = next(jobs[number]) if replies is None else jobs[number].send(replies)
            waiting.append((number, wanted))
        except StopIteration as done:
            outcomes[number] = settled(done.value, answers[number])

    for number in range(len(jobs)):
        go_on(number, None)
    while waiting:
        now, waiting[:] = list(waiting), []
        replies = ask([query.request for _, wanted in now for query in wanted])
        start = 0
        for number, wanted in now:
            answered = replies[start : start + len(wanted)]
            answers[number] += [answer_of(*pair) for pair in zip(wanted, answered, strict=True)]
            go_on(number, answered)
            start += len(wanted)
    return outcomes


def answer_of(query: Query, reply: Reply) -> Answer:
    """The cost of a reply, and the model that answered if it is not the model that was asked. The job's rows must state
    this cost and this model.
    """
    if reply.substitute is None:
        return Answer(reply.cost_usd)
    role = query.lineage.sources[-1]["role"] if query.lineage.sources else "generator"
    return Answer(reply.cost_usd, source(reply.substitute, role, "unknown"))


def settled(outcomes: list[Outcome], answers: Sequence[Answer]) -> list[Outcome]:
    """The outcomes of a job, with costs and sources added to its rows.

    The cost of all requests of the job is divided equally among its rows. The cost of a row is None when the cost of
    any request is unknown. A model that answered in place of the requested model is added to the sources."""
    rows = [one for one in outcomes if isinstance(one, Row)]
    found = [answer.other for answer in answers if answer.other is not None]
    others = list({str(other): other for other in found}.values()) if found else []
    if not rows or (not others and len(answers) == 1 and rows[0].record.cost_usd == answers[0].cost_usd):
        return outcomes
    known = [answer.cost_usd for answer in answers if answer.cost_usd is not None]
    share = sum(known) / len(rows) if len(known) == len(answers) else None

    def with_share(one: Outcome) -> Outcome:
        if not isinstance(one, Row):
            return one
        return replace(one, record=replace(one.record, cost_usd=share, sources=[*one.record.sources, *others]))

    return [with_share(one) for one in outcomes]


def ask_batch(
    teachers: Mapping[str, Teacher],
    spec: LogitsSpec | None,
    tick: Callable[[int], None],
    requests: Sequence[Request],
) -> list[Reply]:
    """Send requests to local teachers. Returns the replies in the order of the requests. Requests that a teacher can
    answer together are sent in one call of the teacher.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, r in enumerate(requests):
        together = (r.sampling["temperature"], r.sampling["top_p"]) if r.kind == "sample" else r.labels
        groups.setdefault((r.teacher, r.kind, r.target, together), []).append(place)
    replies: list[Reply] = [Reply()] * len(requests)
    for places in groups.values():
        group = [requests[place] for place in places]
        kept = spec if group[0].target else None
        for place, reply in zip(places, _ask_together(teachers[group[0].teacher], group, kept, tick), strict=True):
            replies[place] = admitted(requests[place], reply)
    return replies


def _ask_together(
    teacher: Teacher, requests: list[Request], spec: LogitsSpec | None, tick: Callable[[int], None]
) -> list[Reply]:
    """Send requests to one teacher in one call. All requests have the same kind."""
    kind = requests[0].kind
    if kind == "classify":
        return teacher.classify(requests)
    if kind == "embed":
        return cast(Embeds, teacher).embed(requests)
    if kind == "score":
        return teacher.score(requests, spec, tick)
    return teacher.sample(requests, spec, tick)


def score_too(
    outcomes: Sequence[Sequence[Outcome]],
    names: Sequence[str],
    queries_of: Sequence[Callable[[Record, str], Query]],
    ask: Ask,
) -> list[list[Outcome]]:
    """Request the distributions over each row's tokens from the teachers `names`, and add them to the rows.

    `outcomes` holds the outcomes of each job, and `queries_of` holds a function for each job. The function makes a
    query from a row and a teacher's name. When a teacher cannot compute the distributions for a row, a failure replaces
    the row.
    """
    scored = [list(several) for several in outcomes]
    for name in names:
        places = [(i, k) for i, several in enumerate(scored) for k in range(len(several))]
        rows = [(i, k, row) for i, k in places if isinstance(row := scored[i][k], Row)]
        queries = [queries_of[i](row.record, name) for i, _, row in rows]
        replies = ask([query.request for query in queries]) if queries else []
        for (i, k, row), query, reply in zip(rows, queries, replies, strict=True):
            scored[i][k] = _with_target(row, name, query, reply)
    return scored


def _with_target(row: Row, name: str, query: Query, reply: Reply) -> Outcome:
    if reply.failure or reply.target is None:
        return failure(query, *(reply.failure or ("logits", "the teacher returned no distributions")))
    if list(reply.token_ids) != list(row.record.token_ids or ()):
        return failure(query, "tokens", f"the tokenizer of teacher '{name}' splits this text into other tokens")
    [scorer] = [source for source in query.lineage.sources if source["role"] == "logits"]
    record = replace(row.record, sources=[*row.record.sources, scorer])
    return Row(record, {**row.targets, name: reply.target})
