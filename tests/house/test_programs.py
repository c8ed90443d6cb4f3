"""The programs of benchmarks/ and the targets of `make` that pages, docstrings and the Makefile name exist, with their
options.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from support.places import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PROGRAMS = sorted((REPOSITORY / "benchmarks").rglob("*.py"))
MAKEFILE = REPOSITORY / "Makefile"
_BLOCK = re.compile(r"^ *```[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_PROGRAM = re.compile(r"(?:^|\s|/)(benchmarks/[\w/]+\.py)(?=$|\s)(.*)", re.MULTILINE)
_MAKE = re.compile(r"^\W*make(?= |$)(.*)", re.MULTILINE)


def said_in(page: Path) -> str:
    """The code of a page: each span in a line of its own, and the blocks."""
    text = page.read_text(encoding="utf-8")
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", _BLOCK.sub("", text))]
    return "\n".join([*spans, *_BLOCK.findall(text)])


def commands_in(text: str, pattern: re.Pattern[str]) -> Iterator[list[str]]:
    """The groups of each match, of which the last is cut at a remark or at the next command."""
    for *before, rest in (found.groups() for found in pattern.finditer(text)):
        yield [*before, re.split(r" #|[|>&;]", rest)[0]]


@cache
def words_of(path: Path) -> set[str]:
    """Every string of a program, and of the modules of its folder that it imports."""
    words = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.add(node.value)
        elif isinstance(node, ast.ImportFrom) and (path.parent / f"{node.module}.py").is_file():
            words |= words_of(path.parent / f"{node.module}.py")
    return words


def wrong_program(name: str, rest: str) -> list[str]:
    """What is wrong with a command: its file, its options that do not exist, and a first word that does not exist. A
    word such as FOLDER stands for a value.
    """
    path = REPOSITORY / name
    if not path.is_file():
        return [name]
    asked = [*re.findall(r"(?<![\w-])--?[a-z][\w-]*", rest), *re.findall(r"^ ([a-z_]+)(?=$| )", rest)]
    return [f"{name} {word}" for word in asked if word not in words_of(path)]


def wrong_target(rest: str) -> list[str]:
    """The targets and variables of a `make` command that the Makefile does not have. `experiment-NAME` stands for the
    experiments.
    """
    text = MAKEFILE.read_text()
    targets = {name for names in re.findall(r"^([\w %-]+):(?!=)", text, re.MULTILINE) for name in names.split()}
    targets |= {f"experiment-{path.stem}" for path in PROGRAMS if path.read_text().startswith('"""Experiment:')}
    variables = {f"{name}=" for name in re.findall(r"\$\(([A-Z_]+)\)", text)}
    words = rest.strip().partition("  ")[0].split()
    return [word for word in words if re.sub(r"=.*", "=", word) not in {"experiment-NAME", *targets, *variables}]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(REPOSITORY).as_posix())
def test_every_command_of_the_repository_in_a_page_is_one(page):
    text = said_in(page)
    assert [wrong for command in commands_in(text, _PROGRAM) for wrong in wrong_program(*command)] == []
    assert [wrong for command in commands_in(text, _MAKE) for wrong in wrong_target(*command)] == []


def test_every_command_in_a_docstring_and_in_the_makefile_is_one():
    texts = [ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "" for path in PROGRAMS]
    commands = [one for text in [*texts, MAKEFILE.read_text()] for one in commands_in(text, _PROGRAM)]
    assert len(commands) > 70
    assert [wrong for command in commands for wrong in wrong_program(*command)] == []
    comments = "\n".join(re.findall(r"`([^`]+)`", MAKEFILE.read_text()))
    assert [wrong for command in commands_in(comments, _MAKE) for wrong in wrong_target(*command)] == []


def test_what_these_tests_look_for_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Run `python benchmarks/api.py\nfull --in-flight 5 --in-fligth 5` and `benchmarks/nowhere.py`.\n"
        "`benchmarks/api.py folly` and `python benchmarks/experiments/logits.py --tiny --small`, not `make`.\n\n"
        "```\n$ make bench-curate TEXT=rows.jsonl   # a remark --none\nmake bench-everything TXET=x  all of it\n```\n"
        "`make experiment-logits` and `make experiment-nothing`, which make nothing.\n"
    )
    text = said_in(page)
    assert [wrong for command in commands_in(text, _PROGRAM) for wrong in wrong_program(*command)] == [
        "benchmarks/api.py --in-fligth",
        "benchmarks/nowhere.py",
        "benchmarks/api.py folly",
        "benchmarks/experiments/logits.py --small",
    ]
    assert [wrong for command in commands_in(text, _MAKE) for wrong in wrong_target(*command)] == [
        "experiment-nothing",
        "bench-everything",
        "TXET=x",
    ]
