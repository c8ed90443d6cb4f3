"""Each rule across sections of a recipe: a recipe that breaks it, the message, and the line number."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import yaml
from support.commands import call

import distill
import synthgen
from synthgen.errors import RecipeError
from synthgen.recipe import Recipe, broken_rules, check_recipe, load_recipe, with_values
from synthgen.recipe.check import RULES

LOCAL = {"model": "./teacher", "license": "Apache-2.0"}
OTHER = {"model": "./other", "license": "Apache-2.0"}
VLLM = {"engine": "vllm", **LOCAL}
API = {"engine": "openai", "model": "m", "license": "openai"}
REPLAY = {"engine": "replay", "path": "replies.jsonl"}
TWO = {"small": LOCAL, "large": OTHER}
THREE = {**TWO, "third": {"model": "./third"}}
TOPK = {"kind": "topk", "k": 8}
DECODER = {"student": {"kind": "decoder", "layers": 2}}
SENTENCE = {"student": {"kind": "sentence", "layers": 2}}
CLASSIFY = {"strategy": "classify", "generate": {"labels": ["a", "b"]}}
CLASSIFIER = {"student": {"kind": "classifier"}}

# (a change that breaks a rule, the key in the message, a part of the message). The message has the line of this key.
BROKEN: list[tuple[dict, str, str]] = [
    (
        {
            "strategy": "classify_votes",
            "generate": {"labels": ["a", "b"]},
            "train": {"student": {"kind": "encoder", "model": "org/e"}, "loss": "reverse_kl"},
        },
        "train.loss",
        "shares of several answers: reverse_kl is not defined",
    ),
    (
        {"logits": {"kind": "sampled"}, "train": {"student": {"kind": "decoder", "model": "org/s"}, "across": {}}},
        "train.across",
        "train.across aligns top-k distributions at temperature 1",
    ),
    ({"teachers": {}, "train": DECODER}, "teachers", "key 'teacher' is missing"),
    ({"teacher": LOCAL, "teachers": {"a": OTHER}}, "teacher", "give 'teacher' or 'teachers', not both"),
    (
        {"teachers": TWO, "mixture": {"smal": 1}},
        "mixture.smal",
        "no teacher 'smal' in 'teachers'; did you mean 'small'?",
    ),
    ({"teachers": TWO, "steps": {"judge": "x"}}, "steps.judge", "no teacher 'x' in 'teachers'; known: large, small"),
    ({"teachers": TWO, "steps": {"rewriter": "x"}}, "steps.rewriter", "no teacher 'x'"),
    ({"teachers": TWO, "evaluate": {"judge": "x"}}, "evaluate.judge", "no teacher 'x'"),
    (
        {"teachers": TWO, "strategy": "embed", "train": SENTENCE, "evaluate": {"judge": "large"}},
        "evaluate.judge",
        "students of kind 'sentence' write no text to judge",
    ),
    ({"teachers": TWO, "logits": {"score_by": ["larg"]}}, "logits.score_by.0", "did you mean 'large'?"),
    (
        {"teachers": TWO, "logits": {"score_by": ["small"]}},
        "logits.score_by.0",
        "its distributions are stored in any case",
    ),
    ({"strategy": "rationale"}, "strategy", "'rationale' needs generate.answer_marker"),
    ({"strategy": "rationalize"}, "strategy", "'rationalize' needs generate.answer_marker"),
    ({"strategy": "classify", "generate": {"labels": ["a"]}}, "strategy", "needs two or more generate.labels"),
    ({"strategy": "best_of_n", "steps": {"candidates": 1}}, "steps.candidates", "two or more steps.candidates"),
    ({"strategy": "consensus", "teachers": {"a": LOCAL}}, "strategy", "needs two or more 'teachers'"),
    ({"strategy": "consensus", "teachers": TWO, "mixture": {"small": 1}}, "mixture", "asks every teacher"),
    ({"strategy": "consensus", "teachers": TWO, "logits": {"score_by": ["large"]}}, "logits.score_by", "every teacher"),
    ({"strategy": "score", "logits": None}, "strategy", "needs a 'logits' section"),
    ({"strategy": "score", "teachers": TWO, "mixture": {"small": 1, "large": 1}}, "mixture", "asks one teacher"),
    ({"strategy": "score", "teachers": TWO, "logits": {"score_by": ["large"]}}, "logits.score_by", "asks one teacher"),
    ({**CLASSIFY, "teachers": TWO, "logits": {"score_by": ["large"]}}, "logits.score_by", "no completions to score"),
    ({"teacher": REPLAY, "logits": TOPK}, "logits", "engine 'replay' gives no distributions"),
    ({"teacher": API, "logits": {"kind": "sampled"}}, "logits.kind", "engine 'openai' does not give: use kind: topk"),
    ({"teacher": VLLM, "logits": {**TOPK, "temperature": 2.0}}, "logits.temperature", "use 1, or kind: sampled"),
    ({"teacher": {**API, "tokenizer": "t"}, "logits": {**TOPK, "temperature": 2.0}}, "logits.temperature", "use 1"),
    (
        {"teacher": VLLM, "strategy": "score", "logits": {"kind": "sampled"}},
        "logits.kind",
        "no draws along completions",
    ),
    ({"teachers": {"a": LOCAL, "b": VLLM}, "logits": {"score_by": ["b"]}}, "logits.score_by", "no draws along"),
    ({"teacher": API, "logits": TOPK}, "logits", "name the model's tokenizer in teacher.tokenizer"),
    ({"teacher": {**API, "tokenizer": "t"}, "logits": {"kind": "topk", "k": 21}}, "logits.k", "at most 20"),
    (
        {"teacher": REPLAY, "generate": {"json_schema": {}}},
        "generate.json_schema",
        "cannot make answers follow a JSON schema",
    ),
    ({"teacher": API, "generate": {"regex": "a"}}, "generate.regex", "cannot make answers match a pattern"),
    ({"curate": {"web_text": "c4"}}, "curate.web_text", "the rows of a teacher have prompts"),
    ({"teacher": API, "train": {**DECODER, "kd_weight": 0}}, "train", "needs a local teacher"),
    ({"strategy": "preference", "train": DECODER}, "train", "no kind of student learns from preference pairs"),
    (
        {"train": CLASSIFIER},
        "train.student.kind",
        "needs a strategy that makes label probabilities, and 'answer' makes completions",
    ),
    ({"train": SENTENCE}, "train.student.kind", "needs strategy 'embed'"),
    ({**CLASSIFY, "train": DECODER}, "train.student.kind", "needs a strategy that makes completions"),
    (
        {"strategy": "embed", "train": {**SENTENCE, "kd_weight": 0.5}},
        "train.kd_weight",
        "have no labels that could be mixed in",
    ),
    ({**CLASSIFY, "train": {**CLASSIFIER, "rationale": {}}}, "train.rationale", "students that write text"),
    ({**CLASSIFY, "train": {**CLASSIFIER, "online": {}}}, "train.online", "a live teacher can score"),
    ({**CLASSIFY, "train": {**CLASSIFIER, "hidden": {}}}, "train.hidden", "only decoders have layers"),
    ({**CLASSIFY, "train": {**CLASSIFIER, "relations": {}}}, "train.relations", "only decoders have layers"),
    (
        {**CLASSIFY, "train": {**CLASSIFIER, "teacher": "a"}},
        "train.teacher",
        "does not learn from stored distributions",
    ),
    (
        {**CLASSIFY, "train": {**CLASSIFIER, "ensemble": {}}},
        "train.ensemble",
        "does not learn from stored distributions",
    ),
    (
        {**CLASSIFY, "train": {**CLASSIFIER, "across": {"run": "r"}}},
        "train.across",
        "does not learn from stored distributions",
    ),
    ({**CLASSIFY, "train": {**CLASSIFIER, "loss": "mse"}}, "train.loss", "learns by forward_kl"),
    ({"strategy": "embed", "train": {**SENTENCE, "loss": "mse"}}, "train.loss", "has a loss of its own"),
    ({"logits": None, "train": DECODER}, "train", "or set train.kd_weight to 0"),
    ({"train": {**DECODER, "loss": "reverse_kl"}}, "train.loss", "reverse_kl is not defined for sampled targets"),
    ({"logits": TOPK, "train": {**DECODER, "loss": "mse"}}, "train.loss", "mse is not defined for topk targets"),
    ({"teachers": TWO, "mixture": {"small": 1, "large": 1}, "train": DECODER}, "train", "the logits of one teacher"),
    ({"teachers": TWO, "logits": {"score_by": ["large"]}, "train": DECODER}, "train", "merge them with train.ensemble"),
    ({"teachers": TWO, "train": {**DECODER, "teacher": "large"}}, "train.teacher", "logits of 'large' are not stored"),
    (
        {
            "strategy": "disagreement",
            "teachers": TWO,
            "logits": {"kind": "sampled", "draws": 4, "score_by": ["small", "large"]},
            "train": {**DECODER, "teacher": "small", "mask_divergence": "large"},
        },
        "train.mask_divergence",
        "draws do not show them",
    ),
    (
        {
            "teachers": THREE,
            "logits": {"score_by": ["large"]},
            "train": {**DECODER, "ensemble": {"teachers": ["third"]}},
        },
        "train.ensemble.teachers",
        "the logits of 'third' are not stored; known: large, small",
    ),
    ({"train": {**DECODER, "ensemble": {}}}, "train.ensemble", "two or more teachers"),
    (
        {
            "teachers": TWO,
            "logits": {**TOPK, "score_by": ["large"]},
            "train": {**DECODER, "ensemble": {"by": "agreement"}},
        },
        "train.ensemble.by",
        "two teachers always get equal weights by agreement",
    ),
    (
        {
            "teachers": TWO,
            "logits": {**TOPK, "score_by": ["large"]},
            "train": {**DECODER, "ensemble": {"by": "validation"}},
        },
        "train.ensemble.by",
        "set split.validation",
    ),
    (
        {"teachers": TWO, "logits": {"score_by": ["large"]}, "train": {**DECODER, "ensemble": {"merge": "pool"}}},
        "train.ensemble.merge",
        "with draws, merge: pool is biased",
    ),
    (
        {
            "teachers": TWO,
            "split": {"validation": 0.1},
            "logits": {"score_by": ["large"]},
            "train": {**DECODER, "ensemble": {"by": "validation"}},
        },
        "train.ensemble.by",
        "draws give most tokens probability",
    ),
]


def values(change: dict) -> dict:
    """A recipe with one change."""
    base = {"task": "t", "license": "MIT", "seeds": [{"path": "s.jsonl", "source": "tests"}]}
    return {**base, **({} if "teachers" in change else {"teacher": LOCAL}), **change}


def line_of(path: Path, key: str) -> int:
    """The line of a dotted key in a file that yaml.safe_dump wrote."""
    lines, indent, at = path.read_text().splitlines(), 0, -1
    for part in key.split("."):
        if part.isdigit():
            at += 1 + int(part)
            continue
        at = next(n for n in range(at + 1, len(lines)) if lines[n].startswith(" " * indent + part + ":"))
        indent += 2
    return at + 1


@pytest.mark.parametrize(("change", "key", "sentence"), BROKEN, ids=[f"{key}: {text[:30]}" for _, key, text in BROKEN])
def test_a_broken_rule_says_so_at_its_line(tmp_path, change, key, sentence):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values(change), sort_keys=False))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    (found,) = [line for line in caught.value.message.split("\n") if sentence in line]
    assert found.startswith(f"{path}, line {line_of(path, key)}: ")
    assert caught.value.exit_code == 2


TEXT_ALONE = {**DECODER, "kd_weight": 0.0}
MIXED = {"teachers": TWO, "mixture": {"small": 1, "large": 1}}
AGREED = {**DECODER, "ensemble": {"by": "agreement"}}
# Recipes that are near to a broken rule, and break none.
WHOLE: list[dict] = [
    {**MIXED, "train": TEXT_ALONE},
    {**MIXED, "train": {**TEXT_ALONE, "student": {"kind": "decoder", "model": "org/s"}}},
    {**MIXED, "logits": None, "train": TEXT_ALONE},
    {"teachers": TWO, "mixture": {"small": 1}, "train": DECODER},
    {"teachers": TWO, "logits": {**TOPK, "score_by": ["large"]}, "train": {**DECODER, "teacher": "large"}},
    {"teachers": TWO, "logits": {**TOPK, "score_by": ["large"]}, "train": {**DECODER, "ensemble": {}}},
    {"teachers": THREE, "logits": {**TOPK, "score_by": ["large", "third"]}, "train": AGREED},
    {"teachers": TWO, "logits": {**TOPK, "score_by": ["large"]}, "train": TEXT_ALONE},
    {"teacher": API, "logits": None},
    {"teacher": REPLAY, "logits": None},
    {"teacher": {**API, "tokenizer": "./teacher"}, "logits": {**TOPK, "k": 20}},
    {"teacher": {**API, "tokenizer": "./teacher"}, "logits": {**TOPK, "temperature": 1.0}},
    {"teacher": LOCAL, "logits": {**TOPK, "temperature": 2.0}},
    {"teacher": LOCAL, "logits": {"kind": "sampled", "temperature": 2.0}},
    {"teacher": LOCAL, "strategy": "score", "logits": {"kind": "sampled"}},
    {"teachers": TWO, "strategy": "score", "mixture": {"small": 1}, "logits": TOPK},
    {"teachers": TWO, "steps": {"judge": "large", "rewriter": "small"}, "evaluate": {"judge": "large"}},
    {"teacher": API, "logits": None, "train": {"student": {"kind": "decoder", "model": "org/s"}, "kd_weight": 0.0}},
]


@pytest.mark.parametrize("change", WHOLE)
def test_a_recipe_near_a_rule_breaks_none(change):
    assert [problem.text for problem in broken_rules(Recipe.model_validate(values(change)))] == []


def test_every_rule_is_broken_here():
    recipes = [Recipe.model_validate(values(change)) for change, _, _ in BROKEN]
    assert [rule.__name__ for rule in RULES if not any([*rule(recipe)] for recipe in recipes)] == []


def test_shipped_recipes_break_none():
    assert broken_rules(load_recipe("reasoning")) == []
    for name in ("score", "consensus", "embed", "classify", "preference"):
        check_recipe(load_recipe(name))


def test_a_recipe_that_was_changed_in_python_is_checked(tmp_path):
    recipe = load_recipe("reasoning")
    assert recipe.train is not None
    changed = recipe.model_copy(update={"train": recipe.train.model_copy(update={"loss": "reverse_kl"})})
    with pytest.raises(
        RecipeError, match=r"^train.loss: this loss cannot be computed with logits.kind: reverse_kl is not defined"
    ):
        check_recipe(changed)
    run = tmp_path / "run"
    commands = (synthgen.generate, synthgen.curate, synthgen.audit, distill.train, distill.evaluate)
    for function in (synthgen.plan, *(partial(command, run=run) for command in commands)):
        with pytest.raises(RecipeError, match="reverse_kl"):
            function(changed)
    odd = recipe.model_copy(update={"split": recipe.split.model_copy(update={"test": 3})})
    with pytest.raises(RecipeError, match=r"^key 'split.test' is 3.0: input should be less than or equal to 1$"):
        check_recipe(odd)
    with pytest.raises(RecipeError, match=r'^train.loss="reverse_kl": train.loss: this loss cannot be computed'):
        with_values(recipe, {"train.loss": "reverse_kl"})
    assert not (tmp_path / "run").exists()


def train_one_that_breaks_a_rule(run: Path) -> None:
    import distill

    recipe = load_recipe("reasoning")
    assert recipe.train is not None
    changed = recipe.model_copy(update={"train": recipe.train.model_copy(update={"loss": "reverse_kl"})})
    with pytest.raises(RecipeError, match="reverse_kl"):
        distill.train(changed, run)


def test_training_checks_too(tmp_path):
    call(train_one_that_breaks_a_rule, tmp_path / "run")
