"""Rules for imports between modules, and for heavy packages that are imported only when they are used."""

from __future__ import annotations

import ast
import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.commands import call
from support.places import REPOSITORY

import distill
import synthgen

# The floors from top to bottom. A floor is a set of rooms, and a room is a module or package of `synthgen`. A module
# may import from its own room and from lower floors, but not from another room of its floor, because stages exchange
# data only through a corpus.
FLOORS = [
    {"cli"},
    {"auditcommand", "pipeline", "plancommand", "takedown", "tasks"},
    {"bias", "privacy"},  # these packages of audits use functions of curation; only the table AUDITS names them
    {"generation", "curation", "display", "exporting", "notebook", "reporting"},
    {"auditing"},
    {"datasets", "lineage", "tally"},
    {"corpus", "prompts", "seeds", "teachers", "executor"},
    {"lm"},
    {"cards", "logits", "sources", "verify"},
    {"command", "manifest", "parquet", "removed", "requests"},
    {"records"},
    {"recipe", "stores"},
    {"outputs", "version"},
    {"durable", "jsonl", "results", "ui", "values"},
    {"files", "tables"},
    {"errors", "visible"},
]
FLOORS_OF_DISTILL = [
    {"cli"},
    {"curves"},
    {"training", "evaluation", "exporting"},
    {"students"},
    {"adopted", "arms", "targets"},
    {"fits", "loop"},
    {"streaming"},
    {"data", "held_out"},
    {"card", "cost", "ending", "finished", "intervals", "job", "losses", "output_layer", "outputs"},
    {"processes", "tokenizer"},
]
BELOW_THE_STAGES = set.union(*FLOORS[4:])  # the rooms of `synthgen` that `distill` may import
EXCEPTIONS = {
    ("distill.cli", "synthgen.cli"),  # both commands share options and error handling
    ("distill.cli", "synthgen"),
    ("synthgen.cli", "synthgen"),
}
CALLS_DISTILL = "synthgen.pipeline"  # only this module of `synthgen` may import `distill`, and only inside functions
HEAVY = ["torch", "transformers", "datasets", "pandas", "matplotlib", "pyarrow", "numpy", "accelerate", "safetensors"]


def broken_rules(root: Path) -> list[str]:
    """One line "module:line imports target: reason" for every import under `root` that breaks a rule."""
    broken = []
    for package in ("synthgen", "distill"):
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            for line, target, inside in imports(path):
                why = refusal(module, target, inside)
                if why:
                    broken.append(f"{module}:{line} imports {target}: {why}")
    return broken


def imports(path: Path) -> list[tuple[int, str, bool]]:
    """(line, imported module, whether the import is inside a function) for each import of the two packages.

    `from synthgen import x` counts as an import of `synthgen.x`.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    imported = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            bare = node.module in ("synthgen", "distill")
            names = [f"{node.module}.{a.name}" for a in node.names] if bare else [node.module]
        imported += [(node.lineno, n, node in inside) for n in names if n.split(".")[0] in ("synthgen", "distill")]
    return imported


def floor(room: str, floors: list[set[str]] = FLOORS) -> int:
    return next((number for number, rooms in enumerate(floors) if room in rooms), -1)


def upward(room: str, target: str, floors: list[set[str]]) -> str:
    """The reason why the first room may not import the second room of the same package, or '' if it may."""
    for name in (room, target):
        if floor(name, floors) < 0:
            return f"'{name}' has no floor in this test"
    if room == target:
        return ""
    if floor(room, floors) == floor(target, floors):
        return "rooms of one floor do not import each other"
    return "" if floor(room, floors) < floor(target, floors) else "a lower floor does not import an upper one"


def refusal(module: str, target: str, inside: bool) -> str:
    """The reason why `module` may not import `target`, or '' if it may."""
    if (
        module,
        target,
    ) in EXCEPTIONS or module == "synthgen":  # synthgen/__init__.py imports a name only when the name is used
        return ""
    (package, *rooms), (target_package, *target_rooms) = module.split("."), target.split(".")
    if target_package == "distill":
        if package == "distill":  # distill/__init__.py imports a name only when the name is used
            return upward(rooms[0], target_rooms[0], FLOORS_OF_DISTILL) if rooms and target_rooms else ""
        if module != CALLS_DISTILL:
            return f"only {CALLS_DISTILL} calls distill"
        return "" if inside else "only inside a function"
    if not target_rooms:
        return "a module imports rooms, not the whole package"
    if floor(target_rooms[0]) < 0:
        return f"'{target_rooms[0]}' has no floor in this test"
    if package == "distill":
        return "" if target_rooms[0] in BELOW_THE_STAGES else "distill imports no stage"
    return upward(rooms[0], target_rooms[0], FLOORS)


def test_the_rules_are_kept():
    assert broken_rules(REPOSITORY) == []


@pytest.mark.parametrize(
    ("file", "line", "why"),
    [
        ("synthgen/curation/text.py", "from synthgen.generation.plan import plan", "rooms of one floor"),
        ("synthgen/display.py", "from synthgen import curation", "rooms of one floor"),
        ("synthgen/seeds.py", "from synthgen.prompts import load_prompt", "rooms of one floor"),
        ("synthgen/executor/local.py", "from synthgen import corpus", "rooms of one floor"),
        ("synthgen/recipe/__init__.py", "from synthgen import corpus", "a lower floor"),
        ("synthgen/lm/load.py", "def f():\n    from synthgen.generation.driver import generate", "a lower floor"),
        ("synthgen/logits.py", "import synthgen", "not the whole package"),
        (
            "synthgen/reporting/page.py",
            "def f():\n    import distill.evaluation",
            "only synthgen.pipeline calls distill",
        ),
        ("synthgen/pipeline.py", "from distill.training import train", "only inside a function"),
        ("distill/data.py", "from synthgen.curation import curate", "distill imports no stage"),
        ("distill/loop.py", "def f():\n    from distill.training import train", "a lower floor"),
        ("distill/held_out.py", "from distill.data import Example", "rooms of one floor"),
        ("distill/novelty.py", "from distill.data import Example", "'novelty' has no floor"),
        ("distill/training.py", "def f():\n    from synthgen import pipeline", "distill imports no stage"),
        ("synthgen/novelty.py", "from synthgen import errors", "'novelty' has no floor"),
        ("synthgen/cli.py", "from synthgen import novelty", "'novelty' has no floor"),
    ],
)
def test_a_planted_import_is_detected(tmp_path, file, line, why):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    if (REPOSITORY / file).exists():
        shutil.copy(REPOSITORY / file, path)
    assert broken_rules(tmp_path) == []
    with path.open("a") as module:
        module.write(f"\n{line}\n")
    broken = broken_rules(tmp_path)
    assert len(broken) == 1, broken
    assert why in broken[0]


def loaded_by(program: str) -> list[str]:
    """The heavy packages that a new interpreter has imported after running `program`."""
    tail = f"\nprint(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", f"import sys\n{program}{tail}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr.split()


def test_importing_the_packages_loads_nothing_heavy():
    assert loaded_by("import synthgen, distill, synthgen.cli, distill.cli; dir(synthgen); dir(distill)") == []


def test_help_of_every_command_loads_nothing_heavy():
    program = """
import synthgen.cli, distill.cli
for group in (synthgen.cli.main, distill.cli.main):
    for verb in ([], *([name] for name in group.commands)):
        try:
            group([*verb, "--help"])
        except SystemExit as end:
            assert not end.code
"""
    assert loaded_by(program) == []


def test_a_plan_loads_no_model():
    loaded = loaded_by("import synthgen; synthgen.plan(synthgen.load_recipe('instruct'))")
    assert not {"torch", "transformers", "datasets", "pandas", "matplotlib"} & set(loaded)


def test_a_heavy_package_that_is_loaded_is_detected():
    assert "pyarrow" in loaded_by("import synthgen; synthgen.Record")


def check_public_names() -> None:
    for package in (synthgen, distill):
        for name in package.__all__:
            value = getattr(package, name)
            assert callable(value), name
            assert value.__doc__, name
    importlib.import_module("synthgen.generation.strategies.single")
    assert not isinstance(synthgen.generate, ModuleType), "a submodule hides the function with the same name"
    with pytest.raises(AttributeError, match="nonsense"):
        getattr(synthgen, "nonsense")  # noqa: B009


def test_every_public_name_exists_and_has_a_docstring():
    call(check_public_names)
