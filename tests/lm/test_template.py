"""A chat template that hides a message, raises an error or does not end is refused in one line."""

from __future__ import annotations

import time

import pytest
from support.corpora import contents
from support.small import byte_tokenizer, small_task, small_teacher

import synthgen
from synthgen.errors import TeacherError
from synthgen.lm import template
from synthgen.lm.render import render, render_all, render_open

HEAD = "{% for m in messages %}"
TURN = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
TAIL = "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
LONG = "{% for a in range(90000) %}{% for b in range(90000) %}{% for c in range(90000) %}" + 3 * "{% endfor %}"


def tokenizer_with(chat_template: str):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = chat_template
    tokenizer.name_or_path = "odd-model"
    return tokenizer


def turns(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": f"text {n} of {role}"} for n, role in enumerate(roles)]


SYSTEM, FEW = ("system", "user"), ("user", "assistant", "user")
REFUSED = {
    "no system": (HEAD + "{% if m.role != 'system' %}" + TURN + "{% endif %}" + TAIL, SYSTEM, "hides the system"),
    "other roles skipped": (
        HEAD + "{% if m.role == 'user' %}" + TURN + "{% endif %}" + TAIL,
        FEW,
        "hides a message of role 'assistant'",
    ),
    "last turn alone": (
        "{% for m in messages[-1:] %}" + TURN + TAIL,
        FEW,
        "hides a message of role 'user'",
    ),
    "first turns alone": ("{% for m in messages[:2] %}" + TURN + TAIL, FEW, "hides a message of role 'user'"),
    "reversed": ("{% for m in messages | reverse %}" + TURN + TAIL, FEW, "hides a message"),
    "cut": (HEAD + "{{ m.content[:40] }}" + TAIL, ("user",), "hides a message of role 'user'"),
    "lower half": (HEAD + "{{ m.content[20:] }}" + TAIL, ("user",), "hides a message of role 'user'"),
    "nothing": ("<|im_start|>assistant\n", ("user",), "hides a message of role 'user'"),
    "raises for system": (
        HEAD + "{% if m.role == 'system' %}{{ raise_exception('No system role') }}{% endif %}" + TURN + TAIL,
        SYSTEM,
        "refuses these messages: No system role",
    ),
    "raises for two users": (
        HEAD + "{% if m.role != ['user', 'assistant'][loop.index0 % 2] %}{{ raise_exception('Must alternate') }}"
        "{% endif %}" + TURN + TAIL,
        ("user", "user"),
        "refuses these messages: Must alternate",
    ),
    "broken": ("{% for m in messages %}", ("user",), "refuses these messages"),
    "unknown name": ("{{ nothing.here.at_all }}", ("user",), "refuses these messages"),
    "reaches out": ("{{ messages.__class__.__mro__[1].__subclasses__() }}", ("user",), "refuses these messages"),
    "divides by zero": ("{{ 1 / 0 }}", ("user",), "refuses these messages"),
    "calls itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", ("user",), "refuses these messages"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_is_refused(name):
    chat_template, roles, words = REFUSED[name]
    tokenizer = tokenizer_with(chat_template)
    for act in (lambda: render(tokenizer, turns(*roles)), lambda: render_all(tokenizer, [turns(*roles)])):
        with pytest.raises(TeacherError) as error:
            act()
        assert error.value.exit_code == 2
        assert "\n" not in error.value.message
        assert f"the chat template of 'odd-model' {words}" in error.value.message
        assert f"(roles: {', '.join(roles)})" in error.value.message


def test_a_template_that_hides_the_last_message_is_refused_when_it_is_left_open():
    tokenizer = tokenizer_with(HEAD + "{% if not loop.last %}" + TURN + "{% endif %}" + TAIL)
    with pytest.raises(TeacherError, match="hides a message of role 'user'"):
        render_open(tokenizer, turns("system", "user"))


def test_a_template_that_does_not_end_is_refused_in_time(monkeypatch):
    monkeypatch.setattr(template, "_LIMIT", 0.2)
    began = time.monotonic()
    with pytest.raises(TeacherError, match="does not end within"):
        render(tokenizer_with(HEAD + LONG + TURN + TAIL), turns("user"))
    assert time.monotonic() - began < 5


ACCEPTED = {
    "usual": HEAD + TURN + TAIL,
    "trims": HEAD + "<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n" + TAIL,
    # Some templates show the system message only before the last turn.
    "system with the last turn": "{% for m in messages if m.role != 'system' %}{% if loop.last and messages[0].role == "
    "'system' %}{{ messages[0].content }}\n{% endif %}" + TURN + TAIL,
    "reasoning of earlier turns is left out": HEAD + "<|im_start|>{{ m.content.split('</think>')[-1] }}<|im_end|>"
    "\n" + TAIL,
    "no system role, and none is asked for": REFUSED["no system"][0].replace("'system'", "'tool'"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_other_templates_are_accepted(name):
    tokenizer = tokenizer_with(ACCEPTED[name])
    for roles in (("user",), SYSTEM, ("system", *FEW)):
        messages = turns(*roles)
        shown = tokenizer.decode(render(tokenizer, messages))
        assert all(message["content"] in shown for message in messages)


def test_each_form_is_checked_once(monkeypatch):
    seen = []
    check = template._check
    monkeypatch.setattr(template, "_check", lambda *args: (seen.append(args), check(*args)))
    tokenizer = tokenizer_with(ACCEPTED["usual"])
    for _ in range(3):
        render(tokenizer, turns("user"))
        render_all(tokenizer, [turns("user"), turns(*SYSTEM)])
    assert len(seen) == 2
    tokenizer.chat_template = REFUSED["no system"][0]
    with pytest.raises(TeacherError):
        render(tokenizer, turns(*SYSTEM))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return small_teacher(tmp_path_factory.mktemp("template") / "teacher")


@pytest.mark.parametrize("where", ["system", "teacher_system", "hint_system"])
def test_generate_refuses_a_hidden_system_message_before_it_writes_anything(tmp_path, teacher, where):
    """A template that the recipe's strategy does not use has no effect."""
    (teacher / "chat_template.jinja").write_text(REFUSED["no system"][0])
    path = small_task(tmp_path / "task", teacher, seeds=3, train=None)
    (path.parent / f"{where}.j2").write_text("Be brief.")
    recipe = synthgen.load_recipe(path)
    if where == "hint_system":
        assert synthgen.generate(recipe, tmp_path / "run").counts["rows"] == 6
        return
    for act in (synthgen.plan, lambda recipe: synthgen.generate(recipe, tmp_path / "run")):
        with pytest.raises(TeacherError, match="hides the system message"):
            act(recipe)
    assert not contents(tmp_path / "run")


def test_generate_refuses_a_template_that_hides_the_students_prompt(tmp_path, teacher):
    """The template shows only the last message, so it hides the system message."""
    (teacher / "chat_template.jinja").write_text(REFUSED["first turns alone"][0].replace("[:2]", "[-1:]"))
    path = small_task(tmp_path / "task", teacher, seeds=3)
    (path.parent / "system.j2").write_text("Be brief.")
    with pytest.raises(TeacherError, match="hides the system message"):
        synthgen.generate(synthgen.load_recipe(path), tmp_path / "run")
