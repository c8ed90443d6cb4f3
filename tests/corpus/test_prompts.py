"""Templates: the messages for each role, errors for missing variables, the sandbox, and versions by content."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synthgen.errors import RecipeError
from synthgen.prompts import load_prompt
from synthgen.recipe import load_recipe, shipped

FILES = {
    "user.j2": "Q: {{ question }}\n",
    "system.j2": "Be {{ tone }}.\n",
    "teacher_user.j2": "Question: {{ question }}\nThink.\n",
    "teacher_system.j2": "You teach.\n",
    "assistant.j2": "{{ why }}\nAnswer: {{ answer }}\n",
    "examples.jsonl": json.dumps({"question": "1 + 1?", "why": "One and one.", "answer": 2}) + "\n",
}
FIELDS = {"question": "2 + 3?", "tone": "kind", "answer": "5"}


def write(folder: Path, files: dict[str, str]) -> str:
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return str(folder)


def refused(act) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        act()
    assert "\n" not in caught.value.message
    return caught.value


def test_each_role_is_told_its_own(tmp_path):
    prompt = load_prompt(write(tmp_path / "t", FILES), "sums")
    assert prompt.student(FIELDS) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Q: 2 + 3?"},
    ]
    assert prompt.teacher(FIELDS) == [
        {"role": "system", "content": "You teach."},
        {"role": "user", "content": "Question: 1 + 1?\nThink."},
        {"role": "assistant", "content": "One and one.\nAnswer: 2"},
        {"role": "user", "content": "Question: 2 + 3?\nThink."},
    ]
    assert prompt.question(FIELDS) == "Q: 2 + 3?"


def test_the_teacher_is_told_what_the_student_is_unless_there_is_more(tmp_path):
    prompt = load_prompt(write(tmp_path / "t", {k: FILES[k] for k in ("user.j2", "system.j2")}), "sums")
    assert prompt.teacher(FIELDS) == prompt.student(FIELDS)
    prompt = load_prompt(write(tmp_path / "t", {"user.j2": FILES["user.j2"]}), "sums")
    assert prompt.teacher(FIELDS) == prompt.student(FIELDS) == [{"role": "user", "content": "Q: 2 + 3?"}]


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_version_changes_with_any_file(tmp_path, name):
    version = load_prompt(write(tmp_path / "t", FILES), "sums").version
    assert version == load_prompt(write(tmp_path / "elsewhere", FILES), "sums").version
    assert version.startswith("sums@")
    changed = {**FILES, name: FILES[name].replace("1 + 1", "1 + 2") + ("" if name == "examples.jsonl" else "!")}
    assert load_prompt(write(tmp_path / "t", changed), "sums").version != version
    without = {k: v for k, v in FILES.items() if k != name}
    if name == "user.j2":
        return
    if name == "assistant.j2":
        without.pop("examples.jsonl")
    assert load_prompt(write(tmp_path / "t", without), "sums").version != version


def test_text_does_not_move_between_files_unseen(tmp_path):
    one = load_prompt(write(tmp_path / "t", {"user.j2": "a", "system.j2": "b"}), "t").version
    two = load_prompt(write(tmp_path / "t", {"user.j2": "b", "system.j2": "a"}), "t").version
    three = load_prompt(write(tmp_path / "t", {"user.j2": "a", "teacher_system.j2": "b"}), "t").version
    assert len({one, two, three}) == 3


@pytest.mark.parametrize("name", ["user.j2", "system.j2", "teacher_user.j2", "teacher_system.j2"])
def test_a_missing_field_is_an_error_that_names_template_and_fields(tmp_path, name):
    prompt = load_prompt(write(tmp_path / "t", {**FILES, name: "{{ page }}"}), "sums")
    said = refused(lambda: (prompt.student(FIELDS), prompt.teacher(FIELDS)))
    whose = "example" if name == "teacher_user.j2" else "seed"
    assert f"template sums/{name}: 'page' is undefined; the {whose} has: answer, question" in said.message
    assert ("examples.jsonl" if whose == "example" else "seeds.fields") in said.hint


@pytest.mark.parametrize("text", ["{{ page.number }}", "{% for x in pages %}{{ x }}{% endfor %}", "{{ page ~ 'x' }}"])
def test_nothing_missing_becomes_an_empty_string(tmp_path, text):
    prompt = load_prompt(write(tmp_path / "t", {"user.j2": text}), "t")
    assert "is undefined" in refused(lambda: prompt.student(FIELDS)).message


def test_a_field_may_be_asked_for(tmp_path):
    prompt = load_prompt(
        write(tmp_path / "t", {"user.j2": "{{ question }}{% if page is defined %}{{ page }}{% endif %}"}), "t"
    )
    assert prompt.question({"question": "a"}) == "a"
    assert prompt.question({"question": "a", "page": 3}) == "a3"


@pytest.mark.parametrize(
    "text",
    [
        "{{ question.__class__ }}",
        "{{ question.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ '{0.__class__}'.format(question) }}",
        "{{ items.append(1) }}",
        "{% include '/etc/hostname' %}",
        "{% import 'os' as os %}",
        "{{ range(999999999) | list }}",
        "{{ 1 / 0 }}",
        "{{ question + 1 }}",
        "{{ items['a'] }}",
    ],
)
def test_a_template_reaches_nothing_but_its_fields(tmp_path, text):
    prompt = load_prompt(write(tmp_path / "t", {"user.j2": text}), "t")
    items = [1]
    assert "template t/user.j2: " in refused(lambda: prompt.question({"question": "q", "items": items})).message
    assert items == [1]


def test_fields_are_text_not_templates(tmp_path):
    prompt = load_prompt(write(tmp_path / "t", {"user.j2": "{{ question }}"}), "t")
    assert prompt.question({"question": "{{ 7 * 7 }} <b> & {% x %}"}) == "{{ 7 * 7 }} <b> & {% x %}"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no user.j2"),
        ({"system.j2": "x"}, "no user.j2"),
        ({"user.j2": "a\nb {{ c"}, "user.j2, line 2"),
        ({"user.j2": "{% if x %}"}, "user.j2, line 1"),
        ({"user.j2": "x", "examples.jsonl": '{"a": 1}'}, "no assistant.j2"),
        ({"user.j2": "x", "assistant.j2": "y", "examples.jsonl": '{"a": 1}\n\n{"a": \n'}, "examples.jsonl, line 3"),
        ({"user.j2": "x", "assistant.j2": "y", "examples.jsonl": "7\n"}, "examples.jsonl, line 1"),
    ],
)
def test_broken_folders(tmp_path, files, said):
    folder = write(tmp_path / "t", files)
    found = refused(lambda: load_prompt(folder, "t"))
    assert said in found.message
    assert found.hint


@pytest.mark.parametrize("name", ["user.j2", "examples.jsonl"])
def test_bytes_that_are_no_text(tmp_path, name):
    folder = write(tmp_path / "t", FILES)
    (Path(folder) / name).write_bytes(b"caf\xe9")
    assert f"{name}: not UTF-8" in refused(lambda: load_prompt(folder, "t")).message


def test_an_example_may_hold_any_character(tmp_path):
    example = {"question": "a\u2028b\x85c", "why": "w", "answer": "d"}
    files = {**FILES, "examples.jsonl": json.dumps(example, ensure_ascii=False) + "\n"}
    assert load_prompt(write(tmp_path / "t", files), "t").examples == [example]


@pytest.mark.parametrize("task", sorted(p.parent.name for p in shipped("prompts").glob("*/recipe.yaml")))
def test_shipped_folders(task):
    recipe = load_recipe(task)  # the key `prompts` of the recipe may name the templates of another task
    prompt = load_prompt(recipe.prompts, recipe.task)
    assert prompt.version.startswith(f"{recipe.task}@")
    for example in prompt.examples:
        assert prompt.teacher(example)[-1]["content"]


def test_an_example_is_shown_only_with_seeds_that_it_is_for(tmp_path):
    examples = [
        {"question": "1 + 1?", "why": "One and one.", "answer": 2, "when": {"tone": "kind"}},
        {"question": "A or B?", "why": "A comes first.", "answer": "A", "when": {"tone": "short", "level": 1}},
        {"question": "Why?", "why": "Because.", "answer": "so", "when": "at noon"},  # a field, and not a condition
    ]
    lines = "".join(json.dumps(example) + "\n" for example in examples)
    answer = "{{ answer }}{% if when is string %}, {{ when }}{% endif %}"
    prompt = load_prompt(write(tmp_path / "t", {**FILES, "assistant.j2": answer, "examples.jsonl": lines}), "sums")

    def shown(fields: dict[str, object]) -> list[str]:
        turns = prompt.teacher(fields)[1:-1:2]
        return [str(turn["content"]).splitlines()[0].removeprefix("Question: ") for turn in turns]

    assert shown({**FIELDS, "level": 1}) == ["1 + 1?", "Why?"]
    assert shown({**FIELDS, "tone": "short", "level": 1}) == ["A or B?", "Why?"]
    assert shown({**FIELDS, "tone": "short", "level": 2}) == ["Why?"]
    said = refused(lambda: prompt.teacher(FIELDS))
    assert "'level'" in said.message
    assert "answer, question, tone" in said.message


def test_every_few_shot_condition_can_be_checked_although_another_fails(tmp_path):
    example = {"question": "1?", "why": "w", "answer": 1, "when": {"tone": "no", "levle": 1}}
    prompt = load_prompt(write(tmp_path / "t", {**FILES, "examples.jsonl": json.dumps(example)}), "sums")
    assert "'levle'" in refused(lambda: prompt.teacher(FIELDS)).message


@pytest.mark.parametrize("when", ["calculate", ["kind"], None])
def test_a_condition_that_is_no_object_is_refused(tmp_path, when):
    """The example would be shown with every seed."""
    example = {**json.loads(FILES["examples.jsonl"]), "when": when}
    folder = write(tmp_path / "t", {**FILES, "examples.jsonl": json.dumps(example) + "\n"})
    error = refused(lambda: load_prompt(folder, "t"))
    assert "line 1: `when` is no object" in error.message
    assert '"when": {' in error.hint
    files = {**FILES, "examples.jsonl": json.dumps(example) + "\n", "assistant.j2": "{{ answer }} {{ when is none }}"}
    assert load_prompt(write(tmp_path / "t", files), "t").examples == [example], "`when` is a field of the templates"
