"""Who may import whom, read from the sources; and what is not loaded until it is used."""

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

# From top to bottom. A module may import from the floors below its own, and from its own room. It may not import from
# another room of its floor: what passes between stages is a corpus.
FLOORS = [
    {"cli"},
    {"pipeline", "tasks"},
    {"generation", "curation", "auditing", "display", "reporting"},
    {"corpus", "prompts", "seeds", "teachers"},
    {"lm"},
    {"cards", "logits", "verify"},
    {"requests"},
    {"records"},
    {"recipe"},
    {"durable", "ui"},
    {"tables"},
    {"errors"},
]
BELOW_THE_STAGES = set.union(*FLOORS[3:])  # what `distill` may import of `synthgen`
MAY_TOO = {
    ("distill.cli", "synthgen.cli"),  # the frame that both commands share
    ("distill.cli", "synthgen"),
    ("synthgen.cli", "synthgen"),
}
CALLS_DISTILL = "synthgen.pipeline"  # and only inside a function
HEAVY = ["torch", "transformers", "datasets", "pandas", "matplotlib", "pyarrow", "numpy", "accelerate", "safetensors"]


def broken_rules(root: Path) -> list[str]:
    """'module:line imports what: why not' for every import of the two packages under `root` that breaks a rule."""
    found = []
    for package in ("synthgen", "distill"):
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            for line, target, inside in imports(path):
                why = refusal(module, target, inside)
                if why:
                    found.append(f"{module}:{line} imports {target}: {why}")
    return found


def imports(path: Path) -> list[tuple[int, str, bool]]:
    """(line, module of ours, whether it is inside a function). `from synthgen import x` is synthgen.x."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            bare = node.module in ("synthgen", "distill")
            names = [f"{node.module}.{a.name}" for a in node.names] if bare else [node.module]
        found += [(node.lineno, n, node in inside) for n in names if n.split(".")[0] in ("synthgen", "distill")]
    return found


def floor(room: str) -> int:
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), -1)


def refusal(module: str, target: str, inside: bool) -> str:
    """Why `module` may not import `target`, or ''."""
    if (module, target) in MAY_TOO or module == "synthgen":  # the package itself names everything, lazily
        return ""
    (home, *mine), (there, *theirs) = module.split("."), target.split(".")
    if there == "distill":
        if home == "distill":
            return ""
        if module != CALLS_DISTILL:
            return f"only {CALLS_DISTILL} calls distill"
        return "" if inside else "only inside a function"
    if not theirs:
        return "the package as a whole"
    if floor(theirs[0]) < 0:
        return "a room that has no floor in this test"
    if home == "distill":
        return "" if theirs[0] in BELOW_THE_STAGES else "distill uses no stage"
    if floor(mine[0]) < 0:
        return f"'{mine[0]}' has no floor in this test"
    if mine[0] == theirs[0]:
        return ""
    if floor(mine[0]) == floor(theirs[0]):
        return "rooms of one floor do not import each other"
    return "" if floor(mine[0]) < floor(theirs[0]) else "a lower floor does not import an upper one"


def test_the_rules_are_kept():
    assert broken_rules(REPOSITORY) == []


@pytest.mark.parametrize(
    ("file", "line", "why"),
    [
        ("synthgen/curation/text.py", "from synthgen.generation.plan import plan", "rooms of one floor"),
        ("synthgen/auditing/__init__.py", "from synthgen import curation", "rooms of one floor"),
        ("synthgen/seeds.py", "from synthgen.prompts import load_prompt", "rooms of one floor"),
        ("synthgen/recipe/__init__.py", "from synthgen import corpus", "a lower floor"),
        ("synthgen/lm/load.py", "def f():\n    from synthgen.generation.driver import generate", "a lower floor"),
        ("synthgen/logits.py", "import synthgen", "the package as a whole"),
        (
            "synthgen/reporting/page.py",
            "def f():\n    import distill.evaluation",
            "only synthgen.pipeline calls distill",
        ),
        ("synthgen/pipeline.py", "from distill.training import train", "only inside a function"),
        ("distill/data.py", "from synthgen.curation import curate", "distill uses no stage"),
        ("distill/training.py", "def f():\n    from synthgen import pipeline", "distill uses no stage"),
        ("synthgen/novelty.py", "from synthgen import errors", "'novelty' has no floor"),
        ("synthgen/cli.py", "from synthgen import novelty", "no floor"),
    ],
)
def test_a_planted_import_is_seen(tmp_path, file, line, why):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    if (REPOSITORY / file).exists():
        shutil.copy(REPOSITORY / file, path)
    assert broken_rules(tmp_path) == []
    with path.open("a") as module:
        module.write(f"\n{line}\n")
    found = broken_rules(tmp_path)
    assert len(found) == 1, found
    assert why in found[0]


def loaded_by(program: str) -> list[str]:
    """Heavy packages that a fresh interpreter has loaded after `program`."""
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
    found = loaded_by("import synthgen; synthgen.plan(synthgen.load_recipe('instruct'))")
    assert not {"torch", "transformers", "datasets", "pandas", "matplotlib"} & set(found)


def test_a_name_that_is_loaded_is_seen():
    assert "pyarrow" in loaded_by("import synthgen; synthgen.Record")


def check_public_names() -> None:
    for package in (synthgen, distill):
        for name in package.__all__:
            value = getattr(package, name)
            assert callable(value), name
            assert value.__doc__, name
    importlib.import_module("synthgen.generation.strategies.single")
    assert not isinstance(synthgen.generate, ModuleType), "a submodule hides the function of its name"
    with pytest.raises(AttributeError, match="nonsense"):
        getattr(synthgen, "nonsense")  # noqa: B009


def test_every_public_name_is_there():
    call(check_public_names)
