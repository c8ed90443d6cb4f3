"""The extras that `make demo` and the README install have every package that the demo's audits import."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from synthgen.recipe import load_recipe
from synthgen.tables.audits import AUDITS

REPOSITORY = Path(__file__).parents[2]


def extras_in(name: str) -> set[str]:
    """The extras of the first install in a file that names extras."""
    [(extras,)] = [re.findall(r"'(?:\.|synthgen-distill)\[([\w,]+)\]'", (REPOSITORY / name).read_text())[:1]]
    return set(extras.split(","))


@pytest.mark.parametrize("file", ["Makefile", "README.md"])
@pytest.mark.parametrize("task", ["reasoning", "classify"])
def test_the_extras_have_the_packages_of_the_audits(file, task):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    optional = [line for extra in extras_in(file) for line in project["optional-dependencies"][extra]]
    installed = {re.match(r"[\w.-]+", line)[0] for line in [*project["dependencies"], *optional]}
    section = load_recipe(task).audit
    needed = {package for one in AUDITS.values() if getattr(section, one.key or "", None) for package in one.needs}
    assert "scipy" in needed, "the demo's recipes ask for the tests of privacy"
    assert needed <= installed
