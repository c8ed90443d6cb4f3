"""The domain packs have seeds of five kinds, right references, held-out seeds that differ from the training seeds, and
a rubric.
"""

from __future__ import annotations

import ast
import json
import operator
import re
from collections import Counter
from datetime import date, timedelta
from fractions import Fraction
from functools import cache

import pytest
from click.testing import CliRunner

from synthgen.cli import main
from synthgen.curation.refusals import declining
from synthgen.generation.strategies.marks import mark
from synthgen.prompts import Prompt, load_prompt
from synthgen.recipe import load_recipe, shipped
from synthgen.seeds import Seed, load_seeds
from synthgen.verify import matches_any

PACKS = ("customer_support", "finance", "healthcare", "legal")
KINDS = {"explain", "calculate", "classify", "extract", "decide"}
DECISIONS = {"help", "decline"}
MORE_DECISIONS = {"healthcare": {"urgent"}}
WORDS = 5  # number of words of a sequence, as in `curate.split_twins`
ALIKE = 0.5  # maximum similarity; `curate.split_twins` rejects rows from 0.8 on
CONSTANTS = {"1", "100"}
"""Numbers that may be in a calculation although they are not in the question, for percentages and interest."""
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: lambda base, power: base ** int(power),
}
DAYS = re.compile(r"(\d{4}-\d\d-\d\d) ([+-]) (\d+) days")


@cache
def prompt_of(pack: str) -> Prompt:
    return load_prompt(load_recipe(pack).prompts, pack)


@cache
def seeds_of(pack: str) -> list[Seed]:
    recipe = load_recipe(pack)
    return list(load_seeds(recipe.seeds, recipe.split, prompt_of(pack).question))


def of_kind(pack: str, kind: str) -> list[Seed]:
    return [seed for seed in seeds_of(pack) if seed.fields["kind"] == kind]


def value(node: ast.expr) -> Fraction:
    """The exact value of an arithmetic expression."""
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](value(node.left), value(node.right))
    assert isinstance(node, ast.Constant), ast.dump(node)
    return Fraction(str(node.value))


def computed(check: str) -> str:
    """The result of a seed's `check`: a number, or a date such as "March 17"."""
    if days := DAYS.fullmatch(check):
        moved = timedelta(days=int(days[3]) * (1 if days[2] == "+" else -1))
        result = date.fromisoformat(days[1]) + moved
        return f"{result:%B} {result.day}"
    found = value(ast.parse(check, mode="eval").body)
    return str(found.numerator if found.denominator == 1 else float(found))


def sequences(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[n : n + WORDS]) for n in range(max(1, len(words) - WORDS + 1))}


def alike(one: str, other: str) -> float:
    a, b = sequences(one), sequences(other)
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("pack", PACKS)
def test_seeds_of_five_kinds(pack):
    seeds = seeds_of(pack)
    assert {seed.fields["kind"] for seed in seeds} == KINDS
    assert len({seed.id for seed in seeds}) == len({seed.fields["question"] for seed in seeds}) == len(seeds)
    for seed in seeds:
        assert seed.id.startswith(f"{pack}-{seed.fields['kind']}-")
        assert (seed.reference is None) == (seed.fields["kind"] == "explain"), seed.id
    for kind in KINDS:
        splits = Counter(seed.split for seed in seeds if seed.fields["kind"] == kind)
        assert splits["train"] >= 10, (kind, splits)
        assert splits["test"] >= 3, (kind, splits)
    assert sum(seed.split == "train" for seed in seeds) >= 60


@pytest.mark.parametrize("pack", PACKS)
def test_results_of_calculations_are_right(pack):
    for seed in of_kind(pack, "calculate"):
        check, question = seed.fields["check"], seed.fields["question"]
        assert seed.fields["answer"] == computed(check), seed.id
        assert matches_any(computed(check), seed.reference), seed.id
        named = {number.replace(",", "").removesuffix(".") for number in re.findall(r"\d[\d,.]*", question)}
        if days := DAYS.fullmatch(check):
            begin = date.fromisoformat(days[1])
            assert f"{begin:%B} {begin.day}" in question, seed.id
            assert days[3] in named, seed.id
        else:
            assert set(re.findall(r"\d+(?:\.\d+)?", check)) <= named | CONSTANTS, seed.id


def test_a_wrong_result_is_found():
    assert computed("60-60*25/100") == "45"
    assert computed("2.54*10") == "25.4"
    assert computed("2026-02-25 + 7 days") == "March 4"
    assert not matches_any("46", [computed("60-60*25/100")])


@pytest.mark.parametrize("pack", PACKS)
def test_other_answers_are_labels_or_words_of_the_question(pack):
    prompt = prompt_of(pack)
    for seed in of_kind(pack, "extract"):
        quoted, asked = seed.fields["question"].rsplit('" ', 1)
        assert seed.fields["answer"] in quoted, seed.id
        assert seed.fields["answer"] not in asked, seed.id
    for kind in ("classify", "decide"):
        seeds = of_kind(pack, kind)
        labels = Counter(seed.fields["answer"] for seed in seeds)
        assert min(labels.values()) >= 4, labels
        closing = prompt.question(seeds[0].fields).rsplit(": ", 1)[1]
        assert set(re.findall(r"\w+", closing)) - {"or"} == set(labels)
        assert {seed.fields["answer"] for seed in seeds if seed.split == "train"} == set(labels)
    assert set(labels) == DECISIONS | MORE_DECISIONS.get(pack, set())


@pytest.mark.parametrize("pack", PACKS)
def test_held_out_seeds_are_unlike_all_others(pack):
    seeds = seeds_of(pack)
    shown = [str(example["question"]) for example in prompt_of(pack).examples]
    questions = {
        split: [seed.fields["question"] for seed in seeds if seed.split == split] for split in ("train", "test")
    }
    for held_out in questions["test"]:
        for other in (*questions["train"], *shown):
            assert alike(held_out, other) < ALIKE, (held_out, other)
    assert alike("How many days are left of the notice?", "How many days are left of the notice?") == 1


@pytest.mark.parametrize("pack", PACKS)
def test_written_replies_are_not_taken_for_refusals(pack):
    """The check `refusal` of curation rejects replies that only decline. The replies to requests that must be declined
    name a better way, so that rows with such replies are kept.
    """
    prompt = prompt_of(pack)
    replies = [seed.fields["reply"] for seed in of_kind(pack, "decide")]
    replies += [example["reply"] for example in prompt.examples if example["kind"] == "decide"]
    assert len(replies) > 20
    assert {reply: declining(str(reply)) for reply in replies if declining(str(reply))} == {}


def test_the_check_sees_refusals_of_harmless_questions():
    for reply in ("I cannot help with that.", "I'm sorry, but I can't assist with killing a standing order."):
        assert declining(reply) is not None


@pytest.mark.parametrize("pack", PACKS)
def test_the_teacher_sees_the_examples_of_the_kind(pack):
    prompt = prompt_of(pack)
    assert {example["kind"] for example in prompt.examples} == KINDS
    assert all(example["when"] == {"kind": example["kind"]} for example in prompt.examples)
    asked = {seed.fields["question"] for seed in seeds_of(pack)}
    assert not asked & {example["question"] for example in prompt.examples}
    for seed in seeds_of(pack):
        teacher, student = prompt.teacher(seed.fields), prompt.student(seed.fields)
        assert teacher[0] == student[0], "the system message"
        assert teacher[-1] == student[-1]
        assert len(teacher) == 2 + 2 * sum(example["kind"] == seed.fields["kind"] for example in prompt.examples)
        assert len(student) == 2


@pytest.mark.parametrize("pack", PACKS)
def test_answers_of_examples_are_right(pack):
    prompt = prompt_of(pack)
    for example in prompt.examples:
        if example["kind"] == "calculate":
            left, right = str(example["reply"]).split(" = ")
            assert right == example["answer"], example
            assert "days" in left or computed(left) == right, example
        if example["kind"] == "extract":
            assert str(example["answer"]) in str(example["question"]), example


@pytest.mark.parametrize("pack", PACKS)
def test_the_rubric_asks_for_a_mark(pack):
    recipe = load_recipe(pack, ["strategy=best_of_n", "steps.candidates=4", "steps.choose=judge"])
    prompt = load_prompt(recipe.prompts, recipe.task)
    fields = {**seeds_of(pack)[0].fields, "completion": "A reply.", "reference": ""}
    [message] = prompt.step("judge", fields)
    assert "The right answer" not in message["content"]
    assert "The right answer: 12" in prompt.step("judge", {**fields, "reference": "12"})[0]["content"]
    asked = message["content"].rsplit('"', 2)[1]
    assert mark(asked.replace("N", "7")) == 7


@pytest.mark.parametrize("pack", PACKS)
def test_new_questions_can_be_asked_for(pack):
    recipe = load_recipe(pack, ["strategy=self_instruct"])
    prompt = load_prompt(recipe.prompts, recipe.task)
    first, second, *_ = [seed.fields for seed in seeds_of(pack)]
    assert str(first["question"]) in prompt.step("new", {**second, "examples": [first]})[0]["content"]


@pytest.mark.parametrize("pack", PACKS)
def test_cards_say_what_the_pack_is_for(pack):
    notes = load_recipe(pack).notes
    assert [note.split(":")[0] for note in notes] == ["Intended use", "Limits", "Safety", "Terms"]
    assert load_recipe(pack).train is not None


@pytest.mark.parametrize("pack", PACKS[-1:])  # one pack, because planning takes a second; their recipes are alike
def test_the_pack_can_be_planned(pack):
    done = CliRunner().invoke(main, ["plan", pack, "--json"])
    assert done.exit_code == 0, done.output
    planned = json.loads(done.stdout)
    assert planned["seeds"] == len(seeds_of(pack))


def test_seeds_are_in_the_package_as_they_are_written():
    for pack in PACKS:
        lines = (shipped("prompts") / pack / "seeds.jsonl").read_text(encoding="utf-8").splitlines()
        assert all(json.dumps(json.loads(line), ensure_ascii=False) == line for line in lines)
