"""Which teachers of a recipe write rows, score rows, judge and rewrite, and what each must be able to do."""

from __future__ import annotations

import json

import pytest
from support.scripted import JUDGE, THREE, write

from synthgen.generation import casting
from synthgen.prompts import load_prompt
from synthgen.recipe import load_recipe

SCORED = {"generate": {}, "logits": {"kind": "topk", "k": 4, "score_by": ["three"]}}


@pytest.mark.parametrize(
    ("strategy", "sections", "roles", "needs"),
    [
        ("answer", {}, "generator one", "one sample"),
        ("answer", {"steps": {"judge": "two", "rewriter": "three"}}, "generator one", "one sample"),
        ("answer", {"mixture": {"one": 2, "three": 1}}, "generator one, generator three", "one sample, three sample"),
        ("answer", SCORED, "generator one, logits three", "one sample, three score"),
        ("consensus", {}, "generator one, generator two, generator three", "one sample, two sample, three sample"),
        ("classify", {"generate": {"labels": ["yes", "no"]}}, "generator one", "one classify"),
        ("score", {"logits": {"kind": "topk", "k": 4}}, "logits one", "one score"),
        ("best_of_n", {"steps": {"judge": "two"}}, "generator one, judge two", "one sample, two sample"),
        ("best_of_n", {"steps": {}}, "generator one, judge one", "one sample, one sample"),
        ("best_of_n", {"steps": {"choose": "probability"}}, "generator one, judge one", "one sample, one classify"),
        ("best_of_n", {"steps": {"choose": "likelihood"}}, "generator one, judge one", "one sample, one score"),
        ("best_of_n", {"steps": {"choose": "reference", "judge": "two"}}, "generator one", "one sample"),
        ("evolve", {"steps": {"rewriter": "two"}}, "generator one, rewriter two", "one sample, two sample"),
        ("evolve", {"steps": {}}, "generator one", "one sample, one sample"),
    ],
)
def test_each_teacher_has_its_role_and_what_it_must_offer(tmp_path, strategy, sections, roles, needs):
    templates = {**JUDGE, "evolve_a": "Harder: {{ question }}"}
    if strategy == "score":
        templates |= {"assistant": "{{ answer }}"}
    sections = {"logits": None, **sections}
    if "steps" in sections and strategy == "best_of_n":
        sections["steps"] = {"candidates": 2, **sections["steps"]}
    path = write(tmp_path / "task", 2, templates, strategy=strategy, teacher=None, teachers=THREE, **sections)
    recipe = load_recipe(path)
    models = {section["model"]: name for name, section in THREE.items()}
    assert ", ".join(f"{one['role']} {models[one['source']]}" for one in casting.roles(recipe)) == roles
    assert ", ".join(" ".join(pair) for pair in casting.needs(recipe)) == needs


def asked_of(tmp_path, strategy, templates=None, examples=None, **sections) -> str:
    """The conversations with which the teachers' chat templates are checked: each teacher's name, and the first letters
    of the roles.
    """
    folder = tmp_path / "task"
    path = write(folder, 2, {**JUDGE, **(templates or {})}, strategy=strategy, logits=None, **sections)
    if examples:
        (folder / "examples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in examples))
    recipe = load_recipe(path)
    found = casting._conversations(recipe, load_prompt(recipe.prompts, recipe.task))
    return ", ".join(f"{name} {''.join(message['role'][0] for message in asked)}" for name, asked in found)


@pytest.mark.parametrize(
    ("strategy", "templates", "steps", "asked"),
    [
        ("answer", {}, {}, "one u"),
        ("answer", {"system": "Help."}, {}, "one su"),
        ("answer", {"teacher_system": "Think."}, {}, "one su"),
        ("best_of_n", {"judge_system": "Judge."}, {"candidates": 2, "judge": "two"}, "one u, two su"),
        ("best_of_n", {}, {"candidates": 2, "choose": "reference"}, "one u"),
        (
            "evolve",
            {"evolve_a": "A", "evolve_b": "B", "evolve_b_system": "S"},
            {"rewriter": "two"},
            "one u, two u, two su",
        ),
        ("consensus", {"system": "Help."}, {}, "one su, two su, three su"),
    ],
)
def test_the_conversations_are_checked_that_each_teacher_gets(tmp_path, strategy, templates, steps, asked):
    assert asked_of(tmp_path, strategy, templates, teacher=None, teachers=THREE, steps=steps) == asked


def test_two_examples_are_enough_for_the_check(tmp_path):
    examples = [{"question": f"{n}?", "answer": str(n)} for n in range(3)]
    templates = {"system": "Help.", "assistant": "{{ answer }}"}
    assert asked_of(tmp_path, "answer", templates, examples, teacher=None, teachers=THREE) == "one suauau"
