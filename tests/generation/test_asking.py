"""Strategies that make new questions, with scripted replies."""

from __future__ import annotations

import pytest
from support.scripted import BROKEN, NEW, at_once, first, play, roles

from synthgen.generation.strategies.questions import items
from synthgen.generation.strategies.swaps import swap
from synthgen.teachers.base import Reply


def test_self_instruct(jobs):
    some = jobs(8, strategy="self_instruct", steps={"shown": 3}, templates=NEW)
    job = some[0]
    [row], failed, [[new], [answered]] = play(job, ['"How old is the moon?"'], ["Old."])
    assert not failed
    shown = new.messages[-1]["content"].splitlines()[:-1]
    assert shown[0] == job.fields["question"]
    assert len(set(shown)) == 3
    assert shown != play(some[1], ["x?"], ["y"])[2][0][0].messages[-1]["content"].splitlines()[:-1]
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
        shown = first(job)[0].messages[-1]["content"].splitlines()[:-1]
        assert {side[text] for text in shown} == {job.seed.split}


def test_evolve(jobs):
    templates = {"evolve_a": "Harder: {{ question }}", "evolve_b": "Other: {{ question }}"}
    some = jobs(12, strategy="evolve", steps={"rounds": 2}, templates=templates)
    job = some[0]
    rows, failed, asked = play(job, ["Second?"], ["Third?"], ["a2", "a3"])
    assert not failed
    assert asked[1][0].messages[-1]["content"].endswith(": Second?")
    assert asked[1][0].parents == (asked[0][0].id,)
    assert [(r.prompt[-1]["content"], r.text, len(r.parents)) for r in rows] == [
        ("Second?", "a2", 1),
        ("Third?", "a3", 2),
    ]
    rows, [failure], _ = play(job, ["Second?"], ["second"], ["a2"])  # "second" equals "Second?" except for case and "?"
    assert ([r.text for r in rows], failure.kind) == (["a2"], "unchanged")
    used = {first(j)[0].messages[-1]["content"].split(":")[0] for j in some}
    assert used == {"Harder", "Other"}


def test_magpie_and_personas(jobs):
    job = jobs(strategy="magpie", templates={"turn_system": "On {{ answer }}."})[0]
    [row], _, [[turn], _] = play(job, ["What is one?"], ["1"])
    assert turn.open_turn
    assert turn.messages == [
        {"role": "system", "content": f"On {job.fields['answer']}."},
        {"role": "user", "content": ""},
    ]
    assert (row.prompt[-1]["content"], row.reference, row.parents) == ("What is one?", None, [turn.id])
    job = jobs(strategy="personas", templates={"ask": "You are {{ id }}."})[0]
    [row], _, [[asked], _] = play(job, ["Who am I?"], ["q0"])
    assert asked.messages == [{"role": "user", "content": f"You are {job.seed.id}."}]
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
    assert back.messages[-1]["content"] == "To English: Combien ?"
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
    rows, _, [[original, _]] = play(named, ["a", "b"])
    assert [r.prompt[-1]["content"] for r in rows] == ["Is Tom older than his aunt?", "Is Lily older than her uncle?"]
    assert [r.reference for r in rows] == [["Tom"], ["Lily"]]
    assert [(r.group_id, r.pair_role) for r in rows] == [(original.id, "original"), (original.id, "counterfactual")]
    assert (rows[0].parents, rows[1].parents) == ([], [original.id])
    assert at_once(plain) == ["unchanged"]


def test_extract(jobs):
    templates = {"questions": "{{ id }} List.", "user": "{{ id }} {{ question }}"}
    job = jobs(strategy="extract", steps={"candidates": 2}, templates=templates)[0]
    rows, _, [[listed], answers] = play(job, ["1. Who?\n2) Who?\n- Why?\n3. When?"], ["x", "y"])
    assert [r.prompt[-1]["content"] for r in rows] == ["q0 Who?", "q0 Why?"]
    assert {tuple(r.parents) for r in rows} == {(listed.id,)}
    assert len({a.id for a in answers}) == 2
    [], [failure], _ = play(job, [Reply("Who is", finish_reason="length")])
    assert failure.kind == "no_question"
    assert items("Q1: Who?\n\n* Why?\nc", whole=False) == ["Who?", "Why?"]


def test_conversation(jobs):
    template = "{% for m in conversation %}{{ m.role }}={{ m.content }};{% endfor %}"
    job = jobs(strategy="conversation", steps={"rounds": 2}, templates={"user_turn": template})[0]
    rows, failed, asked = play(job, ["a1"], ["And why?"], ["a2"])
    assert not failed
    assert asked[1][0].messages[-1]["content"] == f"user={job.fields['question']};assistant=a1;"
    assert [m["content"] for m in rows[1].prompt] == [job.fields["question"], "a1", "And why?"]
    assert [r.text for r in rows] == ["a1", "a2"]
    assert rows[1].parents == [asked[0][0].id, asked[1][0].id]
    assert [(r.group_id, r.pair_role) for r in rows] == [(rows[0].id, "turn_1"), (rows[0].id, "turn_2")]
    rows, [failure], _ = play(job, ["a1"], [""])
    assert ([r.text for r in rows], failure.kind) == (["a1"], "empty")
