"""Running strategies. A strategy is a generator: it yields lists of requests, is sent their replies in the same
order, and returns what it made: rows, and failures with a reason.

`lockstep` runs all jobs of a shard side by side, round by round, so that a batch engine gets one large call a
round: its batches depend on the shard's jobs alone, and a shard made again is the same bits. Teachers that take
requests one at a time run each job by itself: `synthgen.generation.remote`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from synthgen.logits import Target
from synthgen.records import Record
from synthgen.requests import Request
from synthgen.teachers.base import Embeds, Reply, Teacher


@dataclass(frozen=True)
class Row:
    """A record, and by the name of each teacher that has spoken of its tokens the distributions."""

    record: Record
    targets: dict[str, Target] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """What came of a request, or of a job, instead of a row."""

    id: str
    seed_id: str
    split: str
    kind: str
    reason: str


Made = Row | Failure
Rounds = Generator[list[Request], list[Reply], list[Made]]


def failure(request: Request, kind: str, reason: str) -> Failure:
    """The failure of a request."""
    return Failure(request.id, request.seed_id, request.split, kind, reason)


def lockstep(jobs: Sequence[Rounds], ask: Callable[[list[Request]], list[Reply]]) -> list[list[Made]]:
    """What each job made; `ask` answers the requests of all jobs of a round, in their order."""
    made: list[list[Made]] = [[] for _ in jobs]
    costs: list[list[float | None]] = [[] for _ in jobs]
    waiting: list[tuple[int, list[Request]]] = []

    def go_on(number: int, replies: list[Reply] | None) -> None:
        try:
            wanted = next(jobs[number]) if replies is None else jobs[number].send(replies)
            waiting.append((number, wanted))
        except StopIteration as done:
            made[number] = costed(done.value, costs[number])

    for number in range(len(jobs)):
        go_on(number, None)
    while waiting:
        now, waiting[:] = list(waiting), []
        replies = ask([request for _, wanted in now for request in wanted])
        start = 0
        for number, wanted in now:
            some = replies[start : start + len(wanted)]
            costs[number] += [reply.cost_usd for reply in some]
            go_on(number, some)
            start += len(wanted)
    return made


def costed(made: list[Made], costs: Sequence[float | None]) -> list[Made]:
    """A job's rows with what all its requests cost, in equal shares; None where the price of one is unknown."""
    rows = [one for one in made if isinstance(one, Row)]
    if not rows or (len(costs) == 1 and rows[0].record.cost_usd == costs[0]):
        return made
    known = [cost for cost in costs if cost is not None]
    share = sum(known) / len(rows) if len(known) == len(costs) else None
    return [replace(one, record=replace(one.record, cost_usd=share)) if isinstance(one, Row) else one for one in made]


def ask_batch(
    teachers: Mapping[str, Teacher],
    spec: dict[str, Any] | None,
    tick: Callable[[int], None],
    requests: Sequence[Request],
) -> list[Reply]:
    """Replies in order; one call of an engine for each group of requests that it can answer together."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, r in enumerate(requests):
        together = (r.sampling["temperature"], r.sampling["top_p"]) if r.kind == "sample" else r.labels
        groups.setdefault((r.teacher, r.kind, r.target, together), []).append(place)
    replies: list[Reply] = [Reply()] * len(requests)
    for (name, kind, target, _), places in groups.items():
        some = [requests[place] for place in places]
        if kind == "classify":
            found = teachers[name].classify(some)
        elif kind == "embed":
            found = cast(Embeds, teachers[name]).embed(some)
        elif kind == "score":
            found = teachers[name].score(some, spec if target else None, tick)
        else:
            found = teachers[name].sample(some, spec if target else None, tick)
        for place, reply in zip(places, found, strict=True):
            replies[place] = reply
    return replies
