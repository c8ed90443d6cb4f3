"""YAML that is hostile or odd is refused in one line, fast, and a recipe never holds a secret."""

from __future__ import annotations

import datetime
import time

import pytest
from click.testing import CliRunner

import synthgen
from synthgen.cli import main
from synthgen.errors import RecipeError
from synthgen.recipe.locate import parse
from synthgen.recipe.secrets import secret_in
from synthgen.recipe.yaml_text import YamlProblem, load_yaml

RECIPE = """\
task: t
license: CC0-1.0
seeds: [{path: seeds.jsonl, source: tests}]
teacher:
  engine: openai
  model: m
  license: MIT
  extra: EXTRA
"""
NINES = [f"n{n}: &n{n} [{', '.join([f'*n{n - 1}'] * 9)}]" for n in range(1, 12)]
BOMBS = {
    "lists": "\n".join(["n0: &n0 [x]", *NINES]),
    "merges": "\n".join(
        ["m0: &m0 {k: 1}", *(f"m{n}: &m{n}\n  <<: [{', '.join([f'*m{n - 1}'] * 9)}]" for n in range(1, 9))]
    ),
    "a chain": "\n".join(["c0: &c0 [x]", *(f"c{n}: &c{n} [*c{n - 1}]" for n in range(1, 1200))]),
    "open lists": "a: " + "[" * 9_000,
    "closed lists": "a: " + "[" * 3_000 + "]" * 3_000,
    "deep blocks": "\n".join(" " * n + "a:" for n in range(2_000)),
    "itself": "a: &a [*a]",
    "itself below": "a: &a {b: {c: [*a]}}",
    "a long number": "a: " + "9" * 6_000,
    "no such day": "a: 2026-02-30",
    "half a pair": 'a: "\\ud83d"',
}


def write(tmp_path, extra="{}", more="", head=""):
    path = tmp_path / "recipe.yaml"
    path.write_text(head + RECIPE.replace("EXTRA", extra) + more)
    return path


@pytest.mark.parametrize("name", list(BOMBS))
def test_a_bomb_is_refused_in_one_line_at_once(tmp_path, name):
    began = time.process_time()
    with pytest.raises(RecipeError) as caught:
        synthgen.load_recipe(write(tmp_path, head=BOMBS[name] + "\n"))
    assert time.process_time() - began < 2
    assert str(caught.value).startswith(f"{tmp_path}/recipe.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{when: 2026-01-31}", "line 8: YAML reads this value as a date: put it in quotes"),
        ("{2026-01-31: x}", "line 8: YAML reads this value as a date"),
        ("{a: {b: [!!binary aGVsbG8=]}}", "line 8: binary values are not used"),
        ("{a: !!set {x, y}}", "line 8: sets are not used"),
        ("{a: .nan}", "input should be a finite number"),
        ("{a: [-.INF]}", "input should be a finite number"),
        ("{a: !!python/name:os.system x}", "line 8: not valid YAML"),
    ],
)
def test_a_value_that_json_lacks_is_refused(tmp_path, value, said):
    with pytest.raises(RecipeError, match=said):
        synthgen.load_recipe(write(tmp_path, value))
    with pytest.raises(RecipeError, match=said.rpartition("line 8: ")[2].rpartition(": ")[2]):
        synthgen.load_recipe(write(tmp_path), [f"teacher.extra={value}"])


@pytest.mark.parametrize("value", [datetime.date(2026, 1, 31), b"x", {1, 2}, float("nan"), [float("inf")], object()])
def test_python_values_that_json_lacks_are_refused(tmp_path, value):
    recipe = synthgen.load_recipe(write(tmp_path))
    with pytest.raises(RecipeError, match=r"teacher\.extra"):
        synthgen.with_values(recipe, {"teacher.extra": {"a": value}})
    itself: dict[str, object] = {}
    itself["a"] = itself
    with pytest.raises(RecipeError, match=r"teacher\.extra"):
        synthgen.with_values(recipe, {"teacher.extra": itself})


def test_usual_yaml_stays_as_it_is():
    text = "a: &x {k: 1, t: '2026-01-31'}\nb: [*x, *x]\nc:\n  <<: *x\n  k: 2\nd: 1.5e3\ne: 12:30:45\n"
    _, values = load_yaml(text)
    shared = {"k": 1, "t": "2026-01-31"}
    assert values == {"a": shared, "b": [shared] * 2, "c": {**shared, "k": 2}, "d": "1.5e3", "e": 45045}
    assert load_yaml("") == (None, None)
    with pytest.raises(YamlProblem, match="more than"):
        load_yaml("a: " + "x" * (3 << 20))


KEYS = {
    "OpenAI": "sk-proj-Ab3dEf6hIj9kLmN0pQrS",
    "Anthropic": "sk-ant-api03-Zz19Yy28Xx37Ww46",
    "Hugging Face": "hf_QwErTyUiOpAsDfGhJkLzXcVb",
    "Google": "AIzaSyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6",
    "GitHub": "ghp_0123456789abcdefghijABCDEFGHIJ",
    "a token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlMTIz",
    "a header": "Bearer 0123456789abcdef0123",
}
PLACES = {
    "api_key_env": lambda key: {"more": f"  api_key_env: {key}\n"},
    "extra.api_key": lambda key: {"extra": f"{{api_key: {key}}}"},
    "deep in extra": lambda key: {"extra": f"{{a: [{{b: '{key}'}}]}}"},
    "a key of extra": lambda key: {"extra": f"{{'{key}': 1}}"},
    "a comment": lambda key: {"more": f"  # my key: {key}\n"},
    "a comment at the top": lambda key: {"head": f"# {key}\n"},
    "description": lambda key: {"head": f"description: made with {key}\n"},
    "an unknown key": lambda key: {"head": f"key: {key}\n"},
}


@pytest.mark.parametrize("place", list(PLACES))
def test_a_secret_in_a_recipe_is_refused_and_never_shown(tmp_path, place):
    for key in KEYS.values():
        done = CliRunner().invoke(main, ["plan", str(write(tmp_path, **PLACES[place](key)))])
        assert done.exit_code == 2, done.output
        assert "a secret" in done.output
        assert key not in done.output
        assert key[8:] not in done.output
        assert "line " in done.output


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_line_is_named_in_which_the_first_secret_begins(tmp_path, monkeypatch, newline):
    lines = ["task: t", "description: d", f"# {KEYS['Google']}", "# more", f"# {KEYS['OpenAI']}", ""]

    def said(lines: list[str]) -> str:
        path = tmp_path / "recipe.yaml"
        path.write_bytes(newline.join(lines).encode())
        with pytest.raises(RecipeError, match="this line holds a secret") as caught:
            parse(path)
        return str(caught.value).partition("recipe.yaml, ")[2].partition(":")[0]

    assert said(lines) == "line 3"
    assert said([lines[2], *lines]) == "line 1"
    assert said([*lines[:2], "# Bearer", "", "0123456789abcdef0123: d", lines[4]]) == "line 3"
    monkeypatch.setenv("SIGNING_KEY", "first: part\nsecond: part\nthird: part")
    assert said(["task: t", "", "first: part", "second: part", "third: part", lines[4]]) == "line 3"


def test_a_secret_without_a_known_shape_is_refused(tmp_path, monkeypatch):
    """A recipe may not contain the value of an environment variable that is named like a key, or parameters that are
    named like secrets.
    """
    monkeypatch.setenv("MY_AZURE_API_KEY", "0a1b2c3d4e5f60718293a4b5c6d7e8f9")
    for place in PLACES.values():
        with pytest.raises(RecipeError, match="a secret") as caught:
            synthgen.load_recipe(write(tmp_path, **place("0a1b2c3d4e5f60718293a4b5c6d7e8f9")))
        assert "0a1b2c3d" not in str(caught.value)
    for name in ("api_key", "API-Key", "authorization", "password", "x_api_key", "access_token", "client_secret"):
        with pytest.raises(RecipeError, match="a secret") as caught:
            synthgen.load_recipe(write(tmp_path, f"{{{name}: hunter2}}"))
        assert "hunter2" not in str(caught.value)
    for name in ("hunter2", "ab12-cd34", "two words"):
        with pytest.raises(RecipeError, match="the name of an environment variable") as caught:
            synthgen.load_recipe(write(tmp_path, more=f"  api_key_env: {name}\n"))
        assert name not in str(caught.value)


def test_a_secret_from_an_option_or_from_python_is_refused(tmp_path):
    recipe, key = synthgen.load_recipe(write(tmp_path)), KEYS["OpenAI"]
    for act in (
        lambda: synthgen.load_recipe(write(tmp_path), [f"description={key}"]),
        lambda: synthgen.load_recipe(write(tmp_path), [f"teacher.extra.user={key}"]),
        lambda: synthgen.with_values(recipe, {"teacher.extra": {"api_key": "hunter2"}}),
        lambda: synthgen.with_values(recipe, {"description": key}),
        lambda: synthgen.check_recipe(recipe.model_copy(update={"description": key})),
    ):
        with pytest.raises(RecipeError, match="a secret") as caught:
            act()
        assert key not in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_usual_text_is_no_secret():
    for text in (
        "sk-learn-like-classifier-rows",
        "max_tokens: 256",
        "hf_dataset_of_questions_cleaned",
        "task-desk-risk-0123456789abcdef",
        "the bearer of bad news",
        "sha256:0a1b2c3d4e5f60718293a4b5c6d7e8f9",
        "OPENAI_API_KEY",
    ):
        assert not secret_in(text), text
