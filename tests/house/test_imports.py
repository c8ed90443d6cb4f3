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

# The layers from top to bottom. A layer is a set of modules and packages of `synthgen`, which are called parts here. A
# module may import from its own part and from lower layers, but not from another part of its layer, because stages
# exchange data only through a corpus.
LAYERS = [
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
LAYERS_OF_DISTILL = [
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
BELOW_THE_STAGES = set.union(*LAYERS[4:])  # the parts of `synthgen` that `distill` may import
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


def layer(part: str, layers: list[set[str]] = LAYERS) -> int:
    return next((number for number, parts in enumerate(layers) if part in parts), -1)


def upward(part: str, target: str, layers: list[set[str]]) -> str:
    """The reason why the first part may not import the second part of the same package, or '' if it may."""
    for name in (part, target):
        if layer(name, layers) < 0:
            return f"'{name}' has no layer in this test"
    if part == target:
        return ""
    if layer(part, layers) == layer(target, layers):
        return "parts of one layer do not import each other"
    return "" if layer(part, layers) < layer(target, layers) else "a lower layer does not import an upper one"


def refusal(module: str, target: str, inside: bool) -> str:
    """The reason why `module` may not import `target`, or '' if it may."""
    if (
        module,
        target,
    ) in EXCEPTIONS or module == "synthgen":  # synthgen/__init__.py imports a name only when the name is used
        return ""
    (package, *parts), (target_package, *target_names) = module.split("."), target.split(".")
    if target_package == "distill":
        if package == "distill":  # distill/__init__.py imports a name only when the name is used
            return upward(parts[0], target_names[0], LAYERS_OF_DISTILL) if parts and target_names else ""
        if module != CALLS_DISTILL:
            return f"only {CALLS_DISTILL} calls distill"
        return "" if inside else "only inside a function"
    if not target_names:
        return "a module imports parts, not the whole package"
    if layer(target_names[0]) < 0:
        return f"'{target_names[0]}' has no layer in this test"
    if package == "distill":
        return "" if target_names[0] in BELOW_THE_STAGES else "distill imports no stage"
    return upward(parts[0], target_names[0], LAYERS)


def test_the_rules_are_kept():
    assert broken_rules(REPOSITORY) == []


@pytest.mark.parametrize(
    ("file", "line", "why"),
    [
        ("synthgen/curation/text.py", "from synthgen.generation.plan import plan", "parts of one layer"),
        ("synthgen/display.py", "from synthgen import curation", "parts of one layer"),
        ("synthgen/seeds.py", "from synthgen.prompts import load_prompt", "parts of one layer"),
        ("synthgen/executor/local.py", "from synthgen import corpus", "parts of one layer"),
        ("synthgen/recipe/__init__.py", "from synthgen import corpus", "a lower layer"),
        ("synthgen/lm/load.py", "def f():\n    from synthgen.generation.driver import generate", "a lower layer"),
        ("synthgen/logits.py", "import synthgen", "not the whole package"),
        (
            "synthgen/reporting/page.py",
            "def f():\n    import distill.evaluation",
            "only synthgen.pipeline calls distill",
        ),
        ("synthgen/pipeline.py", "from distill.training import train", "only inside a function"),
        ("distill/data.py", "from synthgen.curation import curate", "distill imports no stage"),
        ("distill/loop.py", "def f():\n    from distill.training import train", "a lower layer"),
        ("distill/held_out.py", "from distill.data import Example", "parts of one layer"),
        ("distill/novelty.py", "from distill.data import Example", "'novelty' has no layer"),
        ("distill/training.py", "def f():\n    from synthgen import pipeline", "distill imports no stage"),
        ("synthgen/novelty.py", "from synthgen import errors", "'novelty' has no layer"),
        ("synthgen/cli.py", "from synthgen import novelty", "'novelty' has no layer"),
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
