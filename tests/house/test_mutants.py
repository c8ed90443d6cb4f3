"""benchmarks/mutants.py changes one place at a time, draws the same mutants for the same seed, and counts survivors."""

from __future__ import annotations

import ast
import difflib
import json
import sys

import pytest
from support.places import REPOSITORY


@pytest.fixture(scope="module")
def mutants():
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    import mutants

    yield mutants
    sys.path.remove(str(REPOSITORY / "benchmarks"))
    for name in ("mutants", "changes"):
        del sys.modules[name]


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("a < b", ["a <= b"]),
        ("a <= b < c", ["a < b < c", "a <= b <= c"]),
        ("a > b", ["a >= b"]),
        ("a >= b", ["a > b"]),
        ("a == b", ["a != b"]),
        ("a != b", ["a == b"]),
        ("a is b", ["a is not b"]),
        ("a is  not b", ["a is b"]),
        ("a in b", ["a not in b"]),
        ("a not in b", ["a in b"]),
        ("a + b * c", ["a - b * c", "a + b / c"]),
        ("(é - b) // (c)  % d", ["(é + b) // (c)  % d", "(é - b) * (c)  % d", "(é - b) // (c)  * d"]),
        ("a / b ** c", ["a * b ** c", "a / b * c"]),
        ("a += b", ["a -= b"]),
        ("a or b or c and d", ["a and b or c and d", "a or b and c and d", "a or b or c or d"]),
        ("not a", ["a"]),
        ("if not (a): pass", ["if (a): pass"]),
        ("-a", ["+a"]),
        ("a.reshape(b, -1)", ["a.reshape(b, +1)"]),
        ("a.reshape(-b, 2)", ["a.reshape(+b, 2)", "a.reshape(-b, 3)"]),
        ("a.view(-1)", ["a.view(+1)", "a.view(-2)"]),
        ("class A(B, total=False): a: int", ["class A(B, total=True): a: int"]),
        ("f(-1, 0.5, True, x=False)", ["f(+1, 0.5, True, x=False)", "f(-2, 0.5, True, x=False)"]),
        ("a = (b  # a remark, a < b\n    < c)", ["a = (b  # a remark, a < b\n    <= c)"]),
        ("match a:\n    case 1: b", ["match a:\n    case 2: b"]),
        ("@f(1)\ndef f(a: g(1) = 2) -> h(3): b", ["@f(1)\ndef f(a: g(1) = 3) -> h(3): b"]),
        ("a: f(1) = 2", ["a: f(1) = 3"]),
    ],
)
def test_every_operator_and_number_has_its_change(mutants, line, changed):
    text = line.encode()
    found = [text[:start] + new.encode() + text[stop:] for start, stop, new in mutants.changes(text)]
    assert [one.decode() for one in found][: len(changed)] == changed
    assert len(found) == len(changed) or line.startswith("f(")


@pytest.mark.parametrize(
    "line",
    [
        '"""a < 1"""',
        '"a" + b + "c"',
        "[a] + b",
        "a += [b]",
        'f"{a + 1:>{b - 1}}"',
        "assert a < 1, b + 1",
        "@f(1)\nclass C(B[1]): pass",
        "a: Literal[1]",
        "def f(a: x[1]) -> y[2]: pass",
        "if TYPE_CHECKING:\n    a = 1",
        "__all__ = ['a'] * 2",
        "a | b & c ^ d << e",
        "zip(a, b, strict=True)",
        "class A(TypedDict, total=False): a: int",
        "# a < 1",
    ],
)
def test_what_decides_nothing_stays(mutants, line):
    assert mutants.changes(line.encode()) == []


def test_a_mutant_changes_one_place_of_the_source_and_is_a_program(mutants):
    for one in mutants.sample(mutants.AREAS, 3, 44):
        before = (REPOSITORY / one.file).read_bytes()
        after = one.applied(before)
        parts = difflib.SequenceMatcher(None, before.splitlines(), after.splitlines(), autojunk=False).get_opcodes()
        (changed,) = [part for part in parts if part[0] != "equal"]
        assert changed[2] - changed[1] == 1, "one line"
        assert ast.dump(ast.parse(after)) != ast.dump(ast.parse(before)), one.described(before)
        place, lines = one.described(before).split(", ", 1)
        assert place == f"{one.file}:{changed[1] + 1}"
        assert " → " in lines


def test_a_seed_draws_the_same_mutants_evenly(mutants):
    count = 8 * len(mutants.AREAS)
    first = mutants.sample(mutants.AREAS, 1, count)
    assert mutants.sample(mutants.AREAS, 1, count) == first != mutants.sample(mutants.AREAS, 2, count)
    assert mutants.sample(mutants.AREAS, 1, count // 4) == first[: count // 4]
    assert [one.area for one in first] == [*mutants.AREAS] * 8
    assert len({one.key for one in first}) == count
    seeds = [one for one in first if one.area == "seeds"]
    assert mutants.sample(["seeds"], 1, 8) == seeds, "other areas change nothing"


def test_every_room_has_files_and_tests_that_exist(mutants):
    files = [file for area in mutants.AREAS for file in mutants.sources(area)]
    assert len(set(files)) == len(files) > 60
    for area, patterns in mutants.AREAS.items():
        assert all(list(REPOSITORY.glob(pattern)) for pattern in patterns), area
        tests = {test for tests in mutants.sources(area).values() for test in tests}
        assert [test for test in sorted(tests) if not (REPOSITORY / test).is_file()] == []


def test_results_are_read_again_and_survivors_are_counted(mutants, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    chosen = mutants.sample(["seeds", "corpus"], 1, 20)
    for place, one in enumerate(chosen):
        failures = ["", "a test"] if place == 0 else [""] if place == 1 else ["a test"]
        with out.open("a") as file:
            file.writelines(json.dumps({**one._asdict(), "red": red}) + "\n" for red in failures)
    results = mutants.read_results(out)
    assert mutants.report(chosen, results) == 0.95
    printed = capsys.readouterr().out
    assert printed.count("survived: ") == 1
    assert f"survived: {chosen[1].file}:" in printed
    assert "\nseeds | 10 | 10 | 100%\ncorpus | 10 | 9 | 90%\nall | 20 | 19 | 95%\n" in printed
