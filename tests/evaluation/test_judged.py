"""A judge that compares answers: swapped positions, planted bias, and replies that name no choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.serving import write_recipe
from support.small import small_teacher

from distill.evaluation import judged
from distill.evaluation.judged import Verdicts, choice
from distill.held_out import HeldOut
from synthgen.errors import RecipeError
from synthgen.recipe import Recipe, check_recipe, load_recipe
from synthgen.records import Message
from synthgen.ui import UI


def held(n: int, text: str, reference: list[str] | None = None) -> HeldOut:
    """A held-out row with the teacher's recorded text."""
    question, answer = (Message(role=role, content=said) for role, said in (("user", f"q{n}?"), ("assistant", text)))
    nothing: Any = None
    return HeldOut(
        f"r{n}", f"s{n}", "test", None, [question], nothing, nothing, nothing, nothing, reference, [], None, [answer]
    )


ROWS = [held(n, f"theirs {n}") for n in range(4)]
OWN = [f"ours {n}" for n in range(4)]


def recipe_of(folder: Path, judge: dict[str, Any], **more: Any) -> Recipe:
    local = {"model": str(small_teacher(folder / "local")), "license": "MIT", "device": "cpu"}
    path = write_recipe(
        folder / "task",
        "http://127.0.0.1:1/v1",
        2,
        teachers={"writer": local, "critic": {"license": "MIT", **judge}},
        evaluate={"judge": "critic"},
        logits=None,
        **more,
    )
    text = path.read_text()
    begin, end = text.index("teacher:\n"), text.index("generate:\n")
    path.write_text(text[:begin] + text[end:])  # the key `teachers` replaces `teacher`
    return load_recipe(path)


def api(url: str) -> dict[str, Any]:
    return {"engine": "openai", "model": "m", "base_url": url, "api_key_env": "LOOPBACK_KEY", "max_retries": 0}


def subject(recipe: Recipe, folder: Path) -> Any:
    return SimpleNamespace(recipe=recipe, source=folder / "run" / "curated", ui=UI(quiet=True))


def replies(
    recipe: Recipe, rows: Sequence[HeldOut], own: Sequence[str], say: Callable[[str, str], str]
) -> dict[str, list[str]]:
    """For each pair of answers, in both orders: maps the judge's prompt to the reply `say(a, b)`."""
    table = {}
    for row, ours in zip(rows, own, strict=True):
        theirs = str(row.completion[-1]["content"])
        for a, b in ((ours, theirs), (theirs, ours)):
            request = judged._request(recipe, "critic", row, a, b)
            table[str(request.messages[-1]["content"]).strip()] = [say(a, b)]
    return table


@pytest.mark.parametrize(
    ("say", "win", "tie", "loss", "bias"),
    [
        (lambda a, b: "A", 0, 1, 0, 1),  # this judge always prefers the first position
        (lambda a, b: "B", 0, 1, 0, 1),
        (lambda a, b: "tie", 0, 1, 0, 0),
        (lambda a, b: "A" if a.startswith("ours") else "B", 1, 0, 0, 0),
        (lambda a, b: "A" if a.startswith("theirs") else "B", 0, 0, 1, 0),
        (lambda a, b: "A" if a.startswith("ours") else "tie", 0, 1, 0, 0),  # an answer must win in both orders
    ],
)
def test_only_what_is_preferred_in_both_positions_wins(serve, tmp_path, say, win, tie, loss, bias):
    server = serve()
    recipe = recipe_of(tmp_path, api(server.url))
    server.set(answers=replies(recipe, ROWS, OWN, say))
    verdicts = judged.judge(subject(recipe, tmp_path), ROWS, OWN)
    found = {name: values.mean() for name, values in verdicts.shares().items()}
    assert found == {"judge_win": win, "judge_tie": tie, "judge_loss": loss, "position_bias": bias}
    assert server.stats()["requests"] == 8
    assert verdicts.judge == "m"


def test_a_judgment_is_paid_once_and_kept_apart_from_the_rows(serve, tmp_path):
    server = serve()
    recipe = recipe_of(tmp_path, api(server.url))
    server.set(answers=replies(recipe, ROWS, OWN, lambda a, b: "A"))
    first = judged.judge(subject(recipe, tmp_path), ROWS, OWN)
    assert judged.judge(subject(recipe, tmp_path), ROWS, OWN) == first
    assert server.stats()["requests"] == 8, "the second time all replies are in the cache"
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"ledger"}


def test_equal_answers_tie_without_a_request(serve, tmp_path):
    server = serve()
    recipe = recipe_of(tmp_path, api(server.url))
    verdicts = judged.judge(subject(recipe, tmp_path), ROWS, [f" theirs {n}\n" for n in range(4)])
    assert verdicts.shares()["judge_tie"].tolist() == [1, 1, 1, 1]
    assert server.stats()["requests"] == 0


def test_a_reply_without_a_choice_counts_for_nothing(serve, tmp_path):
    server = serve()
    recipe = recipe_of(tmp_path, api(server.url))
    table = replies(recipe, ROWS, OWN, lambda a, b: "A" if a.startswith("ours") else "B")
    table |= replies(recipe, ROWS[:1], OWN[:1], lambda a, b: "Both are fine, A is shorter and B is longer.")
    server.set(answers=table)
    verdicts = judged.judge(subject(recipe, tmp_path), ROWS, OWN)
    assert np.isnan(verdicts.shares()["judge_win"]).tolist() == [True, False, False, False]
    assert np.nanmean(verdicts.shares()["judge_win"]) == 1
    assert "1 of 4 pairs are left out" in verdicts.notes()[0]


def test_a_judge_in_this_process_is_asked_too(tmp_path):
    """The small model's text never names a choice."""
    model = str(small_teacher(tmp_path / "judge"))
    recipe = recipe_of(tmp_path, {"model": model, "device": "cpu"}, steps={"max_new_tokens": 4})
    verdicts = judged.judge(subject(recipe, tmp_path), [held(0, "x")], ["y"])
    assert verdicts.first == verdicts.second == [None]
    assert verdicts.judge == model


def test_without_a_name_nobody_is_asked(tmp_path):
    recipe = recipe_of(tmp_path, api("http://127.0.0.1:1/v1"))
    none = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"judge": None})})
    assert judged.judge(subject(none, tmp_path), ROWS, OWN) is None


def test_a_judge_that_is_no_teacher_is_refused_before_anything_is_done(tmp_path):
    recipe = recipe_of(tmp_path, api("http://127.0.0.1:1/v1"))
    values = recipe.model_dump(mode="json")
    values["evaluate"]["judge"] = "critc"
    with pytest.raises(RecipeError, match="there is no teacher 'critc' in 'teachers'; did you mean 'critic'"):
        check_recipe(Recipe.model_validate(values))


def test_a_judge_needs_a_student_that_writes(tmp_path):
    recipe = recipe_of(tmp_path, api("http://127.0.0.1:1/v1"), strategy="embed")
    values = recipe.model_dump(mode="json")
    values["train"] = {"student": {"kind": "sentence"}}
    with pytest.raises(RecipeError, match="students of kind 'sentence' write no text to judge"):
        check_recipe(Recipe.model_validate(values))


def test_the_judge_sees_question_reference_and_both_answers(tmp_path):
    recipe = recipe_of(tmp_path, api("http://127.0.0.1:1/v1"))
    row = held(0, "{{ theirs }}", ["four", "4"])
    text = str(judged._request(recipe, "critic", row, "{% ours %}", "{{ theirs }}").messages[0]["content"])
    assert text.index("q0?") < text.index("four or 4") < text.index("{% ours %}") < text.index("{{ theirs }}")
    turns = [Message(role="user", content="hi"), Message(role="assistant", content="ho"), *row.prompt]
    assert judged._question(turns) == "user: hi\n\nassistant: ho\n\nuser: q0?"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A", "A"),
        ("b.", "B"),
        ("**Tie**", "tie"),
        ("[[B]]", "B"),
        ("Answer A", "A"),
        ("Verdict: B", "B"),
        ("My final verdict is: A", "A"),
        ("B\n\nIt is right, and A is not.", "B"),
        ("A is shorter, B is right.\n\nVerdict: B", "B"),
        ("<think>A? B?\nA</think>\nB", "B"),
        ("A\nthen again\nB", None),
        ("A or B", None),
        ("Answer A is better than answer B", None),
        ("C", None),
        ("", None),
    ],
)
def test_choices_are_read_and_never_guessed(text, found):
    assert choice(text) == found


def test_shares_add_up():
    verdicts = Verdicts("j", ["A", "B", "A", None, "tie"], ["B", "A", "A", "B", "B"])
    shares = verdicts.shares()
    total = sum(shares[name] for name in ("judge_win", "judge_tie", "judge_loss"))
    assert total.tolist()[:3] == [1, 1, 1]
    assert np.isnan(total[3])
    assert total[4] == 1
    assert shares["position_bias"].tolist()[:3] == [0, 0, 1]
