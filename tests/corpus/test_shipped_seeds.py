"""The seeds that the package contains: their number, kinds and labels. No few-shot example is one of the seeds."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from synthgen.prompts import load_prompt
from synthgen.recipe import load_recipe, shipped
from synthgen.seeds import load_seeds, mask


def shipped_rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (shipped("data") / name).read_text(encoding="utf-8").splitlines()]


def plain(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def load_shipped(task: str):
    recipe = load_recipe(task)
    return load_seeds(recipe.seeds, recipe.split, load_prompt(recipe.prompts, recipe.task).question)


def test_reasoning_questions():
    rows = shipped_rows("reasoning.jsonl")
    kinds = Counter(row["kind"] for row in rows)
    assert len(rows) >= 300
    assert len([kind for kind, count in kinds.items() if count >= 20]) >= 5, kinds
    assert len({mask(row["question"]) for row in rows}) >= 250
    # the recipe may use only a part of the rows as seeds, but the seeds must have all kinds and enough test seeds
    seeds = load_shipped("reasoning")
    assert {s.fields["kind"] for s in seeds} == set(kinds)
    assert sum(s.split == "test" for s in seeds) >= 30
    assert len({plain(row["question"]) for row in rows}) == len(rows)
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(row["answer"].strip() and row["question"].strip() for row in rows)


def test_support_messages():
    rows = shipped_rows("support.jsonl")
    seeds = load_shipped("classify")
    assert len(rows) >= len(seeds) >= 240
    assert sum(s.split == "test" for s in seeds) >= 110
    assert len({plain(row["text"]) for row in rows}) == len(rows)
    assert {row["label"] for row in rows} == set(load_recipe("classify").generate.labels)
    assert min(Counter(tuple(s.reference) for s in seeds if s.split == "test").values()) >= 25


def test_instructions():
    rows = shipped_rows("instructions.jsonl")
    assert len({plain(row["instruction"] + " " + row.get("input", "")) for row in rows}) == len(rows) >= 40


@pytest.mark.parametrize("task", ["reasoning", "classify", "instruct"])
def test_no_few_shot_example_is_a_seed(task):
    prompt = load_prompt(load_recipe(task).prompts, task)
    asked = {mask(plain(prompt.question(s.fields))) for s in load_shipped(task)}
    shown = {mask(plain(prompt.question(example))) for example in prompt.examples}
    assert not asked & shown
