"""A key of an earlier version raises an error of one line, with the new name and the line number in the file."""

from __future__ import annotations

import pytest
import yaml

from synthgen.errors import RecipeError
from synthgen.recipe import load_recipe
from synthgen.recipe.old_keys import OLD_KEYS, OLD_VALUES, new_name
from synthgen.recipe.schema import recipe_schema

PLAIN = {
    "task": "sums",
    "license": "MIT",
    "seeds": [{"path": "s.jsonl", "source": "tests"}],
    "teacher": {"model": "./teacher"},
    "train": {"student": {"kind": "decoder", "layers": 2}},
}
VLLM = {"engine": "vllm", "model": "./teacher"}


def written(tmp_path, key: str):
    """Writes a recipe with an old key, and returns its path."""
    values = yaml.safe_load(yaml.safe_dump(PLAIN))
    if key.startswith(("teacher.", "teachers.")):
        section = {"engine": "openai", "model": "m"} if key.endswith("attempts") else dict(VLLM)
        values["teacher"] = section
        if key.startswith("teachers."):
            values["teachers"] = {"a": values.pop("teacher")}
    if key == "train.student.hidden":
        values["train"] = {"student": {"kind": "classifier"}}
    *parents, last = key.replace("teachers.*", "teachers.a").replace("seeds.*", "seeds.0").split(".")
    place = values
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    place[last] = "x"
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path, ".".join([*parents, last])


@pytest.mark.parametrize("key", [*OLD_KEYS])
def test_an_old_key_says_its_new_name(tmp_path, key):
    path, dotted = written(tmp_path, key)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    lines = caught.value.message.split("\n")
    above = dotted.rpartition(".")[0]
    number = next(
        n for n, line in enumerate(path.read_text().splitlines(), 1) if line.endswith(f"{key.rpartition('.')[2]}: x")
    )
    assert lines[0].startswith(f"{path}, line {number}: {dotted} is now {above}.{OLD_KEYS[key]}")
    assert len(lines) == 1 or "missing" not in caught.value.message


def test_an_old_key_is_not_also_missing_under_its_new_name(tmp_path):
    path = tmp_path / "recipe.yaml"
    values = {**PLAIN, "license": None, "seeds": [{"path": "s.jsonl", "source": "tests", "licence": "MIT"}]}
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.message.endswith("seeds.0.licence is now seeds.0.license")
    assert "\n" not in caught.value.message


def test_an_old_strategy(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, "strategy": "rationalise"}))
    with pytest.raises(RecipeError, match="strategy: 'rationalise' is now 'rationalize'"):
        load_recipe(path)


def test_a_number_that_counts_otherwise_says_so(tmp_path):
    path, _ = written(tmp_path, "teacher.attempts")
    with pytest.raises(
        RecipeError, match=r"is now teacher.max_retries \(the first try no longer counts, so 5 is now 4"
    ):
        load_recipe(path)


def test_no_old_name_is_forgotten():
    assert {key.rpartition(".")[2] for key in OLD_KEYS} == {
        *("licence", "epochs", "warmup", "checkpoint_every", "keep_checkpoints", "validate_every", "patience"),
        *("trackers", "activation_checkpointing", "micro_batch", "tensor_parallel", "data_parallel"),
        *("memory_fraction", "samples", "attempts", "on_bad_line", "account", "hidden", "min_words", "max_words"),
    }
    of_teachers = {key.partition(".")[2] for key in OLD_KEYS if key.startswith("teacher.")}
    assert of_teachers == {key.removeprefix("teachers.*.") for key in OLD_KEYS if key.startswith("teachers.")}


def test_no_old_key_is_a_key_now():
    """Each new name is a key of the schema."""
    text = str(recipe_schema())
    for old, new in OLD_KEYS.items():
        for part in new.split("."):
            assert f"'{part}'" in text, new
        assert new_name(old.replace("*", "0")) == old.replace("*", "0").rpartition(".")[0] + f".{new}"
    assert OLD_VALUES == {("strategy", "rationalise"): "rationalize"}
    assert new_name("train.learning_rate") is None
