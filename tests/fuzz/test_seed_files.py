"""Thousands of odd seed files through `plan`: each is read whole, or refused in one line that names the file."""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from fuzz.seed_files import rows_in, write_task
from support.commands import cold

from synthgen.cli import main
from synthgen.generation.inputs import read_inputs
from synthgen.recipe import load_recipe

SHORT, LONG, REAL = 60, 2000, 8
_LONGEST = 10.0  # seconds
_WRONG = re.compile(r"nan|None|\[.*'.*|\{.*'.*|-?inf", re.DOTALL)


def planned(folder: Path, number: int) -> str:
    """Plans the task with this number and returns "accepted" or "refused". Asserts what must be true in each case."""
    task = write_task(folder / str(number), number)
    began = time.monotonic()
    done = CliRunner().invoke(main, ["plan", str(task.recipe), "--json"])
    assert time.monotonic() - began < _LONGEST, number
    assert done.exit_code in (0, 2), (number, done.output, done.exception)
    if done.exit_code == 2:
        lines = done.stderr.splitlines()
        assert len(lines) == 2, (number, lines)
        assert re.match(r"Error: \S", lines[0]), (number, lines)
        assert re.match(r"  → \S", lines[1]), (number, lines)
        assert str(task.seeds) in lines[0] or "template t/user.j2" in lines[0], (number, lines)
        return "refused"
    assert done.stderr.count("Error") == 0
    seeds = read_inputs(load_recipe(task.recipe)).seeds
    rows = rows_in(task.seeds)
    assert len(seeds) == len(rows), number
    if None not in rows:
        assert Counter(repr(seed.fields) for seed in seeds) == Counter(map(repr, rows)), number
    assert len({seed.id for seed in seeds}) == len(seeds), number
    values = {str(value) for row in rows if row for value in row.values() if isinstance(value, str)}
    for seed in seeds:
        assert seed.question.strip(), number
        for text in seed.reference or []:
            assert text.strip(), number
            assert not _WRONG.fullmatch(text) or text in values or None in rows, (number, text)
    return "accepted"


def plan_all(folder: Path, numbers: range) -> Counter[str]:
    happened: Counter[str] = Counter()
    for number in numbers:
        happened[planned(folder, number)] += 1
        shutil.rmtree(folder / str(number))
    return happened


def test_some_odd_seed_files(tmp_path):
    happened = plan_all(tmp_path, range(SHORT))
    assert min(happened["accepted"], happened["refused"]) > SHORT / 5, happened


@pytest.mark.slow
def test_two_thousand_odd_seed_files(tmp_path):
    happened = plan_all(tmp_path, range(SHORT, SHORT + LONG))
    print(happened)
    assert min(happened["accepted"], happened["refused"]) > LONG / 5, happened


@pytest.mark.slow
def test_some_with_the_real_command(tmp_path):
    for number in range(REAL):
        task = write_task(tmp_path / str(number), number)
        done = cold("synthgen", "plan", task.recipe)
        assert done.code == CliRunner().invoke(main, ["plan", str(task.recipe)]).exit_code, number
        assert done.code in (0, 2), done
        assert "Traceback" not in done.err
