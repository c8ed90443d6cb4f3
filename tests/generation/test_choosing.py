"""Strategies that choose among answers, with scripted replies."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from support.scripted import BROKEN, JUDGE, MARKER, THREE, TWO, at_once, first, play, roles, scores

from synthgen.generation.inputs import runner
from synthgen.teachers.base import Reply


def test_rationalize(jobs):
    job = jobs(strategy="rationalize", generate=MARKER, templates={"hint": "{{ question }} (It is {{ answer }}.)"})[2]
    [known] = job.seed.reference
    [row], failed, _ = play(job, [f"So. Answer: {known}"])
    assert (scores(row), row.parents, failed) == ({"rationalized": 0.0}, [], [])
    [row], failed, [[asked_first], [second]] = play(job, ["Hm. Answer: 77"], [f"Sum. Answer: {known}"])
    assert not failed
    assert row.id == second.id
    assert row.parents == [asked_first.id]
    assert scores(row) == {"rationalized": 1.0}
    assert row.teacher_prompt[-1]["content"].endswith(f"(It is {known}.)")
    assert row.prompt == asked_first.prompt
    assert f"(It is {known}" not in str(row.prompt)
    assert (row.rationale, row.answer, row.reference) == ("Sum.", known, [known])
    [], [failure], _ = play(job, ["Hm. Answer: 77"], ["Sum. Answer: 78"])
    assert failure.kind == "not_led"
    [], [failure], _ = play(job, ["Hm. Answer: 77"], [BROKEN])
    assert failure.kind == "context"


def test_rationalize_without_a_known_answer(jobs):
    seeds = [{"path": "seeds.jsonl", "source": "tests", "license": "CC0-1.0", "id": "id", "group": "id"}]
    job = jobs(strategy="rationalize", generate=MARKER, seeds=seeds, templates={"hint": "x"})[0]
    assert at_once(job) == ["no_reference"]


@pytest.mark.parametrize(
    ("said", "winner", "agreement"),
    [
        ([["3", "3", "3"]], "3", 1.0),  # three equal votes decide, because there are at most five votes
        ([["3", "4", "3"], ["3"]], "3", 3 / 4),  # one more vote decides
        ([["3", "4", "3"], ["4"], ["3"]], "3", 3 / 5),
        ([["3", "4", "5"], ["4", "4"]], "4", 3 / 5),
        ([["3", "4", "5"], ["6", "4"]], "4", 2 / 5),  # the most votes, without a majority
        ([["3", None, "3"], ["3"]], "3", 3 / 4),  # a missing answer is no vote
        ([["3.0", "3", "three"]], "3.0", 1.0),  # numbers are compared by value
    ],
)
def test_vote_asks_no_more_than_it_needs(jobs, said, winner, agreement):
    job = jobs(strategy="vote", generate=MARKER, steps={"candidates": 5})[1]
    texts = [[f"So. Answer: {answer}" if answer else "I do not know." for answer in some] for some in said]
    [row], failed, asked = play(job, *texts)
    assert not failed
    assert row.answer == winner
    votes = sum(map(len, said))
    assert scores(row) == {"agreement": agreement, "votes": votes}
    everyone = [r.id for some in asked for r in some]
    assert len(set(everyone)) == votes
    assert sorted([row.id, *row.parents]) == sorted(everyone)
    samples = [r.sampling["sample_index"] for some in asked for r in some]
    assert samples == list(range(job.index * 5, job.index * 5 + votes))


LABELS = {"labels": ["red", "green", "blue"]}


def test_shares_of_votes_are_label_probabilities(jobs):
    job = jobs(strategy="classify_votes", generate=LABELS, steps={"candidates": 5})[1]
    said = ["Green.", "red", " green\n", "a dark green, I think", "GREEN"]
    [row], failed, asked = play(job, said)
    assert not failed
    assert row.label_probs == [0.25, 0.75, 0.0], "prose with a label in it is no vote"
    assert (row.text, row.answer) == ("Green.", "green")
    assert scores(row) == {"agreement": 0.75, "votes": 4}
    everyone = [query.id for some in asked for query in some]
    assert sorted([row.id, *row.parents]) == sorted(everyone)
    samples = [query.sampling["sample_index"] for some in asked for query in some]
    assert samples == list(range(job.index * 5, job.index * 5 + 5))


def test_too_few_votes_are_a_failure(jobs):
    job = jobs(strategy="classify_votes", generate=LABELS, steps={"candidates": 4})[0]
    rows, failures, _ = play(job, ["red", "perhaps red", "red or green", BROKEN])
    assert not rows
    assert [failure.kind for failure in failures] == ["context", "schema"]
    assert "3 of 4 replies are not one of the labels" in failures[-1].reason
    [row], failures, _ = play(job, ["red", "perhaps red", "blue", BROKEN])
    assert (row.label_probs, failures) == ([0.5, 0.0, 0.5], [])
    assert row.answer == "red", "of equal shares, the first label"


def test_vote_never_guesses(jobs):
    job = jobs(strategy="vote", generate=MARKER, steps={"candidates": 4})[0]
    [], [failure], _ = play(job, ["Answer: 1", "Answer: 2", "Answer: 1"], ["Answer: 2"])
    assert failure.kind == "tie"
    [], [failure], _ = play(job, ["well"] * 3, ["well"])
    assert failure.kind == "no_answer"
    [], failed, _ = play(job, [BROKEN] * 3, [BROKEN])
    assert [f.kind for f in failed] == ["context"] * 4


@pytest.mark.parametrize("leader_votes", range(4))
@pytest.mark.parametrize("most", [1, 2, 5, 8])
def test_vote_stops_exactly_when_it_is_decided(jobs, most, leader_votes):
    """After the last round, the votes that were never requested could not change the winner. Before the last round, the
    remaining votes could still change it.
    """
    job = jobs(strategy="vote", steps={"candidates": most})[0]
    random = np.random.default_rng(most * 10 + leader_votes)
    answers = [str(n) for n in random.integers(0, 1 + leader_votes, most)]
    steps = runner(job.recipe)(job)
    asked = next(steps)
    seen = 0
    while True:
        seen += len(asked)
        counts = [*Counter(answers[:seen]).most_common(), ("", 0)]
        decided = counts[0][1] > counts[1][1] + most - seen
        try:
            asked = steps.send([Reply(text, finish_reason="stop") for text in answers[seen - len(asked) : seen]])
        except StopIteration:
            assert decided or seen == most
            break
        assert not decided
        assert seen < most
        best = counts[0][1] + len(asked), counts[1][1], most - seen - len(asked)
        assert best[0] > best[1] + best[2] or seen + len(asked) == most  # the round could decide the vote …
        assert best[0] - 1 <= best[1] + best[2] + 1  # … and a round with one request fewer could not


def test_best_of_n(jobs):
    job = jobs(strategy="best_of_n", steps={"candidates": 3}, templates=JUDGE)[0]
    [row], failed, [candidates, judged] = play(job, ["a", "b", "c"], ["4", "Mark: 9/10.", "I like it."])
    assert row.completion == [{"role": "assistant", "content": "b"}]
    assert row.id == candidates[1].id
    assert scores(row) == {"reward": 9.0}
    assert roles(row) == {"seed": 1, "template": 1, "generator": 1, "judge": 1}
    assert set(row.parents) == {r.id for r in (*candidates, *judged)} - {row.id}
    assert [(f.id, f.kind) for f in failed] == [(judged[2].id, "judge")]
    assert "no score from 1 to 10 in 'I like it.'" in failed[0].reason
    assert judged[1].messages[-1]["content"] == f"Q: {job.fields['question']}\nA: b\nMark?"
    assert judged[1].parents == (candidates[1].id,)
    assert judged[0].sampling["temperature"] == 0
    assert not judged[0].target
    [], failed, _ = play(job, ["a", "b", "c"], ["good", BROKEN, "11"])
    assert [f.kind for f in failed] == ["judge", "context", "judge"]
    [row], failed, _ = play(job, [BROKEN, "b", "c"], ["2", "2"])
    assert (row.text, [f.kind for f in failed]) == ("b", ["context"])


def test_rewards_without_a_judge(jobs):
    job = jobs(strategy="best_of_n", steps={"candidates": 2, "choose": "reference"})[1]
    [known] = job.seed.reference
    [row], failed, asked = play(job, ["77", known])
    assert (row.answer, scores(row), len(asked), failed) == (known, {"reward": 1.0}, 1, [])
    assert "judge" not in roles(row)
    job = jobs(strategy="best_of_n", steps={"candidates": 2, "choose": "likelihood"})[1]
    scored = [Reply("x", token_logprobs=[-3.0, -1.0]), Reply("y", token_logprobs=[-1.5])]
    written = [Reply("x", token_ids=[5, 6], finish_reason="stop"), Reply("y", token_ids=[7], finish_reason="stop")]
    [row], _, [_, judged] = play(job, written, scored)
    assert (row.text, scores(row)) == ("y", {"reward": -1.5})
    assert [(r.kind, r.completion[0]["content"], r.completion_ids) for r in judged] == [
        ("score", "x", (5, 6)),
        ("score", "y", (7,)),
    ]
    job = jobs(strategy="best_of_n", steps={"candidates": 2, "choose": "probability"}, templates=JUDGE)[1]
    yes = [Reply(finish_reason="stop", label_probs=probs) for probs in ([0.6, 0.4], [0.2, 0.8])]
    [row], _, [_, judged] = play(job, ["x", "y"], yes)
    assert (row.text, scores(row), judged[0].labels) == ("x", {"reward": 0.6}, ("Yes", "No"))


def test_preference(jobs):
    job = jobs(strategy="preference", steps={"candidates": 3}, templates=JUDGE)[0]
    rows, failed, asked = play(job, ["a", "b", "c"], ["4", "9", "2"])
    assert not failed
    assert [(r.text, scores(r)) for r in rows] == [
        ("b", {"preference": 1.0, "reward": 9.0}),
        ("c", {"preference": 0.0, "reward": 2.0}),
    ]
    assert rows[0].parents == rows[1].parents == [r.id for some in asked for r in some]
    assert [(r.group_id, r.pair_role) for r in rows] == [(asked[0][0].id, "chosen"), (asked[0][0].id, "rejected")]
    assert rows[0].prompt == rows[1].prompt
    for texts, marks in ((["a", "b", "c"], ["5", "5", "5"]), (["a", "b", "a "], ["7", "6", "5"])):
        [], [failure], _ = play(job, texts, marks)
        assert failure.kind == "no_preference"


def test_consensus_and_disagreement(jobs):
    job = jobs(strategy="consensus", teacher=None, teachers=THREE)[0]
    [row], failed, [requests] = play(job, ["4", "The 5", "5"])
    assert not failed
    assert [r.teacher for r in requests] == ["one", "two", "three"]
    assert (row.teacher, row.answer, scores(row)["agreement"]) == ("two", "The 5", 2 / 3)
    assert [s["id"] for s in row.sources if s["role"] == "generator"] == ["org/two"]
    [], [failure], _ = play(job, ["4", "6", "5"])
    assert failure.kind == "tie"
    job = jobs(strategy="disagreement", teacher=None, teachers=THREE)[0]
    rows, failed, [requests] = play(job, ["4", "5", "5"])
    assert [(r.teacher, r.answer) for r in rows] == [("one", "4"), ("two", "5"), ("three", "5")]
    assert rows[0].parents == [requests[1].id, requests[2].id]
    assert {scores(r)["agreement"] for r in rows} == {2 / 3}
    [], [failure], _ = play(job, ["5", "5.0", "five"])
    assert failure.kind == "agreed"


def test_mixture_is_a_function_of_the_seed(jobs):
    many = jobs(300, teacher=None, teachers=TWO, mixture={"one": 3, "two": 1})
    answered = Counter(play(job, ["x"])[0][0].teacher for job in many)
    assert 200 < answered["one"] < 250  # the expected number is 225, with a standard deviation of 7.5
    fewer = jobs(100, teacher=None, teachers=TWO, mixture={"one": 3, "two": 1})
    assert [job.teacher for job in fewer] == [job.teacher for job in many[:100]]
    [request] = first(many[0])
    assert request.teacher == many[0].teacher
