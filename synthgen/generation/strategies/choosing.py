"""Strategies that ask several times, or several teachers, and keep what is best.

- `rationalize`: a wrong answer is asked again with the right one as a hint; the rationale is kept if it leads there.
- `vote`: the answer of the majority; asking stops when the lead cannot be overtaken.
- `best_of_n`: the best of several completions, by a judge or another reward.
- `preference`: the best and the worst of several completions: two rows with the same parents.
- `consensus`: the answer that most of the recipe's teachers give.
- `disagreement`: every teacher's answer, where they differ.

A reply that cannot be read (no answer, no mark) is a failure with a reason; nothing is guessed in its place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Sequence

from synthgen.generation.jobs import Job
from synthgen.generation.rounds import Made, Rounds, failure
from synthgen.requests import Request
from synthgen.teachers.base import Reply
from synthgen.verify import is_number, matches_any, normalize, number

Asked = tuple[Request, Reply]

_WORST, _BEST = 1, 10  # marks
_MARK = re.compile(r"(?<![\w.-])(\d+(?:\.\d+)?)(?:\s*/\s*10|\s+out of 10)?(?!\w)")
_YES_NO = ("yes", "no")


def rationalize(job: Job) -> Rounds:
    """STaR (2022): the student's prompt never shows the hint; a rationale that misses the known answer is a failure."""
    known = job.seed.reference
    first = job.answer()
    if known is None:
        return [failure(first, "no_reference", "the seed has no known answer to rationalize")]
    [reply] = yield [first]
    if reply.failure:
        return [failure(first, *reply.failure)]
    if matches_any(job.answer_of(reply), known):
        return [job.row(first, reply, scores={"rationalized": 0.0})]
    hinted = job.prompt.teacher({**job.fields, "answer": known[0]}, "hint")
    second = job.answer(job.student(), hinted, parents=[first.id], reference=known)
    [reply] = yield [second]
    if reply.failure:
        return [failure(second, *reply.failure)]
    answer = job.answer_of(reply)
    if not matches_any(answer, known):
        said = f"'{answer[:60]}'" if answer else "no answer"
        return [failure(second, "not_led", f"with the hint '{known[0][:60]}' the rationale still leads to {said}")]
    return [job.row(second, reply, scores={"rationalized": 1.0})]


def vote(job: Job) -> Rounds:
    """Self-consistency (2022), asking no more than it needs: each round asks the fewest that could settle it."""
    most = job.recipe.steps.candidates
    asked: list[Asked] = []
    while True:
        (_, lead), (_, second) = _two_best(job, asked)
        left = most - len(asked)
        if not left or lead > second + left:
            break
        fewest = min(left, (second + left - lead) // 2 + 1)
        start = job.index * most + len(asked)
        requests = [job.answer(number=start + n) for n in range(fewest)]
        replies = yield requests
        asked += zip(requests, replies, strict=True)
    return _elected(job, asked)


def consensus(job: Job) -> Rounds:
    """One vote a teacher; the row is that of the first teacher who is of the majority."""
    requests = [job.answer(teacher=name) for name in job.who]
    replies = yield requests
    return _elected(job, list(zip(requests, replies, strict=True)))


def disagreement(job: Job) -> Rounds:
    """A row for each teacher where not all give the same answer; `agreement` is the share of the largest party."""
    requests = [job.answer(teacher=name) for name in job.who]
    replies = yield requests
    asked = list(zip(requests, replies, strict=True))
    failed: list[Made] = [failure(q, *r.failure) for q, r in asked if r.failure]
    if failed:
        return failed
    parties = Counter(_party(job.answer_of(r)) for _, r in asked)
    if len(parties) == 1:
        return [failure(requests[0], "agreed", "all teachers give the same answer")]
    scores = {"agreement": max(parties.values()) / len(asked)}
    return [job.row(q, r, scores=scores, parents=[o.id for o in requests if o.id != q.id]) for q, r in asked]


def best_of_n(job: Job) -> Rounds:
    """The completion with the highest reward; the first of equals."""
    marked, failed, others = yield from _marked(job)
    if not marked:
        return failed
    (request, reply), reward = max(marked, key=lambda m: m[1])
    parents = [i for i in others if i != request.id]
    sources = _judge_sources(job)
    return [job.row(request, reply, scores={"reward": reward}, parents=parents, sources=sources), *failed]


def preference(job: Job) -> Rounds:
    """Two rows with equal `parents` and seed: score `preference` 1 is the chosen one, 0 the rejected one."""
    marked, failed, others = yield from _marked(job)
    if not marked:
        return failed
    best, worst = max(marked, key=lambda m: m[1]), min(marked, key=lambda m: m[1])
    if best[1] == worst[1] or best[0][1].text.strip() == worst[0][1].text.strip():
        return [failure(best[0][0], "no_preference", f"no completion is better than another ({best[1]:g})"), *failed]
    rows = [
        job.row(*one, scores={"preference": value, "reward": reward}, parents=others, sources=_judge_sources(job))
        for (one, reward), value in ((best, 1.0), (worst, 0.0))
    ]
    return [*rows, *failed]


def _two_best(job: Job, asked: Sequence[Asked]) -> tuple[tuple[str, int], tuple[str, int]]:
    """The two largest parties among the readable answers, with their votes."""
    parties = Counter(_party(job.answer_of(r)) for _, r in asked if not r.failure and job.answer_of(r))
    first, second, *_ = [*parties.most_common(2), ("", 0), ("", 0)]
    return first, second


def _party(answer: str | None) -> str:
    """Answers of one party say the same: numbers by value, anything else by its words."""
    if not answer:
        return ""
    bare = re.sub(r"[$%,.\s]+$", "", answer)
    return str(number(bare)) if is_number(bare) else normalize(answer)


def _elected(job: Job, asked: Sequence[Asked]) -> list[Made]:
    """The first row of the majority, with `agreement`: its share of all that were asked."""
    (winner, lead), (_, second) = _two_best(job, asked)
    if not lead:
        failed: list[Made] = [failure(q, *r.failure) for q, r in asked if r.failure]
        return failed or [failure(asked[0][0], "no_answer", f"none of {len(asked)} completions has an answer")]
    if lead == second:
        return [failure(asked[0][0], "tie", f"two answers have {lead} of {len(asked)} votes each")]
    request, reply = next((q, r) for q, r in asked if not r.failure and _party(job.answer_of(r)) == winner)
    scores = {"agreement": lead / len(asked), "votes": len(asked)}
    return [job.row(request, reply, scores=scores, parents=[q.id for q, _ in asked if q is not request])]


Marked = tuple[list[tuple[Asked, float]], list[Made], list[str]]


def _marked(job: Job) -> Generator[list[Request], list[Reply], Marked]:
    """Completions with their rewards, the failures on the way, and the ids of all that was asked."""
    most = job.recipe.steps.candidates
    requests = [job.answer(number=job.index * most + n) for n in range(most)]
    replies = yield requests
    asked = [(q, r) for q, r in zip(requests, replies, strict=True) if not r.failure]
    failed: list[Made] = [failure(q, *r.failure) for q, r in zip(requests, replies, strict=True) if r.failure]
    if job.recipe.steps.choose == "reference":
        known = job.seed.reference
        if known is None:
            return [], [failure(requests[0], "no_reference", "the seed has no known answer to go by")], []
        return [(a, float(matches_any(job.answer_of(a[1]), known))) for a in asked], failed, [q.id for q in requests]
    judging = [_judging(job, q, r) for q, r in asked]
    verdicts = (yield judging) if judging else []
    marked = []
    for one, ask, verdict in zip(asked, judging, verdicts, strict=True):
        reward = None if verdict.failure else _reward(ask, verdict)
        if reward is not None:
            marked.append((one, reward))
        elif verdict.failure:
            failed.append(failure(ask, *verdict.failure))
        else:
            failed.append(failure(ask, "judge", f"no mark from {_WORST} to {_BEST} in '{verdict.text.strip()[:80]}'"))
    return marked, failed, [q.id for q in (*requests, *judging)]


def _judging(job: Job, request: Request, reply: Reply) -> Request:
    if job.recipe.steps.choose == "likelihood":
        return job.score(request.teacher_prompt, reply.text, reply.token_ids, job.judge, parents=(request.id,))
    asked = request.prompt[-1]["content"]
    shown = {
        **job.fields,
        "question": asked,
        "completion": reply.text,
        "reference": job.seed.reference[0] if job.seed.reference else None,
    }
    messages = job.prompt.step("judge", shown)
    if job.recipe.steps.choose == "probability":
        return job.classify(messages, _YES_NO, job.judge, parents=(request.id,))
    return job.step(messages, job.judge, greedy=True, parents=(request.id,))


def _reward(asked: Request, verdict: Reply) -> float | None:
    if asked.kind == "score":
        said = verdict.token_logprobs or [0.0]
        return sum(said) / len(said)
    if asked.kind == "classify":
        return float((verdict.label_probs or [0.0])[0])
    return mark(verdict.text)


def mark(text: str) -> float | None:
    """The mark that a judge gives: the one number, 1 to 10, in the first line that has any; None when it is not so."""
    for line in text.splitlines():
        found = _MARK.findall(line)
        if found:
            value = float(found[0])
            return value if len(found) == 1 and _WORST <= value <= _BEST else None
    return None


def _judge_sources(job: Job) -> list[dict[str, object]]:
    return [] if job.recipe.steps.choose == "reference" else [job.source("judge", job.judge)]
