"""Strategies of one round with scripted replies; the needs of each strategy; and all shipped recipes."""

from __future__ import annotations

import pytest
from support.scripted import BROKEN, MARKER, TWO, at_once, identified, play, roles, write

import synthgen
from synthgen.errors import RecipeError
from synthgen.generation.inputs import first_queries, most_requests
from synthgen.recipe import StepsSection, load_recipe, shipped
from synthgen.tables.strategies import STRATEGIES
from synthgen.teachers.base import Reply

SHIPPED = sorted(path.parent.name for path in shipped("prompts").glob("*/recipe.yaml"))


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
    assert (request.completion_ids, request.messages[0]["content"]) == ((4, 5), "T")
    assert [at_once(job) for job in some[2:]] == [["completion"], ["completion"]]


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
        ({"teacher": None, "teachers": TWO, "logits": {"score_by": ["one"]}}, "stored in any case"),
        ({"teacher": None, "teachers": TWO, "logits": {"score_by": ["two"]}, "train": {}}, "logits of one teacher"),
        ({"strategy": "preference", "train": {}}, "preference pairs"),
        ({"strategy": "score", "logits": None}, "needs a 'logits' section"),
        ({"strategy": "best_of_n", "steps": {"candidates": 1}}, "two or more steps.candidates"),
        ({"teacher": None, "teachers": {"../x": TWO["one"]}}, "pattern"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(tmp_path, sections, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path / "task", 2, **sections))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_plans_and_resolves(name, tmp_path):
    recipe = load_recipe(name)
    found = synthgen.plan(recipe)
    assert found.seeds >= 6
    assert found.prompt
    assert recipe.teacher.license == "Apache-2.0"
    (tmp_path / "recipe.yaml").write_text(synthgen.recipe.dump_recipe(recipe))
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    asked = [queries for _, queries in first_queries(identified(recipe)) if queries]
    first = [query for queries in asked for query in queries]
    assert 0 < len({query.id for query in first}) <= sum(found.requests.values())
    assert sum(found.requests.values()) == len(asked) * most_requests(recipe), (
        "a seed without a question has no request"
    )
    if most_requests(recipe) > 1 and {query.request.kind for query in first} == {"sample"}:
        longest = max(recipe.generate.max_new_tokens, recipe.steps.max_new_tokens)
        assert found.completion_tokens == pytest.approx(sum(found.requests.values()) * longest, rel=0.01)


def test_every_strategy_is_shipped():
    assert {load_recipe(name).strategy for name in SHIPPED} == set(STRATEGIES)


def test_steps_have_defaults_for_every_strategy():
    for name, strategy in STRATEGIES.items():
        assert strategy.most_requests(StepsSection(), 2) >= 1, name
