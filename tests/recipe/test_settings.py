"""Values that replace those of a recipe's file: `--set KEY=VALUE`, and `with_values` in Python."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
import yaml
from support.commands import cold

import distill.cli
import synthgen.cli
from synthgen.errors import RecipeError, UserError
from synthgen.recipe import dump_recipe, load_recipe, with_limits, with_values

RECIPE = """\
task: sums
license: CC0-1.0
seeds:
  - path: a.jsonl
    source: tests
  - path: b.jsonl
    source: tests
teacher:
  model: ./teacher
  license: Apache-2.0
logits: null
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def refused(path: Path, *settings: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, settings)
    return caught.value.message


def test_values_are_yaml_and_keys_are_dotted(recipe):
    loaded = load_recipe(
        recipe,
        [
            "generate.temperature=0.5",
            "seeds.1.limit=3",
            "generate.labels=[a, 'b']",
            "logits.kind=topk",
            "curate.length.min_words=null",
            "train.student={kind: decoder, layers: 3}",
            "train.learning_rate=1e-4",
            "description=a = b",
            "audit.competes=no",
            "generate.num_generations=2",
            "generate.num_generations=4",
        ],
    )
    assert loaded.generate.temperature == 0.5
    assert [source.limit for source in loaded.seeds] == [None, 3]
    assert loaded.generate.labels == ("a", "b")
    assert loaded.logits is not None, "a section that is null is made"
    assert loaded.logits.kind == "topk"
    assert loaded.curate.length.min_words is None
    assert loaded.train is not None, "and one that is not there"
    assert loaded.train.student.layers == 3
    assert loaded.train.learning_rate == 1e-4
    assert loaded.description == "a = b"
    assert loaded.audit.competes == "no"
    assert loaded.generate.num_generations == 4, "the last of two counts"
    assert load_recipe(recipe, ["prompts=templates"]).prompts == str(recipe.parent.resolve() / "templates")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "train.learning_rat=1",
            "--set train.learning_rat=1: unknown key 'train.learning_rat'; did you mean 'learning_rate'?",
        ),
        ("train.trackers=[wandb]", "--set train.trackers=[wandb]: train.trackers is now train.report_to"),
        ("split.test=3", "--set split.test=3: key 'split.test' is 3: input should be less than or equal to 1"),
        ("generate.labels=a", "--set generate.labels=a: key 'generate.labels' is 'a': it must be a list"),
        ("strategy=rationale", "--set strategy=rationale: strategy: 'rationale' needs generate.answer_marker"),
        ("train.student.layer=3", "--set train.student.layer=3: unknown key 'train.student.layer'"),
        ("teacher.engine=vlm", "--set teacher.engine=vlm: key 'teacher.engine' is 'vlm'; did you mean 'vllm'?"),
        ("seeds.2.limit=3", "--set seeds.2.limit: 'seeds' is a list with the indexes 0 to 1"),
        ("seeds.².limit=3", "--set seeds.².limit: 'seeds' is a list with the indexes 0 to 1"),
        ("seeds.².limit.x=3", "--set seeds.².limit.x: 'seeds' is a list with the indexes 0 to 1"),
        ("curate.².limit=3", "--set curate.².limit=3: unknown key 'curate.²'"),
        ("seeds.first.limit=3", "--set seeds.first.limit: 'seeds' is a list with the indexes 0 to 1"),
        ("task.name=x", "--set task.name: 'task' is a single value and has no keys"),
        ("task.name.first=x", "--set task.name.first: 'task' is a single value and has no keys"),
        ("split=[a", "--set split=[a: the value is not valid YAML"),
    ],
)
def test_a_wrong_setting_is_named(recipe, setting, said):
    first = refused(recipe, setting).split("\n")[0]
    assert first.startswith(said)


def test_a_wrong_key_of_the_file_keeps_its_line(recipe):
    recipe.write_text(RECIPE + "split: {test: 3}\n")
    assert refused(recipe, "generate.top_p=2").split("\n") == [
        "--set generate.top_p=2: key 'generate.top_p' is 2: input should be less than or equal to 1",
        f"{recipe}, line 12: key 'split.test' is 3: input should be less than or equal to 1",
    ]
    assert load_recipe(recipe, ["split.test=0.3"]).split.test == 0.3, "a setting can mend it"


@pytest.mark.parametrize("text", ["split.test", "=3", "a..b=3", ".a=3", "a.=3"])
def test_what_is_no_setting(recipe, text):
    with pytest.raises(UserError, match="not KEY=VALUE") as caught:
        load_recipe(recipe, [text])
    assert "--set train.learning_rate=1e-4" in caught.value.hint


def test_every_command_that_takes_a_recipe_has_the_option():
    groups = {"synthgen": synthgen.cli.main, "distill": distill.cli.main}
    having = {
        f"{program} {verb}"
        for program, group in groups.items()
        for verb, command in group.commands.items()
        if any("--set" in param.opts for param in command.params if isinstance(param, click.Option))
    }
    taking = {
        f"{program} {verb}"
        for program, group in groups.items()
        for verb, command in group.commands.items()
        if any(param.name == "recipe" for param in command.params)
    }
    assert having == taking
    assert {"synthgen plan", "synthgen run", "distill train", "distill eval", "distill curve"} <= having


def test_commands_use_it(tmp_path, recipe):
    done = cold("synthgen", "plan", recipe, "--set", "split.tset=1", "--set", "split.seed=x")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[:2] == [
        "Error: --set split.tset=1: unknown key 'split.tset'; did you mean 'test'?",
        "  --set split.seed=x: key 'split.seed' is 'x': input should be a valid integer, unable to parse string as an "
        "integer",
    ]
    assert "Traceback" not in done.err


def test_a_run_keeps_what_was_set(tmp_path, recipe):
    run = tmp_path / "run"
    questions = [{"question": f"What is {number}?"} for number in range(4)]
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps({**row, "file": name}) + "\n" for row in questions))
    (tmp_path / "replies.jsonl").write_text(
        "".join(json.dumps({"prompt": q["question"], "text": "4"}) + "\n" for q in questions)
    )
    (tmp_path / "user.j2").write_text("{{ question }}")
    replay = "teacher={engine: replay, path: replies.jsonl, license: MIT}"
    done = cold("synthgen", "generate", recipe, "-o", run, "-q", "--set", replay, "--set", "seeds.1.limit=2")
    assert (done.code, done.err) == (0, "")
    assert [source.limit for source in load_recipe(run / "recipe.yaml").seeds] == [None, 2]
    assert [source.limit for source in load_recipe(recipe).seeds] == [None, None]
    again = cold("synthgen", "generate", recipe, "-o", run, "-q", "--set", replay)
    assert again.code == 2
    assert "seeds.1.limit: 2 → None" in again.err


def test_in_python(recipe):
    loaded = load_recipe(recipe)
    assert with_values(loaded, {"split.test": 0.4, "train": {"num_train_epochs": 2}, "logits": {}}).split.test == 0.4
    assert loaded.split.test == 0.2
    with pytest.raises(RecipeError) as caught:
        with_values(loaded, {"split.test": 4})
    assert caught.value.message.startswith("split.test=4: key 'split.test' is 4: input should be")
    assert with_limits(loaded, 3.0, "5%").generate.model_dump(include={"budget", "max_failures"}) == {
        "budget": {"usd": 3.0, "tokens": None},
        "max_failures": "5%",
    }
    assert with_limits(loaded, None, None) is loaded
    with pytest.raises(RecipeError, match="such as "):
        with_limits(loaded, None, "a few")


def test_a_resolved_recipe_of_several_teachers_can_be_changed(tmp_path, recipe):
    """The resolved recipe names each teacher once. If the first teacher were written twice, a change would have to be
    made in both places.
    """
    teachers = {"a": {"model": "./a"}, "b": {"model": "./b"}}
    values = {**yaml.safe_load(RECIPE), "teachers": teachers}
    del values["teacher"]
    recipe.write_text(yaml.safe_dump(values))
    run = tmp_path / "run.yaml"
    run.write_text(dump_recipe(load_recipe(recipe)))
    changed = load_recipe(run, ["teachers.a.batch_size=3"])
    assert changed.teacher.batch_size == changed.teachers["a"].batch_size == 3
    assert with_values(changed, {"teachers.a.batch_size": 4}).teacher.batch_size == 4
