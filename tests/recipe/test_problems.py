"""All problems of a recipe are reported together. Each problem has a line of its own, with the line number in the YAML
file.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.commands import cold

from synthgen.errors import RecipeError
from synthgen.recipe import load_recipe
from synthgen.recipe.explain import _child
from synthgen.recipe.generate import GenerateSection
from synthgen.recipe.load import MOST_PROBLEMS

PLAIN = """\
task: sums
license: CC0-1.0
seeds:
  - path: seeds.jsonl
    source: tests
teacher:
  model: ./teacher
  license: Apache-2.0
"""


def problems(folder: Path, text: str) -> list[tuple[int, str]]:
    """(line number, message) for each problem of a recipe with this text."""
    path = folder / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    found = [
        re.fullmatch(rf"{re.escape(str(path))}, line (\d+): (.+)", line) for line in caught.value.message.split("\n")
    ]
    assert all(found), caught.value.message
    return [(int(match[1]), match[2]) for match in found]


def test_all_problems_are_told_unknown_keys_first(tmp_path):
    text = PLAIN.replace("  model: ./teacher", "  modle: ./teacher\n  model: ./teacher") + (
        "split:\n  test: 3\ngenerate:\n  num_generations: many\n  temprature: 1\nstrategy: rationale\n"
    )
    assert problems(tmp_path, text) == [
        (7, "unknown key 'teacher.modle'; did you mean 'model'?"),
        (14, "unknown key 'generate.temprature'; did you mean 'temperature'?"),
        (11, "key 'split.test' is 3: input should be less than or equal to 1"),
        (
            13,
            "key 'generate.num_generations' is 'many': input should be a valid integer, unable to parse string as an "
            "integer",
        ),
    ], "and not that the strategy needs a marker: the section that would have it is wrong itself"


def test_wrong_sections_and_broken_rules_are_told_together(tmp_path):
    text = PLAIN + (
        "generate:\n  top_p: 2\nlogits:\n  kind: topk\n  temperature: 2\n"
        "train:\n  student: {kind: classifier}\n  loss: mse\n"
    )
    text = text.replace("  model: ./teacher", "  engine: vllm\n  model: ./teacher")
    lines = problems(tmp_path, text)
    assert [line for line, _ in lines] == [11, 14, 16, 17]
    assert "generate.top_p" in lines[0][1]
    assert lines[1][1].startswith("logits.temperature is 2.0: the normalizer")
    assert lines[2][1].startswith("train.student.kind: a student of kind 'classifier' needs a strategy that makes")
    assert lines[3][1] == "train.loss is 'mse', but a student of kind 'classifier' learns by forward_kl"


def test_rules_of_a_section_point_at_their_key(tmp_path):
    text = PLAIN + (
        "train:\n  student:\n    kind: decoder\n    layers: 2\n    model: x\n"
        "  beta: 0.5\n  online:\n    mode: teacher\n    reuse: 3\n"
    )
    assert problems(tmp_path, text) == [
        (13, "train.student.model: give at most one of 'layers', 'model' and 'config', not layers and model"),
        (17, "train.online.reuse: 'reuse' is only used in mode on_policy, but mode is 'teacher'"),
    ], "the rules of `train` itself wait until its parts are right"
    assert problems(tmp_path, text.replace("    model: x\n", "").replace("    reuse: 3\n", "")) == [
        (13, "train.beta: 'beta' is only used by loss jsd, but loss is 'forward_kl'")
    ]


def test_a_missing_key_with_a_typing_error_is_told_once(tmp_path):
    assert problems(tmp_path, PLAIN.replace("seeds:", "sedes:")) == [(3, "unknown key 'sedes'; did you mean 'seeds'?")]
    assert problems(tmp_path, PLAIN.replace("source:", "sorce:")) == [
        (5, "unknown key 'seeds.0.sorce'; did you mean 'source'?")
    ]


def test_a_key_in_the_wrong_place_is_told_where_it_belongs(tmp_path):
    text = PLAIN + "max_new_tokens: 4\ntrain:\n  student: {kind: decoder, buckets: 4}\n  labels: [a]\n"
    assert [sentence for _, sentence in problems(tmp_path, text)] == [
        "unknown key 'max_new_tokens'; did you mean 'generate.max_new_tokens' or 'steps.max_new_tokens' or "
        "'evaluate.max_new_tokens'?",
        "unknown key 'train.student.buckets'; it belongs to kind: classifier",
        "unknown key 'train.labels'; did you mean 'generate.labels'?",
    ]
    text = PLAIN.replace("  model: ./teacher", "  model: ./teacher\n  max_in_flihgt: 3")
    assert problems(tmp_path, text) == [
        (8, "unknown key 'teacher.max_in_flihgt'; did you mean 'max_in_flight'? (engine: openai)")
    ]


def test_of_very_many_problems_the_rest_is_counted(tmp_path):
    text = PLAIN + "split:\n" + "".join(f"  zzz{number}: 1\n" for number in range(MOST_PROBLEMS + 5))
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    lines = caught.value.message.split("\n")
    assert len(lines) == MOST_PROBLEMS + 1
    assert lines[-1] == "and 5 more problems"


def test_a_license_is_inherited_or_asked_for(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(PLAIN)
    assert load_recipe(path).seeds[0].license == "CC0-1.0"
    path.write_text(PLAIN.replace("    source: tests\n", "    source: tests\n    license: MIT\n"))
    assert load_recipe(path).seeds[0].license == "MIT"
    missing = "key 'seeds.0.license' is missing: add it, or set `license:` once at the top of the recipe"
    assert problems(tmp_path, PLAIN.replace("license: CC0-1.0\n", "", 1)) == [(3, missing)]
    assert [sentence[:13] for _, sentence in problems(tmp_path, PLAIN.replace("CC0-1.0", "[a]", 1))] == [
        "key 'license'"
    ]


def test_names_of_teachers_may_have_dots(tmp_path):
    text = PLAIN.split("teacher:")[0] + (
        "teachers:\n  gpt-4.1:\n    model: ./a\n    batch_sise: 2\n  b:\n    model: ./b\nmixture: {gpt-4.2: 1}\n"
    )
    assert problems(tmp_path, text) == [
        (9, "unknown key 'teachers.gpt-4.1.batch_sise'; did you mean 'batch_size'?"),
    ]
    assert problems(tmp_path, text.replace("    batch_sise: 2\n", "")) == [
        (11, "mixture.gpt-4.2: there is no teacher 'gpt-4.2' in 'teachers'; known: b, gpt-4.1")
    ]


def test_a_name_that_is_none_is_told(tmp_path):
    text = PLAIN.split("teacher:")[0] + "teachers:\n  ../x:\n    model: ./a\n"
    assert problems(tmp_path, text) == [
        (7, "key 'teachers.../x' is '../x': string should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$'")
    ]


def test_the_command_prints_a_line_for_each_problem(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(PLAIN + "split: {test: 3, tset: 0.1}\n")
    done = cold("synthgen", "plan", path)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == [
        f"Error: {path}, line 9: unknown key 'split.tset'; did you mean 'test'?",
        f"  {path}, line 9: key 'split.test' is 3: input should be less than or equal to 1",
        "  → change the line of the recipe that the message names; docs/recipe.md lists every key",
    ]


def test_an_entry_is_found_by_its_name_or_its_place():
    values = {"a": ["x", {"b": 1}], 2: "two", None: "nothing"}
    assert [_child(values, part) for part in ("a", 2, "2", "None", "b")] == [values["a"], "two", "two", "nothing", None]
    assert [_child(values["a"], part) for part in (0, 1, 2, 3, "0")] == ["x", {"b": 1}, None, None, None]
    assert [_child([], 0), _child("text", 0), _child(None, "a")] == [None, None, None]


@pytest.mark.parametrize("value", [0, 5, "5", "0%", "2.5%", "100%"])
def test_failures_may_be_limited_by_a_number_or_a_share(value):
    assert GenerateSection(max_failures=value).max_failures == value


@pytest.mark.parametrize(
    "value", [-1, "-1", "1.5", "100.1%", "101%", "-1%", "nan%", "inf%", "%", "x", "", "²", "5 percent"]
)
def test_other_limits_of_failures_are_refused(value):
    with pytest.raises(ValueError, match="give a number of requests, or a share"):
        GenerateSection(max_failures=value)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("yes", ""), "a label is a word or a phrase in one line, not ''"),
        (("yes", " "), "a label is a word or a phrase in one line, not ' '"),
        (("yes", "n\no"), "a label is a word or a phrase in one line"),
        (("yes", "no\x00"), "a label is a word or a phrase in one line"),
        (("very good", "bad", "Very Good."), "'very good' and 'Very Good.' are one label"),
    ],
)
def test_labels_are_distinct_phrases_in_one_line(labels, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        GenerateSection(labels=labels)
    kept = ("very good", "good", "größer", "C++", "C")
    assert GenerateSection(labels=kept).labels == kept
