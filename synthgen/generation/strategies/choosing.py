"""Strategies that request several replies, from one or several teachers, and choose which replies become rows.

- `rationalize`: a completion whose answer equals the reference. After a wrong answer, the question is asked again with
  the reference as a hint.
- `vote`: a completion with the most frequent answer among several samples. Sampling stops when no other answer can
  become as frequent.
- `classify_votes`: a completion with the most frequent label among several samples. The row's label probabilities are
  the shares of the labels among the samples that give a label.
- `best_of_n`: the best of several completions, according to a judge or another reward.
- `preference`: the best and the worst of several completions, as two rows of one group, `chosen` and `rejected`.
- `consensus`: a completion with the most frequent answer among the answers of the recipe's teachers.
- `disagreement`: the completions of all teachers, but only when their answers differ.

When no score can be read from a judge's reply, the outcome is a failure with a reason. A score is never guessed. A
reply that was cut off has no vote and is not a candidate, because its answer or its end is unknown.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

from synthgen.generation.jobs import Job
from synthgen.generation.rounds import Outcome, Rounds, failure, unfinished
from synthgen.generation.strategies.marks import BEST, WORST, mark
from synthgen.records import Source
from synthgen.requests import Query
from synthgen.tables.strategies import REWARDS
from synthgen.teachers.base import Reply
from synthgen.verify import matches_any, party

Asked = tuple[Query, Reply]

_YES_NO = ("Yes", "No")  # local teachers count only answers that begin with this spelling


def rationalize(job: Job) -> Rounds:
    """STaR (2022): after a wrong answer, ask again with the reference as a hint. The row's prompt does not contain the
    hint. The job fails when the answer of the second completion is also wrong.
    """
    known = job.seed.reference
    first = job.answer()
    if known is None:
        return [failure(first, "no_reference", "the seed has no reference, so there is no answer to explain")]
    [reply] = yield [first]
    if reply.failure:
        return [failure(first, *reply.failure)]
    if not unfinished(first, reply) and matches_any(job.answer_of(reply), known):
        return [job.row(first, reply, scores={"rationalized": 0.0})]
    hinted = job.prompt.teacher({**job.fields, "answer": known[0]}, "hint")
    second = job.answer(job.student(), hinted, parents=[first.id], reference=known)
    [reply] = yield [second]
    if (failed := unfinished(second, reply)) is not None:
        return [failed]
    answer = job.answer_of(reply)
    if not matches_any(answer, known):
        said = f"'{answer[:60]}'" if answer else "no answer"
        return [failure(second, "not_led", f"the hint was '{known[0][:60]}', but the rationale leads to {said}")]
    return [job.row(second, reply, scores={"rationalized": 1.0})]


def vote(job: Job) -> Rounds:
    """Self-consistency (2022) with early stopping. Each round requests the smallest number of further samples that
    could decide the vote.
    """
    most = job.recipe.steps.candidates
    asked: list[Asked] = []
    while True:
        (_, lead), (_, second) = _two_best(job, asked)
        left = most - len(asked)
        if not left or lead > second + left:
            break
        fewest = min(left, (second + left - lead) // 2 + 1)
        start = job.index * most + len(asked)
        queries = [job.answer(number=start + n) for n in range(fewest)]
        replies = yield queries
        asked += zip(queries, replies, strict=True)
    return _elected(job, asked)


def classify_votes(job: Job) -> Rounds:
    """Ask `steps.candidates` times for one of the recipe's labels. The shares of the labels among the replies that give
    a label are unbiased estimates of the teacher's label probabilities at the sampling temperature. A reply votes for a
    label only if the label is its whole answer. The job fails when fewer than half of the replies give a label.
    """
    labels, most = job.recipe.generate.labels, job.recipe.steps.candidates
    queries = [job.answer(number=job.index * most + n) for n in range(most)]
    replies = yield queries
    asked = list(zip(queries, replies, strict=True))
    places = {_party(label): place for place, label in enumerate(labels)}
    votes = [
        (places[_party(job.answer_of(reply))], query, reply)
        for query, reply in asked
        if not unfinished(query, reply) and _party(job.answer_of(reply)) in places
    ]
    if 2 * len(votes) < most:
        reason = f"{most - len(votes)} of {most} replies are not one of the labels"
        return [*_failures(asked), failure(queries[0], "schema", reason)]
    counts = Counter(place for place, _, _ in votes)
    winner, lead = max(counts.items(), key=lambda item: (item[1], -item[0]))
    query, reply = next((query, reply) for place, query, reply in votes if place == winner)
    shares = [counts[place] / len(votes) for place in range(len(labels))]
    chosen = replace(reply, label_probs=shares, answer=labels[winner])
    scores = {"agreement": lead / len(votes), "votes": len(votes)}
    return [job.row(query, chosen, scores=scores, parents=[q.id for q in queries if q is not query])]


def consensus(job: Job) -> Rounds:
    """Ask every teacher. Each teacher has one vote. The row is the completion of the first teacher that gave the most
    frequent answer.
    """
    queries = [job.answer(teacher=name) for name in job.setting.versions]
    replies = yield queries
    return _elected(job, list(zip(queries, replies, strict=True)))


def disagreement(job: Job) -> Rounds:
    """Ask every teacher. When the answers differ, each reply becomes a row. When all teachers give the same answer,
    there is no row. The score `agreement` is the share of teachers that give the most frequent answer.
    """
    queries = [job.answer(teacher=name) for name in job.setting.versions]
    replies = yield queries
    asked = list(zip(queries, replies, strict=True))
    failed = _failures(asked)
    failed = failed or [
        failure(q, "no_answer", "there is no answer to compare") for q, r in asked if not job.answer_of(r)
    ]
    if failed:
        return failed
    parties = Counter(_party(job.answer_of(r)) for _, r in asked)
    if len(parties) == 1:
        return [failure(queries[0], "agreed", "all teachers give the same answer")]
    scores = {"agreement": max(parties.values()) / len(asked)}
    return [job.row(q, r, scores=scores, parents=[o.id for o in queries if o.id != q.id]) for q, r in asked]


def best_of_n(job: Job) -> Rounds:
    """Keep the completion with the highest reward. Among equal rewards, keep the first completion."""
    ranking = yield from _ranking(job)
    if not ranking.ranked:
        return ranking.failed
    best = max(ranking.ranked, key=lambda ranked: ranked.reward)
    parents = [i for i in ranking.asked if i != best.query.id]
    scores = {"reward": best.reward}
    return [job.row(best.query, best.reply, scores=scores, parents=parents, sources=_judges(job)), *ranking.failed]


def preference(job: Job) -> Rounds:
    """Make two rows of one group: the completions with the highest and the lowest reward. The two rows have the same
    seed and the same `parents`.
    """
    ranking = yield from _ranking(job)
    if not ranking.ranked:
        return ranking.failed
    best = max(ranking.ranked, key=lambda ranked: ranked.reward)
    worst = min(ranking.ranked, key=lambda ranked: ranked.reward)
    if best.reward == worst.reward or best.reply.text.strip() == worst.reply.text.strip():
        reason = f"the best and the worst completion have the same reward or text ({best.reward:g})"
        return [failure(best.query, "no_preference", reason), *ranking.failed]
    rows = [
        job.row(
            ranked.query,
            ranked.reply,
            scores={"preference": value, "reward": ranked.reward},
            parents=ranking.asked,
            sources=_judges(job),
            group=(ranking.asked[0], role),
        )
        for ranked, value, role in ((best, 1.0, "chosen"), (worst, 0.0, "rejected"))
    ]
    return [*rows, *ranking.failed]


def _two_best(job: Job, asked: Sequence[Asked]) -> tuple[tuple[str, int], tuple[str, int]]:
    """The two most frequent answers, each with the number of replies that give it. Replies without an answer are not
    counted.
    """
    said = [_party(job.answer_of(reply)) for query, reply in asked if not unfinished(query, reply)]
    parties = Counter(party for party in said if party)
    first, second, *_ = [*parties.most_common(2), ("", 0), ("", 0)]
    return first, second


def _party(answer: str | None) -> str:
    """A key that is equal for equivalent answers, and '' when there is no answer."""
    return party(answer)


def _failures(asked: Sequence[Asked]) -> list[Outcome]:
    """The failures of the replies that failed or are not finished."""
    return [failed for query, reply in asked if (failed := unfinished(query, reply)) is not None]


def _elected(job: Job, asked: Sequence[Asked]) -> list[Outcome]:
    """A row of the first completion that has the most frequent answer. The row's score `agreement` is the share of all
    completions that have this answer. When no single answer is the most frequent, returns failures instead.
    """
    (winner, lead), (_, second) = _two_best(job, asked)
    if not lead:
        return _failures(asked) or [
            failure(asked[0][0], "no_answer", f"none of {len(asked)} completions has an answer")
        ]
    if lead == second:
        return [failure(asked[0][0], "tie", f"two answers have {lead} of {len(asked)} votes each")]
    query, reply = next((q, r) for q, r in asked if not unfinished(q, r) and _party(job.answer_of(r)) == winner)
    scores = {"agreement": lead / len(asked), "votes": len(asked)}
    return [job.row(query, reply, scores=scores, parents=[q.id for q, _ in asked if q is not query])]


@dataclass(frozen=True)
class Ranked:
    """A completion and its reward. A higher reward is better."""

    query: Query
    reply: Reply
    reward: float


@dataclass
class Ranking:
    """The completions of a job: `ranked` holds the completions that have a reward, and `failed` holds the failures of
    the other completions. `asked` holds the ids of the queries for all completions.
    """

    ranked: list[Ranked] = field(default_factory=list)
    failed: list[Outcome] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


def _ranking(job: Job) -> Generator[list[Query], list[Reply], Ranking]:
    """Request several completions of the same prompt, and then the reward of each completion."""
    most = job.recipe.steps.candidates
    queries = [job.answer(number=job.index * most + n) for n in range(most)]
    replies = yield queries
    ranking = Ranking(asked=[query.id for query in queries])
    answered: list[Asked] = []
    for query, reply in zip(queries, replies, strict=True):
        if (failed := unfinished(query, reply)) is not None:
            ranking.failed.append(failed)
        else:
            answered.append((query, reply))
    if not REWARDS[job.recipe.steps.choose].judge_offers:
        known = job.seed.reference
        if known is None:
            reason = "the seed has no reference to compare with"
            return Ranking(failed=[failure(queries[0], "no_reference", reason)])
        ranking.ranked = [Ranked(q, r, float(matches_any(job.answer_of(r), known))) for q, r in answered]
        return ranking
    judging = [_judging(job, query, reply) for query, reply in answered]
    ranking.asked += [query.id for query in judging]
    verdicts = (yield judging) if judging else []
    for (query, reply), judged, verdict in zip(answered, judging, verdicts, strict=True):
        # A reply of kind 'score' is complete, even when the scored completion has no end token.
        broken = judged.request.kind != "score" and unfinished(judged, verdict)
        if verdict.failure or broken:
            ranking.failed.append(broken or failure(judged, *(verdict.failure or ("", ""))))
        elif (reward := _reward(judged, verdict)) is not None:
            ranking.ranked.append(Ranked(query, reply, reward))
        else:
            reason = f"no score from {WORST} to {BEST} in '{verdict.text.strip()[:80]}'"
            ranking.failed.append(failure(judged, "judge", reason))
    return ranking


def _judging(job: Job, query: Query, reply: Reply) -> Query:
    """The query to the judge that determines the reward of a completion."""
    reward = REWARDS[job.recipe.steps.choose]
    parents = (query.id,)
    if not reward.template:
        return job.score(query.request.messages, reply.text, reply.token_ids, job.judge, parents=parents)
    shown = {
        **job.fields,
        "question": query.lineage.prompt[-1]["content"],
        "completion": reply.text,
        "reference": job.seed.reference[0] if job.seed.reference else None,
    }
    messages = job.prompt.step(reward.template, shown)
    if reward.judge_offers == "classify":
        return job.classify(messages, _YES_NO, job.judge, parents=parents)
    return job.step(messages, job.judge, greedy=True, parents=parents)


def _reward(judged: Query, verdict: Reply) -> float | None:
    """The reward of a completion. The kind of the query `judged` determines the reward: the mean log-probability of the
    completion's tokens, the probability of the label "Yes", or the score in the judge's reply. None when the judge's
    reply has no valid value.
    """
    reward = mark(verdict.text)
    if judged.request.kind == "score":
        logprobs = verdict.token_logprobs or ()
        reward = sum(logprobs) / len(logprobs) if logprobs else None
    elif judged.request.kind == "classify":
        reward = float(verdict.label_probs[0]) if verdict.label_probs else None
    return reward if reward is not None and math.isfinite(reward) else None


def _judges(job: Job) -> list[Source]:
    """The entry for the judge in a row's sources, as a list. Empty when rewards need no judge."""
    return [job.source("judge", job.judge)] if REWARDS[job.recipe.steps.choose].judge_offers else []
