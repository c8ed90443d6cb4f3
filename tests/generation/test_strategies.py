"""Strategies: as generators fed scripted replies, and on a real engine through `synthgen.generate`."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import synthgen
from synthgen import corpus, logits
from synthgen.errors import GateDenied, RecipeError, TeacherError
from synthgen.generation.jobs import Jobs, refuse_incapable, who
from synthgen.generation.remote import Filling, Gate
from synthgen.generation.rounds import Failure, Row, ask_batch, lockstep
from synthgen.generation.rows import split_rationale
from synthgen.generation.strategies import STRATEGIES, asking, choosing, first_requests, question
from synthgen.generation.strategies.swaps import swap
from synthgen.prompts import load_prompt
from synthgen.recipe import GenerateSection, StepsSection, load_recipe, shipped
from synthgen.requests import Request, identify
from synthgen.seeds import load_seeds
from synthgen.teachers import open_teacher
from synthgen.teachers.base import Reply
from synthgen.verify import matches

SHIPPED = sorted(path.parent.name for path in shipped("prompts").glob("*/recipe.yaml"))


# ---------------------------------------------------------------- scripted replies


@pytest.fixture
def written(task):
    """A function: the recipe of `task` with sections replaced (None: taken out), and templates beside it; its path."""

    def write(count: int = 6, templates: dict[str, str] | None = None, **sections) -> Path:
        path = task(count)
        values = yaml.safe_load(path.read_text())
        values |= {"train": None, "split": {"test": 0.0}, "generate": {"num_generations": 1}, **sections}
        for key in [key for key, value in values.items() if value is None and key != "logits"]:
            del values[key]
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        for name, text in (templates or {}).items():
            (path.parent / f"{name}.j2").write_text(text)
        return path

    return write


@pytest.fixture
def jobs(written):
    """A function: what `written` takes in, all jobs out."""

    def make(count: int = 6, **sections) -> list:
        recipe = load_recipe(written(count, **sections))
        prompt = load_prompt(recipe.prompts, recipe.task)
        found = load_seeds(recipe.seeds, recipe.split, question(recipe, prompt))
        all_jobs = Jobs(recipe, found, prompt, who(recipe))
        return all_jobs.range(0, len(all_jobs))

    return make


def play(job, *rounds):
    """(rows, failures, requests of each round) of a job whose replies are `rounds`, each a list of texts or Replies."""
    steps = STRATEGIES[job.recipe.strategy].make(job)
    asked = [next(steps)]
    for texts in rounds:
        replies = [Reply(text, finish_reason="stop") if isinstance(text, str) else text for text in texts]
        assert len(replies) == len(asked[-1]), f"{len(asked[-1])} requests, {len(replies)} scripted replies"
        try:
            asked.append(steps.send(replies))
        except StopIteration as done:
            made = done.value
            return [m.record for m in made if isinstance(m, Row)], [m for m in made if isinstance(m, Failure)], asked
    raise AssertionError(f"not finished; it asks for {[r.teacher_prompt for r in asked[-1]]}")


def roles(record):
    return Counter(source["role"] for source in record.sources)


def scores(record):
    return {score["name"]: score["value"] for score in record.scores}


BROKEN = Reply(failure=("context", "too long"))


@pytest.mark.parametrize("strategy", ["answer", "rationale"])
def test_one_round(jobs, strategy):
    job = jobs(strategy=strategy, generate={"answer_marker": "Answer:"})[1]
    [row], failed, [[request]] = play(job, ["It is so.\nAnswer: 3"])
    assert not failed
    assert row.id == request.id
    assert row.parents == []
    assert row.prompt == [{"role": "user", "content": job.fields["question"]}]
    assert row.answer == ("3" if strategy == "rationale" else "It is so.\nAnswer: 3")
    assert row.rationale == ("It is so." if strategy == "rationale" else None)
    assert roles(row) == {"seed": 1, "template": 1, "generator": 1}
    [], [failure], _ = play(job, [BROKEN])
    assert (failure.id, failure.kind, failure.reason) == (request.id, "context", "too long")


def test_ids_of_one_round_are_what_they_were():
    """Digests of all ids of the shipped recipes, computed before strategies became generators; and the formula."""
    before = {
        "reasoning": (180, "336e4a7e3c523cf4a472f9599e4d2f00", "f5663df7ae17edf7"),
        "classify": (640, "27a2dac774960ef9186d0e696a86143c", "3e905b9fa3002ada"),
        "instruct": (48, "cd045602c9c8e83162e56906c7f0bc1d", "5899e61fca03e5e5"),
    }
    for name, (count, first, digest) in before.items():
        recipe = load_recipe(name)
        prompt = load_prompt(recipe.prompts, recipe.task)
        seeds = load_seeds(recipe.seeds, recipe.split, question(recipe, prompt))
        named = Jobs(recipe, seeds, prompt, dict.fromkeys(who(recipe), "demo@sha256:0123"))
        ids = [next(STRATEGIES[recipe.strategy].make(job))[0].id for job in named.range(0, len(named))]
        assert (len(ids), ids[0]) == (count, first)
        assert hashlib.sha256("".join(ids).encode()).hexdigest()[:16] == digest


def test_new_parts_of_a_request_are_in_its_id():
    def request(**more):
        return identify(Request("score", "s", "train", [], [], {}, [], **more), "t")

    said = ({"role": "assistant", "content": "a"},)
    other = ({"role": "assistant", "content": "b"},)
    ids = [
        request(),
        request(open_turn=True),
        request(completion=said),
        request(completion=other),
        request(completion=said, completion_ids=(1,)),
    ]
    assert len(set(ids)) == len(ids)


MARKER = {"answer_marker": "Answer:", "num_generations": 2}


def test_rationalize(jobs):
    job = jobs(strategy="rationalize", generate=MARKER, templates={"hint": "{{ question }} (It is {{ answer }}.)"})[2]
    known = job.seed.reference
    [row], failed, _ = play(job, [f"So. Answer: {known}"])
    assert (scores(row), row.parents, failed) == ({"rationalized": 0.0}, [], [])
    [row], failed, [[first], [second]] = play(job, ["Hm. Answer: 77"], [f"Sum. Answer: {known}"])
    assert not failed
    assert row.id == second.id
    assert row.parents == [first.id]
    assert scores(row) == {"rationalized": 1.0}
    assert row.teacher_prompt[-1]["content"].endswith(f"(It is {known}.)")
    assert row.prompt == first.prompt
    assert f"(It is {known}" not in str(row.prompt)
    assert (row.rationale, row.answer, row.reference) == ("Sum.", known, known)
    [], [failure], _ = play(job, ["Hm. Answer: 77"], ["Sum. Answer: 78"])
    assert failure.kind == "not_led"
    [], [failure], _ = play(job, ["Hm. Answer: 77"], [BROKEN])
    assert failure.kind == "context"


def test_rationalize_without_a_known_answer(jobs):
    seeds = [{"path": "seeds.jsonl", "source": "tests", "license": "CC0-1.0", "id": "id", "group": "id"}]
    job = jobs(strategy="rationalize", generate=MARKER, seeds=seeds, templates={"hint": "x"})[0]
    with pytest.raises(StopIteration) as done:
        next(STRATEGIES["rationalize"].make(job))
    assert [m.kind for m in done.value.value] == ["no_reference"]


@pytest.mark.parametrize(
    ("said", "winner", "agreement"),
    [
        ([["3", "3", "3"]], "3", 1.0),  # three of five: decided at once
        ([["3", "4", "3"], ["3"]], "3", 3 / 4),  # one more settles it
        ([["3", "4", "3"], ["4"], ["3"]], "3", 3 / 5),
        ([["3", "4", "5"], ["4", "4"]], "4", 3 / 5),
        ([["3", "4", "5"], ["6", "4"]], "4", 2 / 5),  # a plurality
        ([["3", None, "3"], ["3"]], "3", 3 / 4),  # no answer is no vote
        ([["3.0", "3", "three"]], "3.0", 1.0),  # numbers by value
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
    """Against the definition: after a round no completion of the open votes changes the winner, before it one did."""
    job = jobs(strategy="vote", steps={"candidates": most})[0]
    random = np.random.default_rng(most * 10 + leader_votes)
    answers = [str(n) for n in random.integers(0, 1 + leader_votes, most)]
    steps = STRATEGIES["vote"].make(job)
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
        assert best[0] > best[1] + best[2] or seen + len(asked) == most  # it could settle it …
        assert best[0] - 1 <= best[1] + best[2] + 1  # … and one fewer could not


JUDGE = {"judge": "Q: {{ question }}\nA: {{ completion }}\nMark?"}


def test_best_of_n(jobs):
    job = jobs(strategy="best_of_n", steps={"candidates": 3}, templates=JUDGE)[0]
    [row], failed, [candidates, judged] = play(job, ["a", "b", "c"], ["4", "Mark: 9/10.", "I like it."])
    assert row.completion == [{"role": "assistant", "content": "b"}]
    assert row.id == candidates[1].id
    assert scores(row) == {"reward": 9.0}
    assert roles(row) == {"seed": 1, "template": 1, "generator": 1, "judge": 1}
    assert set(row.parents) == {r.id for r in (*candidates, *judged)} - {row.id}
    assert [(f.id, f.kind) for f in failed] == [(judged[2].id, "judge")]
    assert "no mark from 1 to 10 in 'I like it.'" in failed[0].reason
    assert judged[1].teacher_prompt[-1]["content"] == f"Q: {job.fields['question']}\nA: b\nMark?"
    assert judged[1].parents == (candidates[1].id,)
    assert judged[0].sampling["temperature"] == 0
    assert not judged[0].target
    [], failed, _ = play(job, ["a", "b", "c"], ["good", BROKEN, "11"])
    assert [f.kind for f in failed] == ["judge", "context", "judge"]
    [row], failed, _ = play(job, [BROKEN, "b", "c"], ["2", "2"])
    assert (row.text, [f.kind for f in failed]) == ("b", ["context"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7), ("Score: 8.5", 8.5), ("9/10", 9), ("6 out of 10", 6), ("\n\nI say 3.", 3), ("**4**", 4),
        ("between 3 and 5", None), ("11", None), ("0", None), ("-4", None), ("7th", None), ("", None), ("ten", None),
        ("Well.\nMark: 5\nIt has 3 faults.", 5),
    ],
)  # fmt: skip
def test_marks(text, value):
    assert choosing.mark(text) == value


def test_rewards_without_a_judge(jobs):
    job = jobs(strategy="best_of_n", steps={"candidates": 2, "choose": "reference"})[1]
    [row], failed, asked = play(job, ["77", str(job.seed.reference)])
    assert (row.answer, scores(row), len(asked), failed) == (job.seed.reference, {"reward": 1.0}, 1, [])
    assert "judge" not in roles(row)
    job = jobs(strategy="best_of_n", steps={"candidates": 2, "choose": "likelihood"})[1]
    scored = [Reply("x", token_logprobs=[-3.0, -1.0]), Reply("y", token_logprobs=[-1.5])]
    [row], _, [_, judged] = play(job, [Reply("x", token_ids=[5, 6]), Reply("y", token_ids=[7])], scored)
    assert (row.text, scores(row)) == ("y", {"reward": -1.5})
    assert [(r.kind, r.completion[0]["content"], r.completion_ids) for r in judged] == [
        ("score", "x", (5, 6)),
        ("score", "y", (7,)),
    ]
    job = jobs(strategy="best_of_n", steps={"candidates": 2, "choose": "probability"}, templates=JUDGE)[1]
    yes = [Reply("yes", label_probs=[0.6, 0.4]), Reply("no", label_probs=[0.2, 0.8])]
    [row], _, [_, judged] = play(job, ["x", "y"], yes)
    assert (row.text, scores(row), judged[0].labels) == ("x", {"reward": 0.6}, ("yes", "no"))


def test_preference(jobs):
    job = jobs(strategy="preference", steps={"candidates": 3}, templates=JUDGE)[0]
    rows, failed, asked = play(job, ["a", "b", "c"], ["4", "9", "2"])
    assert not failed
    assert [(r.text, scores(r)) for r in rows] == [
        ("b", {"preference": 1.0, "reward": 9.0}),
        ("c", {"preference": 0.0, "reward": 2.0}),
    ]
    assert rows[0].parents == rows[1].parents == [r.id for some in asked for r in some]
    assert rows[0].prompt == rows[1].prompt
    for texts, marks in ((["a", "b", "c"], ["5", "5", "5"]), (["a", "b", "a "], ["7", "6", "5"])):
        [], [failure], _ = play(job, texts, marks)
        assert failure.kind == "no_preference"


TWO = {"one": {"model": "org/one", "license": "MIT"}, "two": {"model": "org/two", "license": "Apache-2.0"}}
THREE = {**TWO, "three": {"model": "org/three", "license": "MIT"}}


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
    assert 200 < answered["one"] < 250  # 225 ± 3 standard deviations
    fewer = jobs(100, teacher=None, teachers=TWO, mixture={"one": 3, "two": 1})
    assert [job.teacher for job in fewer] == [job.teacher for job in many[:100]]
    [request] = next(STRATEGIES["answer"].make(many[0]))
    assert request.teacher == many[0].teacher


NEW = {"new": "{% for e in examples %}{{ e.question }}\n{% endfor %}Another?"}


def test_self_instruct(jobs):
    some = jobs(8, strategy="self_instruct", steps={"shown": 3}, templates=NEW)
    job = some[0]
    [row], failed, [[new], [answered]] = play(job, ['"How old is the moon?"'], ["Old."])
    assert not failed
    shown = new.teacher_prompt[-1]["content"].splitlines()[:-1]
    assert shown[0] == job.fields["question"]
    assert len(set(shown)) == 3
    assert shown != play(some[1], ["x?"], ["y"])[2][0][0].teacher_prompt[-1]["content"].splitlines()[:-1]
    assert row.prompt == [{"role": "user", "content": "How old is the moon?"}]
    assert (row.parents, row.id, row.reference) == ([new.id], answered.id, None)
    assert roles(row) == {"seed": 1, "template": 1, "generator": 1, "few_shot": 2, "rewriter": 1}
    assert (new.target, answered.target) == (False, True)
    for reply, kind in (
        ("  ", "empty"),
        (shown[1].upper(), "unchanged"),
        (Reply("How", finish_reason="length"), "cut"),
        (BROKEN, "context"),
    ):
        [], [failure], _ = play(job, [reply])
        assert (failure.kind, failure.id) == (kind, new.id)


def test_self_instruct_shows_seeds_of_its_own_side_only(jobs):
    some = jobs(40, strategy="self_instruct", split={"test": 0.5}, steps={"shown": 6}, templates=NEW)
    side = {job.fields["question"]: job.seed.split for job in some}
    assert set(side.values()) == {"train", "test"}
    for job in some:
        shown = next(STRATEGIES["self_instruct"].make(job))[0].teacher_prompt[-1]["content"].splitlines()[:-1]
        assert {side[text] for text in shown} == {job.seed.split}


def test_evolve(jobs):
    templates = {"evolve_a": "Harder: {{ question }}", "evolve_b": "Other: {{ question }}"}
    some = jobs(12, strategy="evolve", steps={"rounds": 2}, templates=templates)
    job = some[0]
    rows, failed, asked = play(job, ["Second?"], ["Third?"], ["a2", "a3"])
    assert not failed
    assert asked[1][0].teacher_prompt[-1]["content"].endswith(": Second?")
    assert asked[1][0].parents == (asked[0][0].id,)
    assert [(r.prompt[-1]["content"], r.text, len(r.parents)) for r in rows] == [
        ("Second?", "a2", 1),
        ("Third?", "a3", 2),
    ]
    rows, [failure], _ = play(job, ["Second?"], ["second"], ["a2"])  # back where it was
    assert ([r.text for r in rows], failure.kind) == (["a2"], "unchanged")
    used = {next(STRATEGIES["evolve"].make(j))[0].teacher_prompt[-1]["content"].split(":")[0] for j in some}
    assert used == {"Harder", "Other"}


def test_magpie_and_personas(jobs):
    job = jobs(strategy="magpie", templates={"turn_system": "On {{ answer }}."})[0]
    [row], _, [[turn], _] = play(job, ["What is one?"], ["1"])
    assert turn.open_turn
    assert turn.teacher_prompt == [
        {"role": "system", "content": f"On {job.seed.reference}."},
        {"role": "user", "content": ""},
    ]
    assert (row.prompt[-1]["content"], row.reference, row.parents) == ("What is one?", None, [turn.id])
    job = jobs(strategy="personas", templates={"ask": "You are {{ id }}."})[0]
    [row], _, [[asked], _] = play(job, ["Who am I?"], ["q0"])
    assert asked.teacher_prompt == [{"role": "user", "content": f"You are {job.seed.id}."}]
    assert roles(row)["rewriter"] == 1


def test_other_words_keep_the_known_answer(jobs):
    job = jobs(strategy="paraphrase", templates={"paraphrase": "Say: {{ question }}"})[0]
    [row], _, _ = play(job, ["Add them."], ["1"])
    assert (row.prompt[-1]["content"], row.reference) == ("Add them.", job.seed.reference)
    [], [failure], _ = play(job, [job.fields["question"].lower()])
    assert failure.kind == "unchanged"
    templates = {"translate": "To French: {{ question }}", "back": "To English: {{ translation }}"}
    job = jobs(strategy="back_translation", templates=templates)[0]
    [row], _, [[there], [back], _] = play(job, ["Combien ?"], ["How much?"], ["1"])
    assert back.teacher_prompt[-1]["content"] == "To English: Combien ?"
    assert (row.parents, row.reference) == ([there.id, back.id], job.seed.reference)
    [], [failure], _ = play(job, [""])
    assert (failure.id, failure.kind) == (there.id, "empty")


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("Tom gave his book to her.", "Lily gave her book to him."),
        ("Is it his? She says it is hers, and the girl saw her and left.",
         "Is it hers? He says it is his, and the boy saw him and left."),
        ("HER mother told him; he hurt himself.", "HIS father told her; she hurt herself."),
        ("Mrs. Tom's", "Mr. Lily's"),
        ("Atom, tomato, Thomas", "Atom, tomato, Thomas"),
    ],
)  # fmt: skip
def test_swap(text, swapped):
    assert swap(text) == swapped


def test_counterfactual(jobs, tmp_path):
    seed = [{"path": "people.jsonl", "source": "t", "license": "MIT", "group": "answer", "reference": "answer"}]
    (tmp_path / "task").mkdir(exist_ok=True)
    people = (
        '{"question": "Is Tom older than his aunt?", "answer": "Tom"}\n{"question": "Is it hot?", "answer": "no"}\n'
    )
    (tmp_path / "task" / "people.jsonl").write_text(people)
    named, plain = jobs(strategy="counterfactual", seeds=seed)
    rows, _, [[first, _]] = play(named, ["a", "b"])
    assert [r.prompt[-1]["content"] for r in rows] == ["Is Tom older than his aunt?", "Is Lily older than her uncle?"]
    assert [r.reference for r in rows] == ["Tom", "Lily"]
    assert (rows[0].parents, rows[1].parents) == ([], [first.id])
    with pytest.raises(StopIteration) as done:
        next(STRATEGIES["counterfactual"].make(plain))
    assert [m.kind for m in done.value.value] == ["unchanged"]


def test_extract(jobs):
    templates = {"questions": "{{ id }} List.", "user": "{{ id }} {{ question }}"}
    job = jobs(strategy="extract", steps={"candidates": 2}, templates=templates)[0]
    rows, _, [[listed], answers] = play(job, ["1. Who?\n2) Who?\n- Why?\n3. When?"], ["x", "y"])
    assert [r.prompt[-1]["content"] for r in rows] == ["q0 Who?", "q0 Why?"]
    assert {tuple(r.parents) for r in rows} == {(listed.id,)}
    assert len({a.id for a in answers}) == 2
    [], [failure], _ = play(job, [Reply("Who is", finish_reason="length")])
    assert failure.kind == "no_question"
    assert asking.items("Q1: Who?\n\n* Why?\nc", whole=False) == ["Who?", "Why?"]


def test_conversation(jobs):
    template = "{% for m in conversation %}{{ m.role }}={{ m.content }};{% endfor %}"
    job = jobs(strategy="conversation", steps={"rounds": 2}, templates={"user_turn": template})[0]
    rows, failed, asked = play(job, ["a1"], ["And why?"], ["a2"])
    assert not failed
    assert asked[1][0].teacher_prompt[-1]["content"] == f"user={job.fields['question']};assistant=a1;"
    assert [m["content"] for m in rows[1].prompt] == [job.fields["question"], "a1", "And why?"]
    assert [r.text for r in rows] == ["a1", "a2"]
    assert rows[1].parents == [asked[0][0].id, asked[1][0].id]
    rows, [failure], _ = play(job, ["a1"], [""])
    assert ([r.text for r in rows], failure.kind) == (["a1"], "empty")


def test_score_takes_text_and_messages(jobs, tmp_path):
    lines = [
        '{"prompt": "Why?", "completion": "So."}',
        '{"prompt": [{"role": "user", "content": "Why, then?", "tool_calls": null}], "token_ids": [4, 5], '
        '"teacher_prompt": [{"role": "user", "content": "T"}], '
        '"completion": [{"role": "assistant", "content": "So."}]}',
        '{"prompt": "Who?", "completion": [{"role": "user", "content": "me"}]}',
        '{"prompt": "Where?"}',
    ]
    (tmp_path / "task").mkdir(exist_ok=True)
    (tmp_path / "task" / "given.jsonl").write_text("\n".join(lines))
    seeds = [{"path": "given.jsonl", "source": "t", "license": "MIT"}]
    some = jobs(strategy="score", seeds=seeds, templates={"user": "{{ prompt }}"})
    said = Reply("So.", token_ids=[1, 2])
    [row], _, [[request]] = play(some[0], [said])
    assert (request.kind, request.target, row.prompt) == ("score", True, [{"role": "user", "content": "Why?"}])
    assert roles(row) == {"seed": 1, "template": 1, "logits": 1}
    [row], _, [[request]] = play(some[1], [said])
    assert row.prompt == [{"role": "user", "content": "Why, then?"}]
    assert (request.completion_ids, request.teacher_prompt[0]["content"]) == ((4, 5), "T")
    for job in some[2:]:
        with pytest.raises(StopIteration) as done:
            next(STRATEGIES["score"].make(job))
        assert [m.kind for m in done.value.value] == ["completion"]


def test_a_missing_template_is_named(jobs):
    for strategy, template in (("rationalize", "hint"), ("best_of_n", "judge"), ("evolve", "evolve_NAME")):
        with pytest.raises(RecipeError, match=rf"needs the template {template}\.j2"):
            jobs(strategy=strategy, generate=MARKER)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"teachers": TWO}, "not both"),
        ({"teacher": None, "teachers": TWO, "mixture": {"on": 1}}, "did you mean 'one'"),
        ({"teacher": None, "teachers": TWO, "steps": {"judge": "x"}}, "known: one, two"),
        ({"strategy": "consensus"}, "two or more 'teachers'"),
        ({"teacher": None, "teachers": TWO, "logits": {"score_by": ["one"]}}, "kept anyway"),
        ({"teacher": None, "teachers": TWO, "logits": {"score_by": ["two"]}, "train": {}}, "logits of one teacher"),
        ({"strategy": "preference", "train": {}}, "preference pairs"),
        ({"strategy": "score", "logits": None}, "needs a 'logits' section"),
        ({"strategy": "best_of_n", "steps": {"candidates": 1}}, "two or more steps.candidates"),
        ({"teacher": None, "teachers": {"../x": TWO["one"]}}, "pattern"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(written, sections, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(written(2, **sections))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_plans_and_resolves(name, tmp_path):
    recipe = load_recipe(name)
    found = synthgen.plan(recipe)
    assert found.seeds >= 6
    assert sum(found.requests.values()) >= found.seeds
    assert found.prompt
    assert recipe.teacher.license == "Apache-2.0"
    (tmp_path / "recipe.yaml").write_text(synthgen.recipe.dump_recipe(recipe))
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    if recipe.strategy != "answer":
        count = len({r.id for _, asked in _first(recipe) for r in asked})
        assert count <= sum(found.requests.values())


def _first(recipe):
    prompt = load_prompt(recipe.prompts, recipe.task)
    return first_requests(recipe, load_seeds(recipe.seeds, recipe.split, question(recipe, prompt)), prompt)


def test_every_strategy_is_shipped():
    assert {load_recipe(name).strategy for name in SHIPPED} == set(STRATEGIES)


# ---------------------------------------------------------------- the driver


def test_lockstep_asks_round_by_round_in_order():
    def job(name, rounds):
        said = []
        for n in range(rounds):
            said += [reply.text for reply in (yield [f"{name}{n}", f"{name}{n}'"])]
        return said

    calls = []

    def ask(requests):
        calls.append(requests)
        return [Reply(r.upper()) for r in requests]

    made = lockstep([job("a", 2), job("b", 0), job("c", 1)], ask)
    assert calls == [["a0", "a0'", "c0", "c0'"], ["a1", "a1'"]]
    assert made == [["A0", "A0'", "A1", "A1'"], [], ["C0", "C0'"]]


def streamed(jobs: list, reply, seed: int = 0) -> list:
    """What jobs make when their requests are answered one at a time by `reply`, in an order drawn by `seed`."""
    names = jobs[0].who
    calls = SimpleNamespace(call=lambda request: None)
    written = {}
    shard = corpus.Shard("train-00000", "train", 0, len(jobs))
    fed = SimpleNamespace(recipe=jobs[0].recipe, one_by_one=lambda start, stop: iter(jobs))
    bar = SimpleNamespace(advance=lambda count, failed: None)
    filling = Filling(
        fed,
        [shard],
        dict.fromkeys(names, calls),
        lambda shard, made: written.setdefault(shard.name, made),
        bar,
        Gate(jobs[0].recipe, len(jobs), 0),
    )
    draw = np.random.default_rng(seed)

    async def main() -> None:
        waiting = []
        while not filling.finished:
            waiting += [item for name in names if (item := filling.take(name))]
            if not waiting:
                await asyncio.sleep(0)
            elif len(waiting) > 5 or draw.random() < 0.5:
                item = waiting.pop(int(draw.integers(len(waiting))))
                filling.deliver(item, reply(item.request))
        await asyncio.gather(*filling.commits)

    asyncio.run(main())
    return written[shard.name]


def test_one_at_a_time_in_any_order_is_the_same(jobs):
    """An engine that is asked one request at a time, in whatever order, makes the same rows."""
    some = jobs(strategy="best_of_n", steps={"candidates": 3}, templates=JUDGE)
    texts = {0: "a", 1: "b", 2: "c"}

    def reply(request):
        judged = request.teacher_prompt[-1]["content"]
        marks = {"A: a": "4", "A: b": "9", "A: c": "6"}
        found = next((mark for text, mark in marks.items() if text in judged), None)
        return Reply(found or texts[request.sampling["sample_index"]], finish_reason="stop")

    batched = lockstep(
        [STRATEGIES["best_of_n"].make(job) for job in some], lambda requests: [reply(r) for r in requests]
    )
    for seed in range(3):
        assert streamed(some, reply, seed) == batched
    assert batched[0][0].record.text == "b"


def test_what_a_row_cost_counts_the_requests_on_the_way(jobs):
    """Four paid requests, two rows: each carries half; one unknown price makes the sum unknown."""
    some = jobs(strategy="preference", steps={"candidates": 2}, templates=JUDGE)[:1]

    def reply(request, unknown=False):
        judged = request.teacher_prompt[-1]["content"]
        if "A: a" in judged or "A: b" in judged:
            return Reply("9" if "A: b" in judged else "4", finish_reason="stop", cost_usd=0.25)
        cost = None if unknown else 0.125
        return Reply("ab"[request.sampling["sample_index"]], finish_reason="stop", cost_usd=cost)

    for made in (
        lockstep([STRATEGIES["preference"].make(some[0])], lambda requests: [reply(r) for r in requests]),
        streamed(some, reply),
    ):
        assert [row.record.cost_usd for row in made[0]] == [0.375, 0.375]
    [made] = streamed(some, lambda request: reply(request, unknown=True))
    assert [row.record.cost_usd for row in made] == [None, None]


def test_what_a_strategy_turns_away_is_no_fault(jobs):
    gate = Gate(jobs()[0].recipe.model_copy(update={"generate": GenerateSection(max_failures=1)}), 10, 0)
    gate.count([Failure("i", "s", "train", kind, "") for kind in ("agreed", "tie", "unchanged", "timeout")])
    with pytest.raises(GateDenied, match="2 requests failed"):
        gate.count([Failure("i", "s", "train", "server", "500")])


# ---------------------------------------------------------------- the real engine


@functools.cache
def loaded(section):
    """`open_teacher`, once a section."""
    return open_teacher(section)


@pytest.fixture(scope="module")
def talker(tmp_path_factory, tiny):
    """Folders of two tiny models that end a turn now and then, as an untrained one hardly does."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = []
    for seed in range(2):
        folder = tmp_path_factory.mktemp("talkers") / f"talker{seed}"
        model = AutoModelForCausalLM.from_pretrained(tiny)
        tokenizer = AutoTokenizer.from_pretrained(tiny)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            for parameter in model.parameters():
                parameter += seed * 0.1 * torch.randn(parameter.shape, generator=generator)
            model.get_input_embeddings().weight[tokenizer.eos_token_id] *= 10
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        found.append(str(folder))
    return found


@pytest.fixture
def shrunk(talker, tmp_path, monkeypatch):
    """A function: a shipped recipe with the tiny teachers, few seeds and small shards. Each model is loaded once."""
    monkeypatch.setattr(
        sys.modules["synthgen.generation.driver"], "open_teacher", lambda section, generate: loaded(section)
    )

    def make(name: str, limit: int = 10, **update):
        path = shipped("prompts") / name
        values = yaml.safe_load((path / "recipe.yaml").read_text())
        section = {"license": "Apache-2.0", "batch_size": 8, "device": "cpu"}
        if "teachers" in values:
            values["teachers"] = {n: {**section, "model": m} for n, m in zip(("a", "b"), talker, strict=True)}
        else:
            values["teacher"] = {**section, "model": talker[0]}
        for seeds in values["seeds"]:
            seeds["path"] = str((path / seeds["path"]).resolve())
            seeds["limit"] = limit
        values["prompts"] = str((path / values.get("prompts", ".")).resolve())
        values["generate"] |= {"max_new_tokens": 8, "shard_size": 4}
        values["steps"] = {**values.get("steps", {}), "max_new_tokens": 24}
        values |= {"split": {"test": 0.3}, "train": None, "logits": {"kind": "topk", "k": 8}}
        for key, value in update.items():
            values[key] = {**values[key], **value} if isinstance(values.get(key), dict) else value
        written = tmp_path / f"{name}.yaml"
        written.write_text(yaml.safe_dump(values, sort_keys=False))
        return load_recipe(written)

    return make


def read(folder):
    return [record for _, some in corpus.records(folder) for record in some]


def failures(folder):
    import pyarrow.parquet as pq

    return [row for path in sorted(folder.glob("failures/*.parquet")) for row in pq.read_table(path).to_pylist()]


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def check_logits(folder, records, k=8):
    """Every row has distributions of its own teacher, aligned; the token that was said is among or outside the top."""
    where = {}
    for part in sorted(folder.glob("logits/*")):
        for path in sorted(part.glob("*.parquet")):
            shard = logits.read(path)
            where |= {(part.name, i): (path, shard, row) for row, i in enumerate(shard.ids)}
    for r in records:
        path, shard, row = where[r.teacher, r.id]
        logits.check_aligned(shard, row, r.id, r.token_ids, path)
        assert shard.target(row).ids.shape == (len(r.token_ids), k)
    return where


KILLED = ["vote", "self_instruct", "evolve", "conversation", "extract", "disagreement", "preference"]
UPDATES = {
    "vote": {"generate": {"answer_marker": None, "temperature": 0.01}},
    "rationalize": {"generate": {"answer_marker": "\n"}},
    "preference": {"steps": {"choose": "likelihood"}},
    "consensus": {"generate": {"answer_marker": None}},
    "disagreement": {"generate": {"answer_marker": None}},
}
ROLES = {
    "best_of_n": {"judge"},
    "preference": {"judge"},
    "self_instruct": {"rewriter", "few_shot"},
    "conversation": set(),
    **{n: {"rewriter"} for n in ("evolve", "magpie", "personas", "paraphrase", "back_translation", "extract")},
}
MULTI = [name for name in SHIPPED if load_recipe(name).strategy not in ("answer", "rationale", "classify", "embed")]


@pytest.mark.parametrize("name", MULTI)
def test_on_the_engine(name, shrunk, tmp_path):
    """Rows with logits and lineage, each request once; and a run that lost shards is made again to the same bytes."""
    recipe = shrunk(name, **UPDATES.get(name, {}))
    folder = synthgen.generate(recipe, tmp_path / "run")
    rows, failed = read(folder), failures(folder)
    made = corpus.manifest(folder)["counts"]
    assert (made["rows"] if rows else 0, made["failures"]) == (len(rows), len(failed))
    if name in ("rationalize", "consensus"):  # a model of random weights never leads to the answer, nor agrees
        assert {f["kind"] for f in failed} & {"not_led", "tie", "no_answer"}
    else:
        assert len(rows) >= 3
    if name != "score":
        wanted = {"seed", "template", "generator"} | ROLES.get(name, set())
        assert all({s["role"] for s in r.sources} >= wanted for r in rows)
    assert all(r.parents for r in rows) or name in ("score", "counterfactual", "conversation")
    check_logits(folder, rows)
    if name in KILLED:
        before = files(folder)
        lost = sorted((folder / "data").glob("*.parquet"))[1:]  # as a kill leaves it: companions there, data not
        assert lost
        for path in [*lost, folder / "manifest.json"]:
            path.unlink()
        assert synthgen.generate(recipe, tmp_path / "run") == folder
        assert files(folder) == before


def test_rationalize_keeps_what_the_teacher_knows(shrunk, tmp_path):
    """References taken from what the greedy teacher says: those rows need no hint, the others get one."""
    greedy = {"generate": {"answer_marker": " ", "temperature": 0.0}}
    told = shrunk("vote", strategy="answer", **greedy)
    said = {r.seed_id: r.text for r in read(synthgen.generate(told, tmp_path / "first"))}
    seeds = [json.loads(line) for line in Path(told.seeds[0].path).read_text().splitlines()[:10]]
    known = {s["id"]: split_rationale(said[s["id"]], " ")[1] or "" for s in seeds}
    path = tmp_path / "seeds.jsonl"
    lines = [json.dumps({**s, "answer": known[s["id"]] if n % 2 else "zebra"}) + "\n" for n, s in enumerate(seeds)]
    path.write_text("".join(lines))
    source = {"path": str(path), "source": "t", "license": "MIT", "id": "id", "reference": "answer"}
    recipe = shrunk("rationalize", seeds=[source], **greedy)
    folder = synthgen.generate(recipe, tmp_path / "run")
    expected = {s["id"] for n, s in enumerate(seeds) if n % 2 and matches(known[s["id"]], known[s["id"]])}
    kept = {r.seed_id for r in read(folder) if scores(r) == {"rationalized": 0.0}}
    assert len(expected) >= 2
    assert kept == expected
    assert {f["kind"] for f in failures(folder)} == {"not_led"}


def test_unparsable_marks_of_a_real_judge_are_failures(shrunk, tmp_path):
    recipe = shrunk("preference", limit=4, steps={"choose": "judge", "max_new_tokens": 8})
    folder = synthgen.generate(recipe, tmp_path / "run")
    assert not read(folder)
    assert {f["kind"] for f in failures(folder)} == {"judge"}
    assert len(failures(folder)) == 16


def test_killed_for_real(shrunk, tmp_path):
    """SIGKILL after the first shard; the same command finishes, and the bytes are those of an undisturbed run."""
    import multiprocessing

    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked process must not wait for the threads of its parent
    try:
        recipe = shrunk("evolve", limit=12, generate={"shard_size": 2, "max_new_tokens": 24})
        whole = synthgen.generate(recipe, tmp_path / "whole")
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=synthgen.generate, args=(recipe, tmp_path / "run"))
        process.start()
        data = tmp_path / "run" / "generated" / "data"
        while not list(data.glob("*.parquet")):
            assert process.is_alive()
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (data.parent / "manifest.json").exists()
        folder = synthgen.generate(recipe, tmp_path / "run")
        assert files(folder) == files(whole)
    finally:
        torch.set_num_threads(threads)


def test_scoring_generated_rows_gives_the_same_distributions(shrunk, tmp_path, talker):
    """Top-k of a corpus against the top-k of its own rows, scored from the files it wrote."""
    spec = {"kind": "topk", "k": 8, "temperature": 2.0}
    made = shrunk("reasoning", logits=spec, generate={"max_new_tokens": 16})
    generated = synthgen.generate(made, tmp_path / "run")
    rows = read(generated)
    seeds = [{"path": str(generated / "data"), "source": "ours", "license": "Apache-2.0", "id": "id"}]
    scored_recipe = shrunk("score", seeds=[{**seeds[0], "group": "seed_id"}], logits=spec, prompts=made.prompts)
    scored_recipe = scored_recipe.model_copy(
        update={"seeds": tuple(s.model_copy(update={"limit": None}) for s in scored_recipe.seeds)}
    )
    scored = synthgen.generate(scored_recipe, tmp_path / "scored")
    again = {r.seed_id: r for r in read(scored)}
    assert set(again) == {r.id for r in rows}
    ours, theirs = check_logits(generated, rows), check_logits(scored, list(again.values()))
    for r in rows:
        other = again[r.id]
        assert list(other.token_ids) == list(r.token_ids)
        assert (other.prompt, other.teacher_prompt) == (r.prompt, r.teacher_prompt)
        a = ours[r.teacher, r.id][1].target(ours[r.teacher, r.id][2])
        b = theirs[other.teacher, other.id][1].target(theirs[other.teacher, other.id][2])
        assert (a.ids == b.ids).mean() > 0.99  # near-ties may change places
        for name in ("logprobs", "log_tail", "log_z"):
            assert np.abs(getattr(a, name) - getattr(b, name)).max() < 2e-3


def engine(path, batch_size=8):
    from synthgen.tables.engines import TeacherSection
    from synthgen.teachers.transformers import LocalModel

    return LocalModel.open(TeacherSection(model=path, batch_size=batch_size, device="cpu"))


def score_request(text, ids=(), number=1, messages=None):
    said = messages or [{"role": "user", "content": "Why?"}]
    return Request(
        "score", "s", "train", said, said, {"temperature": None, "top_p": None, "max_new_tokens": 0}, [],
        completion=({"role": "assistant", "content": text},), completion_ids=tuple(ids), id=f"{number:032x}",
    )  # fmt: skip


def test_score_against_a_plain_pass(talker):
    """Token log-probabilities and top-k against one float32 pass a row; text is tokenized and closed."""
    import torch

    teacher = engine(talker[0], batch_size=3)
    texts = ["Because it is so.", "No.", "Ask again tomorrow, when the shop is open, and say who you are. " * 12]
    requests = [score_request(text, number=n) for n, text in enumerate([*texts, *texts], 1)]
    replies = teacher.score(requests, {"kind": "topk", "k": 4, "temperature": 1.0})
    for request, reply in zip(requests, replies, strict=True):
        ids = teacher.tokenizer(request.completion[0]["content"], add_special_tokens=False)["input_ids"]
        assert list(reply.token_ids) == [*ids, teacher.tokenizer.eos_token_id]
        assert reply.finish_reason == "stop"
        prompt = teacher.render(request.teacher_prompt)
        assert list(reply.prompt_token_ids) == prompt
        with torch.inference_mode():
            z = teacher.model(torch.tensor([[*prompt, *reply.token_ids]])).logits[0, len(prompt) - 1 : -1]
        logp = z.float().log_softmax(-1)
        direct = logp[torch.arange(len(reply.token_ids)), torch.tensor(list(reply.token_ids))]
        assert np.abs(direct.numpy() - np.asarray(reply.token_logprobs)).max() < 1e-3
        assert np.abs(logp.topk(4).values.numpy() - reply.target.logprobs).max() < 1e-3


def test_sampled_scores_follow_the_distribution(talker):
    """Counts of 20,000 draws against the probabilities at the temperature asked for; other requests draw others."""
    import torch

    teacher = engine(talker[0])
    spec = {"kind": "sampled", "draws": 20_000, "temperature": 0.7}
    replies = teacher.score([score_request("So.", number=n) for n in (1, 2)], spec)
    prompt, tokens = list(replies[0].prompt_token_ids), list(replies[0].token_ids)
    with torch.inference_mode():
        z = teacher.model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    p = (z.float() / 0.7).softmax(-1).double().numpy()
    target, start = replies[0].target, 0
    for row, unique in enumerate(target.uniques):
        counts = np.zeros(p.shape[1])
        counts[target.ids[start : start + unique]] = target.counts[start : start + unique]
        start += int(unique)
        assert counts.sum() == 20_000
        likely = p[row] > 0.005
        sigma = np.sqrt(20_000 * p[row][likely] * (1 - p[row][likely]))
        assert (np.abs(counts[likely] - 20_000 * p[row][likely]) < 5 * sigma + 1).all()
    assert not np.array_equal(replies[0].target.ids, replies[1].target.ids)


def test_given_tokens_are_used_only_when_they_say_the_text(talker):
    teacher = engine(talker[0])
    letters = [teacher.tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in "because"]
    whole = teacher.tokenizer("because", add_special_tokens=False)["input_ids"]
    assert letters != whole
    end = teacher.tokenizer.eos_token_id
    cases = [(letters, letters), ([*letters, end], [*letters, end]), (letters[:-1], [*whole, end]), ([], [*whole, end])]
    cases.append(([10**9], [*whole, end]))
    for given, used in cases:
        [reply] = teacher.score([score_request("because", given)], None)
        assert list(reply.token_ids) == used
    too_long, empty = teacher.score([score_request("word " * 600), score_request("", [end])], None)
    assert too_long.failure[0] == "context"
    assert list(empty.token_ids) == [end]


def test_an_open_turn_stops_where_its_text_does(talker):
    teacher = engine(talker[0])
    said = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "How do"}]
    shown = teacher.tokenizer.decode(teacher.render_open(said))
    assert shown == "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHow do"
    said[1]["content"] = ""
    assert teacher.tokenizer.decode(teacher.render_open(said)).endswith("<|im_start|>user\n")


def test_several_teachers_speak_of_the_same_tokens(written, talker, tmp_path):
    """A mixture with aligned logits by a third: each row has those of its teacher and of the scorer, and no others."""
    third = tmp_path / "third"
    shutil.copytree(talker[0], third)
    text = (third / "config.json").read_text()
    (third / "config.json").write_text(text.replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-02'))
    assert text != (third / "config.json").read_text()
    names = {"a": talker[0], "b": talker[1], "c": str(third)}
    teachers = {name: {"model": model, "license": "Apache-2.0", "device": "cpu"} for name, model in names.items()}
    sections = {"teacher": None, "teachers": teachers, "mixture": {"a": 1, "b": 1}, "split": {"test": 0.25}}
    generate = {"num_generations": 2, "max_new_tokens": 6, "shard_size": 8}
    recipe = load_recipe(written(16, **sections, generate=generate, logits={"kind": "topk", "k": 8, "score_by": ["c"]}))
    folder = synthgen.generate(recipe, tmp_path / "run")
    rows = read(folder)
    assert len(rows) == 32
    by = Counter(r.teacher for r in rows)
    assert set(by) == {"a", "b"}
    where = check_logits(folder, rows)
    assert Counter(name for name, _ in where) == {**by, "c": 32}
    scorer = engine(str(third))
    for r in rows:
        path, shard, place = where["c", r.id]
        logits.check_aligned(shard, place, r.id, r.token_ids, path)
        request = score_request(r.text, r.token_ids, messages=r.teacher_prompt or r.prompt)
        [direct] = scorer.score([request], {"kind": "topk", "k": 8, "temperature": 1.0})
        expected = np.maximum(direct.target.logprobs, logits.FLOOR)
        assert np.abs(shard.target(place).logprobs - expected).max() < 2e-3
        assert [s["id"].split("@")[0] for s in r.sources if s["role"] == "logits"] == ["third"]
    before = files(folder)
    for lost in [sorted((folder / "data").glob("*"))[0], folder / "manifest.json"]:
        lost.unlink()
    assert files(synthgen.generate(recipe, tmp_path / "run")) == before


def test_teachers_that_cannot_are_refused_in_one_line(written, talker, tmp_path):
    def recipe(**sections):
        return load_recipe(written(4, teacher=None, **sections))

    other = tmp_path / "other"
    shutil.copytree(talker[1], other)
    config = other / "chat_template.jinja"
    config.write_text(config.read_text() + "{# another #}")
    two = {n: {"model": m, "license": "MIT", "device": "cpu"} for n, m in (("a", talker[0]), ("b", str(other)))}
    with pytest.raises(TeacherError, match="different tokenizers"):
        synthgen.generate(recipe(teachers=two, logits={"score_by": ["b"]}), tmp_path / "run")
    same = {n: {"model": talker[0], "license": "MIT", "device": "cpu"} for n in ("a", "b")}
    with pytest.raises(TeacherError, match="'a' and 'b' are the same model"):
        synthgen.generate(recipe(teachers=same, strategy="disagreement"), tmp_path / "run2")

    answers_only = SimpleNamespace(can=frozenset({"sample"}), identity={"engine": "plain", "revision": "0"})
    with pytest.raises(TeacherError, match="'a' \\(plain\\) does not offer 'open_turn'"):
        refuse_incapable(recipe(teachers=two), {"a": answers_only, "b": answers_only}, [("a", "open_turn")])


def test_streamed_and_batched_are_the_same_rows_on_the_engine(shrunk):
    """The local teacher asked one request at a time: greedy, so that batches cannot matter."""
    recipe = shrunk("conversation", limit=4, generate={"temperature": 0.0}, steps={"temperature": 0.0})
    prompt = load_prompt(recipe.prompts, recipe.task)
    seeds = load_seeds(recipe.seeds, recipe.split, question(recipe, prompt))
    all_jobs = Jobs(recipe, seeds, prompt, who(recipe))
    [name] = who(recipe)
    teachers = {name: loaded(recipe.teacher)}

    def ask(requests):
        return ask_batch(teachers, None, lambda n: None, requests)

    some = all_jobs.range(0, len(all_jobs))
    make = STRATEGIES["conversation"].make
    alone = [lockstep([make(job)], ask)[0] for job in some]
    assert streamed(some, lambda request: ask([request])[0]) == alone


def test_upper_bounds_of_requests_hold(shrunk, tmp_path):
    """`plan` promises the most requests there can be; a run of every strategy asks no more."""
    for name in ("vote", "evolve", "conversation", "extract", "preference"):
        recipe = shrunk(name, limit=4, **UPDATES.get(name, {}))
        prompt = load_prompt(recipe.prompts, recipe.task)
        seeds = load_seeds(recipe.seeds, recipe.split, question(recipe, prompt))
        all_jobs = Jobs(recipe, seeds, prompt, who(recipe))
        teachers = {n: loaded(recipe.teacher) for n in who(recipe)}
        count = 0

        def ask(requests, teachers=teachers):
            nonlocal count
            count += len(requests)
            return ask_batch(teachers, None, lambda n: None, requests)

        lockstep([STRATEGIES[recipe.strategy].make(j) for j in all_jobs.range(0, len(all_jobs))], ask)
        assert 0 < count <= sum(synthgen.plan(recipe).requests.values())


def test_steps_have_defaults_for_every_strategy():
    for name, strategy in STRATEGIES.items():
        assert strategy.most(StepsSection(), 2) >= 1, name


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in MULTI if n not in ("consensus", "disagreement")])
def test_on_the_real_model(name, tmp_path):
    """The shipped recipe with the demo's teacher and few seeds: prints what it kept, and one row."""
    recipe = load_recipe(name)
    recipe = recipe.model_copy(update={"seeds": tuple(s.model_copy(update={"limit": 6}) for s in recipe.seeds)})
    folder = synthgen.generate(recipe, tmp_path / "run")
    rows = read(folder)
    print(f"\n{name}: {len(rows)} rows, failures {dict(Counter(f['kind'] for f in failures(folder)))}")
    for r in rows[:2]:
        print("   ", [m["content"][:160] for m in r.prompt if m["role"] != "system"], "→", r.text[:160])
    assert rows
    check_logits(folder, rows, k=64) if name == "score" else None
