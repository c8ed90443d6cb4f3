"""The commands of docs/steward.md print what the page says."""

from __future__ import annotations

import re
import shlex

from click.testing import CliRunner
from support.places import REPOSITORY

from synthgen.cli import main

PAGE = REPOSITORY / "docs" / "steward.md"
FILE = re.compile(r"^`([\w.]+)`:\n\n```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def missing(expected: list[str], output: str) -> list[str]:
    """The expected lines that the output lacks, or has at a wrong place in the order of the lines."""
    lines = iter(output.splitlines())
    patterns = [(line, ".*".join(map(re.escape, line.split("…")))) for line in expected]
    return [line for line, pattern in patterns if not any(re.fullmatch(pattern, one) for one in lines)]


def test_the_walk_is_as_printed(tmp_path, monkeypatch):
    page = PAGE.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))
    for name, text in FILE.findall(page):
        (tmp_path / name).write_text(text)
    steps = [step.splitlines() for block in CONSOLE.findall(page) for step in block.split("$ ")[1:]]
    assert len(steps) >= 7
    for command, *expected in steps:
        program, *words = shlex.split(command)
        assert program == "synthgen"
        done = CliRunner().invoke(main, words)
        assert missing(expected, done.output) == [], f"{command}\n{done.output}"
        assert done.exit_code == (1 if any("DENY" in line for line in expected) else 0), command
    assert "Can I change my plan?" not in (tmp_path / "run" / "report.html").read_text()
