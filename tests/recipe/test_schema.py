"""The JSON Schema and the page of keys match the classes and tables, and validators of editors agree with them."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import subprocess
import sys

import pytest
import yaml
from jsonschema import Draft202012Validator
from support.places import REPOSITORY

from synthgen.recipe import Recipe, dump_recipe, load_recipe, shipped
from synthgen.recipe.schema import recipe_schema, sections
from synthgen.tables.engines import ENGINES, AnyTeacher
from synthgen.tables.section import key_docs
from synthgen.tables.strategies import STRATEGIES
from synthgen.tables.students import KINDS

SCHEMA = shipped("data") / "recipe.schema.json"
PAGE = REPOSITORY / "docs" / "recipe.md"
RECIPES = sorted(shipped("prompts").glob("*/recipe.yaml"))


def refused(values: object) -> list[str]:
    """The errors that a JSON Schema validator finds in a recipe's values with the shipped schema."""
    validator = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(values)]


def test_both_files_are_fresh(tmp_path):
    check = [sys.executable, str(REPOSITORY / "docs" / "recipe.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.copy(REPOSITORY / "docs" / "recipe.py", tmp_path)
    (tmp_path / "recipe.md").write_text(PAGE.read_text(encoding="utf-8") + "One more line.\n")
    done = subprocess.run([sys.executable, str(tmp_path / "recipe.py"), "--check"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == f"{tmp_path / 'recipe.md'} is stale: run `python docs/recipe.py`"


def test_it_is_a_schema():
    Draft202012Validator.check_schema(recipe_schema())


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.parent.name)
def test_a_shipped_recipe_names_the_schema_and_keeps_it(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    named = first.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / named).resolve() == SCHEMA.resolve()
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert refused(values) == []
    assert values["license"] == "CC0-1.0"


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.parent.name)
def test_a_resolved_recipe_does_too(path):
    text = dump_recipe(load_recipe(path))
    assert text.splitlines()[0] == f"# yaml-language-server: $schema={SCHEMA}"
    assert refused(yaml.safe_load(text)) == []


def places(values: object, above: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """For every section in a recipe's values: the keys and list indices that lead to it."""
    found = [above] if isinstance(values, dict) else []
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return found + [place for key, value in inner for place in places(value, (*above, key))]


FREE = {"config", "extra", "fields", "json_schema", "mixture"}  # sections whose keys the user chooses


@pytest.mark.parametrize("task", ["reasoning", "classify", "consensus", "embed", "best_of_n"])
def test_an_unknown_key_anywhere_is_refused(task):
    values = yaml.safe_load((shipped("prompts") / task / "recipe.yaml").read_text(encoding="utf-8"))
    tried = 0
    for place in places(values):
        if FREE & set(place):
            continue
        wrong = copy.deepcopy(values)
        inside = wrong
        for part in place:
            inside = inside[part]
        inside["zzz "] = 1  # a wrong key; the space makes it an invalid name for a teacher too
        assert refused(wrong), place
        tried += 1
    assert tried >= 6


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("strategy", "guess"),
        ("teacher.engine", "vlm"),
        ("teacher.batch_size", 0),
        ("teacher.base_url", "http://x"),
        ("train.student.kind", "mlp"),
        ("train.student.buckets", 8),
        ("train.loss", "kl"),
        ("split.test", 1.5),
        ("generate.labels", "a"),
        ("logits.kind", "all"),
        ("seeds", []),
    ],
)
def test_a_wrong_value_is_refused(key, value):
    values = yaml.safe_load((shipped("prompts") / "reasoning" / "recipe.yaml").read_text(encoding="utf-8"))
    *parents, last = key.split(".")
    inside = values
    for part in parents:
        inside = inside[part]
    inside[last] = value
    assert refused(values)


def test_what_is_filled_in_may_be_left_out():
    """These values may be left out: a license that is inherited, a teacher that is the first of several, and the
    default engine.
    """
    seeds = [{"path": "s.jsonl", "source": "tests"}]
    base = {"task": "t", "license": "MIT", "seeds": seeds, "teacher": {"model": "m"}}
    assert refused(base) == []
    assert refused({**base, "audit": {"competes": False}}) == []
    assert refused({key: value for key, value in base.items() if key != "license"})
    assert not refused({**base, "license": None, "seeds": [{**seeds[0], "license": "MIT"}]})
    several = {key: value for key, value in base.items() if key != "teacher"}
    assert refused(several)
    assert refused({**several, "teachers": {"a": {"model": "m"}}}) == []


def test_every_key_has_a_meaning_a_type_and_a_default_on_the_page():
    page = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in page if line.startswith("| `")]
    keys = {row[0].strip("`").rpartition(".")[2]: row for row in rows}
    for section in sections():
        described = key_docs(section) | {
            key: field.description or "" for key, field in section.model_fields.items() if field.description
        }
        for key in section.model_fields:
            assert described.get(key, "").strip().endswith((".", ")")), f"{section.__name__}.{key} has no sentence"
            assert key in keys, key
            assert len(keys[key]) == 4, keys[key]
            assert all(keys[key]), keys[key]
    for table, word in ((ENGINES, "engine"), (KINDS, "kind")):
        for name in table:
            assert any(line.startswith(f"### {word}: {name}") for line in page), name
    for name in STRATEGIES:
        assert any(line.startswith(f"| `{name}` |") for line in page), name


def test_an_entry_from_outside_is_in_both(monkeypatch):
    class Telepathy(AnyTeacher):
        """A model that is asked by thinking."""

        engine: str
        distance: int = 3
        """How far away the model may be."""

    monkeypatch.setitem(ENGINES, "telepathy", dataclasses.replace(ENGINES["replay"], section=Telepathy))
    text = json.dumps(recipe_schema())
    assert "How far away the model may be." in text
    assert '"const": "telepathy"' in text
    sys.path.insert(0, str(REPOSITORY / "docs"))
    try:
        from recipe import render
    finally:
        sys.path.pop(0)
    page = render()
    assert "### engine: telepathy\n\nA model that is asked by thinking." in page
    assert "| `teacher.distance` | integer | `3` | How far away the model may be. |" in page
    assert Recipe.model_validate(
        {
            "task": "t",
            "license": "MIT",
            "seeds": [{"path": "s", "source": "s"}],
            "teacher": {"engine": "telepathy", "model": "m"},
        }
    ).teacher == Telepathy(engine="telepathy", model="m")
