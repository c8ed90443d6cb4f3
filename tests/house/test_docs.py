"""The commands, options, recipes, paths and links in the pages exist in the package."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import click
import pytest
import yaml
from support.examples import EXAMPLES, added
from support.examples import PAGE as EXTENDING
from support.places import REPOSITORY

import distill.cli
import synthgen.cli
from synthgen.recipe import Recipe, check_recipe

GROUPS = {"synthgen": synthgen.cli.main, "distill": distill.cli.main}
COMMANDS = [(program, verb) for program, group in GROUPS.items() for verb in group.commands]
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "prompts" / "README.md",
    REPOSITORY / "data" / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
# Pages show parts of recipes. These keys are added to each part before it is checked.
WHOLE = {
    "task": "t",
    "seeds": [{"path": "s.jsonl", "source": "s", "license": "MIT"}],
    "teacher": {"model": "m"},
}


def blocks(page: Path, *languages: str) -> list[str]:
    """The texts of a page's fenced blocks in these languages."""
    fenced = re.findall(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for language, text in fenced if language in languages]


def commands_in(text: str) -> list[list[str]]:
    """The synthgen and distill commands in a shell script or a help text."""
    commands = []
    for line in text.replace("\\\n", " ").splitlines():
        words = line.strip().removeprefix("$ ")
        if words.split(" ")[0] in GROUPS:
            # A command ends before two spaces, a # or a pipe.
            commands.append(shlex.split(re.split(r" {2,}| [|>&;]|\.$", words)[0], comments=True))
    return commands


def parse(words: list[str]) -> None:
    """Lets click parse a command without running it. Raises click's errors."""
    program, verb, *rest = words
    command = GROUPS[program].commands.get(verb)
    assert command is not None, f"no command '{program} {verb}'"
    command.make_context(verb, [word for word in rest if word != "…"])


def test_the_page_of_commands_is_fresh(tmp_path):
    check = [sys.executable, str(REPOSITORY / "docs" / "cli.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.copy(REPOSITORY / "docs" / "cli.py", tmp_path)
    page = (REPOSITORY / "docs" / "cli.md").read_text()
    (tmp_path / "cli.md").write_text(page.replace("Number of rows to show.", "How many."))
    done = subprocess.run([sys.executable, str(tmp_path / "cli.py"), "--check"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "stale" in done.stderr


@pytest.mark.parametrize(("program", "verb"), COMMANDS)
def test_every_command_has_help_examples_and_documented_options(program, verb):
    command = GROUPS[program].commands[verb]
    assert command.help
    examples = [words for words in commands_in(command.help) if words[:2] == [program, verb]]
    assert examples, "no example"
    for words in examples:
        parse(words)
    options = [p for p in command.params if isinstance(p, click.Option)]
    assert {"--json", "--quiet"} <= {name for option in options for name in option.opts}
    for option in options:
        assert option.help, option.opts
        assert option.help.endswith("."), option.help
        assert f"--{option.name.replace('_', '-')}" in option.opts, "the environment variable is the long name's"
    context = click.Context(command, info_name=verb)
    assert command.get_short_help_str(200).endswith((".", "knows")), command.get_short_help_str(200)
    assert verb in command.get_usage(context)


def test_options_are_variables_of_one_family():
    """Every option has an environment variable of its own, such as SYNTHGEN_SHOW_COUNT. All environment variables in
    docs/cli.md exist.
    """
    names = []
    for program, group in GROUPS.items():
        top = click.Context(group, info_name=program, **group.context_settings)
        for verb, command in group.commands.items():
            context = click.Context(command, info_name=verb, parent=top)
            for param in command.params:
                if isinstance(param, click.Option):
                    names.append(f"{context.auto_envvar_prefix}_{param.name.upper()}")
    page = (REPOSITORY / "docs" / "cli.md").read_text()
    for name in re.findall(r"`(SYNTHGEN_\w+)`", page):
        assert name in names
    assert {"SYNTHGEN_SHOW_COUNT", "SYNTHGEN_GENERATE_OUT", "SYNTHGEN_DISTILL_TRAIN_FRESH"} <= set(names)
    assert len(set(names)) == len(names)


def test_there_is_a_recipe_in_the_pages():
    assert blocks(REPOSITORY / "prompts" / "README.md", "yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(REPOSITORY).as_posix())
def test_every_recipe_in_a_page_is_one(page):
    with added(*EXAMPLES) if page == EXTENDING else nullcontext():
        for text in blocks(page, "yaml"):
            values = yaml.safe_load(text)
            assert isinstance(values, dict)
            rest = {key: value for key, value in WHOLE.items() if key != "teacher" or "teachers" not in values}
            check_recipe(Recipe.model_validate(values if "task" in values else {**rest, **values}))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(REPOSITORY).as_posix())
def test_every_command_in_a_page_is_one(page):
    text = page.read_text(encoding="utf-8")
    for block in blocks(page, "bash", "sh", "shell", "console", ""):
        for words in commands_in(block):
            parse(words)
    for words in (words for span in re.findall(r"`([^`\n]+)`", text) for words in commands_in(span)):
        if len(words) > 1 and not words[1].startswith("-"):  # in prose, a command may lack its arguments
            command = GROUPS[words[0]].commands.get(words[1])
            assert command is not None, words
            known = {name for param in command.params for name in param.opts}
            assert {word for word in words[2:] if word.startswith("-")} <= known, words


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(REPOSITORY).as_posix())
def test_every_program_in_a_page_compiles_and_uses_public_names(page):
    for text in blocks(page, "python"):
        compile(text, str(page), "exec")
        for package, name in re.findall(r"\b(synthgen|distill)\.([a-z_]+)\(", text):
            assert name in sys.modules[package].__all__, f"{package}.{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(REPOSITORY).as_posix())
def test_every_path_in_a_page_is_there(page):
    text = page.read_text(encoding="utf-8")
    folders = {"benchmarks", "data", "distill", "docs", "prompts", "synthgen", "tests"}
    for span in re.findall(r"`([\w./-]+)`", text):
        top = span.split("/")[0]
        # `data/…parquet` is a path in a corpus and not in the repository.
        if "/" in span and top in folders and not span.endswith(".parquet"):
            assert (REPOSITORY / span).exists(), span
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text):
        assert (page.parent / target).exists(), target


def test_what_these_tests_look_for_is_seen(tmp_path):
    """A page with one mistake of each kind shows that the tests above can fail."""
    page = tmp_path / "page.md"
    shell = "$ synthgen dance r -o x   # a remark\nsynthgen show --cuont 3 r | head\n"
    page.write_text(f"```yaml\ntask: x\nsedes: []\n```\n\n```bash\n{shell}```\n")
    (text,) = blocks(page, "yaml")
    with pytest.raises(ValueError, match="sedes"):
        Recipe.model_validate(yaml.safe_load(text))
    dance, show = commands_in(blocks(page, "bash")[0])
    assert dance == ["synthgen", "dance", "r", "-o", "x"]
    assert show == ["synthgen", "show", "--cuont", "3", "r"]
    with pytest.raises(AssertionError, match="dance"):
        parse(dance)
    with pytest.raises(click.NoSuchOption):
        parse(show)
