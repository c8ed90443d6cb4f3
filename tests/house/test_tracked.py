"""The repository contains only the folders and files of the project, and no paths of the machine that made it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TOP = {
    *(".ci", ".gitignore", "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "pyproject.toml"),
    *("constraints.txt", "constraints-stores.txt", "constraints-vllm.txt"),
    *("requirements-family.txt", "requirements-model.txt"),
    *("benchmarks", "data", "distill", "docs", "prompts", "synthgen", "tests"),
}
# A path in quotes that begins with a folder for users or work.
_MACHINE = re.compile(rb"""["'](/(?:home|Users|root|work|mnt)/[^"']+)""")


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True)
    if done.returncode:
        pytest.skip("this copy is no git repository")
    return done.stdout.decode().split("\0")[:-1]


def test_nothing_else_lies_at_the_top():
    """Tools that benchmarks run may write folders such as `logs` where they run."""
    assert {name.partition("/")[0] for name in tracked()} <= TOP


def test_no_path_of_the_machine_is_in_a_result_file():
    results = [name for name in tracked() if name.endswith((".json", ".jsonl", ".log", ".txt")) and "tests" not in name]
    assert len(results) > 50
    found = {name: _MACHINE.search((REPOSITORY / name).read_bytes()) for name in results}
    assert {name: match[1] for name, match in found.items() if match} == {}
