"""Which teachers of a recipe write rows, score rows, judge and rewrite, and what each must be able to do."""

from __future__ import annotations

import pytest
from support.scripted import JUDGE, THREE, write

from synthgen.generation import casting
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
