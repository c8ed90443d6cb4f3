"""How strategies read a teacher's replies: marks, lists, and new questions. None is guessed."""

from __future__ import annotations

import pytest
from support.answering import answering, reply
from support.scripted import JUDGE, MARKER, NEW, THREE, play
from support.serving import read_generated, write_recipe

import synthgen
from synthgen.generation.strategies.marks import mark
from synthgen.generation.strategies.questions import items, new_question, sameness
from synthgen.requests import Lineage, Query, Request
from synthgen.teachers.base import Reply


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # the mark alone, or on a separate line with its name
        ("7", 7), ("7.", 7), ("**4**", 4), ("9/10", 9), ("9 / 10", 9), ("6 out of 10", 6), ("[[8]]", 8), ("8.5", 8.5),
        ("Score: 8.5", 8.5), ("Mark: 9/10.", 9), ("**Final score:** 8/10", 8), ("### Rating: 3", 3), ("- Grade = 2", 2),
        ("My overall rating is 5.", 5), ("Well.\nMark: 5\nIt has 3 faults.", 5), ("It is fair.\n\n6", 6),
        ("4\nTwo of 3 facts are wrong.", 4), ("Score:\n7", 7), ("Score: 7\n…\nScore: 7/10", 7), ("\\boxed{7}", 7),
        # lines copied from the instructions, and numbers in sentences, are not marks
        ("Item 4 of the rubric is missed.\nScore: 3", 3), ("1 = bad, 10 = perfect\nScore: 4", 4),
        ("Maximum score: 10\nScore: 4", 4), ("Score: 1-10\nScore: 6", 6), ("Clarity score: 9\nScore: 2", 2),
        ("1 = bad, 5 = good", None), ("5/5 means perfect", None), ("Score: 1-5", None), ("Score: 10 = perfect", None),
        ("Maximum score: 10", None), ("Passing score: 6", None), ("I say 3.", None), ("between 3 and 5", None),
        ("Score: 7 because of 3 faults", None), ("The score is not 9.", None), ("1.\nThe answer is bad.", None),
        ("> Score: 9\nThis line of the answer is odd.", None), ("The 2 answers agree.", None),
        # not in the range, not a mark, or several marks
        ("11", None), ("0", None), ("-4", None), ("+4", None), ("7th", None), ("ten", None), ("", None), ("7/7", None),
        ("Score: 5/5", None), ("7/100", None), ("90%", None), ("1/2", None), ("7½", None), ("7 1/2", None),
        ("８", None), ("8,5", None), ("1e1", None), ("100", None), ("Score: 3\nScore: 7", None), ("3\n7", None),
        # JSON
        ('{"score": 7}', 7), ('```json\n{"reason": "3 faults", "Overall score": 6.5}\n```', 6.5),
        ('{"score": NaN}', None), ('{"score": 1e999}', None), ('{"score": 3, "score": 4}', None),
        ('{"score": "7"}', None),
        ('{"score": true}', None), ('{"max_score": 10}', None), ('{"score": 3, "mark": 4}', None),
        ("{" * 9999, None), ("1: 2", None),
    ],
)  # fmt: skip
def test_marks(text, value):
    assert mark(text) == value


@pytest.mark.parametrize(
    ("text", "found"),
    [
        # only markers are stripped
        (
            "2.5 kg cost what?\n9:15 is when?\n-3 degrees are?",
            ["2.5 kg cost what?", "9:15 is when?", "-3 degrees are?"],
        ),
        ("- -3 degrees are?\n- 2.5 kg cost what?", ["-3 degrees are?", "2.5 kg cost what?"]),
        ("1. 2.5 kg?\n2) -3?\n3: 9:15?", ["2.5 kg?", "-3?", "9:15?"]), ("2:1 odds pay?", ["2:1 odds pay?"]),
        ("31. of May is when?", ["31. of May is when?"]),
        ("3 - 4 is?\n+3 is?\n$5 is?", ["3 - 4 is?", "+3 is?", "$5 is?"]),
        ("(1) Why?\n(2) How?", ["Why?", "How?"]), ("Q1: Why?\nQuestion 2: How?", ["Why?", "How?"]),
        ("**1.** Why?\n2. **How?**", ["Why?", "How?"]), ("• Why?\n– How?", ["Why?", "How?"]),
        ("a) Why?\nb) How?", ["Why?", "How?"]),
        ("  4. Why?\n  5. How?", ["Why?", "How?"]),
        ('- "Why?"\n- "Why," she said, "me?"', ["Why?", '"Why," she said, "me?"']),
        # introductions, headings and closing remarks are no items
        ("Here are two:\n1. Why?\n2. How?", ["Why?", "How?"]),
        ("Sure!\n\nWhy?\nHow?\n\nI hope these help.", ["Why?", "How?"]),
        ("Why?\nHow?\nWould you like more?", ["Why?", "How?"]), ("# List\n\nWhy?", ["Why?"]),
        ("* * *\n1. Why?\n---", ["Why?"]),
        ("1. Why?\n\n2. How?\n\n- These are hard.", ["Why?", "How?"]),
        ("**Easy:**\n- Why?\n**Hard:**\n- How?", ["Why?", "How?"]),
        ("Here are tasks:\nName a bird.\nName a fish.", ["Name a bird.", "Name a fish."]),
        ("The sea is:\nThe sky is:", ["The sea is:", "The sky is:"]), ("Here are two:", []),
        # nested lists: options stay with their question, and a heading is replaced by its items
        ("1. Which flies?\n   a) bird\n   b) fish\n2. Why?", ["Which flies?\na) bird\nb) fish", "Why?"]),
        ("1. Which flies?\n- bird\n- fish\n2. Why?", ["Which flies?\n- bird\n- fish", "Why?"]),
        ("1. Birds:\n   - Why?\n   - How?\n2. Fish:\n   - When?", ["Why?", "How?", "When?"]),
        ("1. Why does\n   it fly?\n2. How?", ["Why does\nit fly?", "How?"]),
        ("1. Why?\n   Answer: So.\n2. How?", ["Why?", "How?"]),
        # code
        ("```\n1. Why?\n2. How?\n```", ["Why?", "How?"]), ("1. What does it do?\n```\nx = 1\n```\n2. Why?", []),
        # JSON
        ('["Why?", "How?"]', ["Why?", "How?"]), ('[\n  "Why?",\n  "3 - 4 is?"\n]', ["Why?", "3 - 4 is?"]),
        ('Here are two:\n\n["Why?", "Why?", "How?"]', ["Why?", "How?"]),
        ('```json\n{"questions": [{"question": "Why?"}, {"question": "How?"}]}\n```', ["Why?", "How?"]),
        ('["Why?", 3]', []), ('[{"question": "Why?", "answer": "So."}]', []), ('["Why?", "How?]', []),
        ('["a"] has which length?\n{"a": 1} has which keys?', ['["a"] has which length?', '{"a": 1} has which keys?']),
        ('- ["a"] has which length?\n- Is [] true?', ['["a"] has which length?', "Is [] true?"]),
        # repeated items are dropped; items with different operators or signs are different
        ("1. Why?\n2. why\n3. How?", ["Why?", "How?"]), ("- 3 - 4?\n- 3 + 4?\n- 3+4?", ["3 - 4?", "3 + 4?"]),
    ],
)  # fmt: skip
def test_items(text, found):
    assert items(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('["Why?", "Ho', []), ("1. Why?\n2. Ho", ["Why?"]), ("Why?\nHow?", ["Why?"]), ("Why?", []),
        ("1. Why?\n2. Which flies?\n   a) bi", ["Why?"]), ("1. Birds:\n   - Why?\n   - Ho", ["Why?"]),
    ],
)  # fmt: skip
def test_the_last_item_of_a_cut_list_is_left_out(text, found):
    assert items(text, whole=False) == found


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is 8 - 5?", "What is 8 + 5?", False), ("Is 3 > 2?", "Is 3 < 2?", False), ("x^2", "x2", False),
        ("What is -5?", "What is 5?", False), ("1.5 m", "15 m", False), ("5%", "5", False), ("$5", "5", False),
        ("2 * (3 + 4)", "2 * 3 + 4", False), ("Learn C++.", "Learn C.", False), ("4!", "4", False),
        ("a + b", "+ b", False),
        ("10:30", "1030", False), ("x²", "x2", False), ("€5", "$5", False), ("3/4", "34", False),
        ("8+5?", "8 + 5", True), ("What is  it?", "what is it", True), ("The dog", "a dog", True),
        ("It's", "it’s", True),
        ("A well-known dog", "A well known dog", True), ('Say "no".', "Say no", True), ("**Why?**", "Why", True),
        ("8 − 5", "8 - 5", True), ("Wow!", "Wow", True),
        ("Why?!", "why", True), ("n!", "n", False), ("(n + 1)!", "(n + 1)", False),
    ],
)  # fmt: skip
def test_questions_that_are_the_same(one, other, same):
    assert (sameness(one) == sameness(other)) is same


QUERY = Query(Request("sample", [], id="q"), Lineage("s", "train", [], ()))


@pytest.mark.parametrize(
    ("text", "finish", "found"),
    [
        ('"Why?"', "stop", "Why?"), ("“Why?”", "stop", "Why?"), ("'What's up?'", "stop", "What's up?"),
        ('"No," she said, "is it?"', "stop", '"No," she said, "is it?"'), ('"Why?”', "stop", '"Why?”'),
        ("Here is a harder one:\n\nWhy is it so?", "stop", "Why is it so?"), ("**Question:** Why?", "stop", "Why?"),
        ("Rewritten prompt: Why?", "stop", "Why?"),
        ("Here is a riddle: what flies?", "stop", "Here is a riddle: what flies?"),
        ("What is 2 + 2?", "stop", "unchanged"), ("what is 2+2", "stop", "unchanged"),
        ("What is 2 - 2?", "stop", "What is 2 - 2?"),
        ('""', "stop", "empty"), ("What is a wh", "length", "cut"), ("Why?", "unknown", "cut"), ("Why?", "", "cut"),
        ("Why?", "content_filter", "cut"), ("Why?", "tool_calls", "cut"),
    ],
)  # fmt: skip
def test_new_questions(text, finish, found):
    read = new_question(QUERY, Reply(text, finish_reason=finish), ["What is 2 + 2?"])
    assert (read if isinstance(read, str) else read.kind) == found


CUT = Reply("So. Answer: 1", finish_reason="length", token_ids=[1, 2])


def test_a_cut_reply_has_no_vote_and_is_no_candidate(jobs):
    """The answer of a cut reply may be incomplete, so it equals neither the reference nor another answer."""
    job = jobs(strategy="vote", generate=MARKER, steps={"candidates": 3})[0]
    [row], _, _ = play(job, ["Answer: 2", CUT], [CUT])
    assert (row.answer, {s["name"]: s["value"] for s in row.scores}["agreement"]) == ("2", 1 / 3)
    [], failed, _ = play(job, [CUT] * 2, [CUT])
    assert {(f.kind, f.reason) for f in failed} == {("cut", "the reply was cut off at 2 tokens: 'So. Answer: 1'")}
    job = jobs(strategy="rationalize", generate=MARKER, templates={"hint": "{{ question }} {{ answer }}"})[0]
    assert job.seed.reference == ["1"]
    [row], _, asked = play(job, [CUT], ["Answer: 1"])
    assert (len(asked), {s["name"]: s["value"] for s in row.scores}) == (2, {"rationalized": 1.0})
    [], [failed], _ = play(job, [CUT], [CUT])
    assert failed.kind == "cut"
    job = jobs(strategy="best_of_n", steps={"candidates": 2, "choose": "reference"}, generate=MARKER)[0]
    [row], [failed], _ = play(job, [CUT, "Answer: 5"])
    assert (row.text, failed.kind) == ("Answer: 5", "cut")
    job = jobs(strategy="disagreement", teacher=None, teachers=THREE)[0]
    [], [failed], _ = play(job, ["1", "2", CUT])
    assert failed.kind == "cut"


def test_a_cut_judgment_and_a_cut_turn_are_not_used(jobs):
    job = jobs(strategy="best_of_n", steps={"candidates": 2}, templates=JUDGE)[0]
    [row], [failed], _ = play(job, ["a", "b"], [Reply("Score: 1", finish_reason="length"), "2"])
    assert (row.text, failed.kind) == ("b", "cut")  # the first mark may have been 10
    job = jobs(strategy="best_of_n", steps={"candidates": 2, "choose": "probability"}, templates=JUDGE)[0]
    verdicts = [Reply("Yes", label_probs=[0.9, 0.1], finish_reason="length"), Reply(finish_reason="stop")]
    [], failed, _ = play(job, ["a", "b"], verdicts)
    assert [f.kind for f in failed] == ["cut", "judge"]  # a reply without probabilities has no reward
    job = jobs(strategy="best_of_n", steps={"candidates": 2, "choose": "likelihood"})[0]
    scored = [Reply("a", token_logprobs=[-2.0], finish_reason="length"), Reply("b")]
    [row], [failed], _ = play(job, ["a", "b"], scored)
    assert (row.text, failed.kind) == ("a", "judge")
    templates = {"user_turn": "{% for m in conversation %}{{ m.content }} {% endfor %}And?"}
    job = jobs(strategy="conversation", steps={"rounds": 3}, templates=templates)[0]
    rows, [failed], asked = play(job, ["a1"], ["And then?"], [Reply("half a sent", finish_reason="length")])
    assert ([r.text for r in rows], failed.kind, len(asked)) == (["a1", "half a sent"], "cut", 3)
    assert failed.reason.startswith("turn 2 is not finished: the reply was cut off")
    assert failed.id not in {r.id for r in rows}
    job = jobs(strategy="self_instruct", templates=NEW)[0]
    [], [failed], asked = play(job, [Reply("Why do", finish_reason="unknown")])
    assert (failed.kind, len(asked)) == ("cut", 1)


def test_the_best_answer_by_marks_over_the_wire(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))
    replies = {
        "MARK weak": reply("Rule 9 is broken.\nScore: 2"),
        "MARK fine": reply("Rule 1 is kept.\nScore: 8"),
        "MARK torn": reply("Score: 1", "length"),
        "MARK loud": reply("10 of my friends like it."),
        "q0": reply("weak"), "q1": reply("fine"), "q2": reply("torn"), "q3": reply("loud"),
    }  # fmt: skip
    seeds = [{"id": f"q{n}", "question": f"q{n}"} for n in range(4)]
    with answering(replies) as url:
        more = {"strategy": "best_of_n", "steps": {"candidates": 2}, "teacher": {"api_key_env": None}}
        path = write_recipe(tmp_path / "task", url, seeds, **more)
        (path.parent / "judge.j2").write_text("MARK {{ completion }}")
        rows, failures, _ = read_generated(synthgen.generate(synthgen.load_recipe(path), tmp_path / "run").folder)
    rewards = {r.text: {s["name"]: s["value"] for s in r.scores}["reward"] for r in rows}
    assert rewards == {"weak": 2.0, "fine": 8.0}
    assert sorted(f["kind"] for f in failures) == ["cut", "cut", "judge", "judge"]
