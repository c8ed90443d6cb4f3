"""Benchmarks, and tests that need a GPU or another environment, use the project as it is now.

The default tests do not run these files, so the tests here only read them. Every name that these files import from the
project must exist, and every call of an imported function must fit the function's parameters.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.places import REPOSITORY

FOLDERS = ("benchmarks", "tests/gpu", "tests/llama", "tests/trl", "tests/vllm")
OURS = ("synthgen", "distill", "support")
NEEDS_VLLM = "synthgen.teachers.vllm."  # vLLM is not installed here, so the source of these modules is read

# Names of revision 199c186. These benchmarks also run the old revision 199c186, and call functions by the names
# of that revision.
OLD = {
    "benchmarks/curation.py": {"synthgen.curate.CHECKS", "synthgen.curate.dedup"},
    "benchmarks/seeds.py": {"synthgen.generate.plan.plan"},
    "benchmarks/streaming.py": {
        "distill.data.batch_rows",
        "distill.data.load",
        "distill.objective.FromShards",
        "synthgen.training.TrainSection",
    },
    "benchmarks/streaming_corpus.py": {
        "synthgen.sections.TeacherSection",
        "synthgen.teachers.load.tokenizer_hash",
    },
}


def files() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((REPOSITORY / folder).rglob("*.py"))]


# Imports


def imports(tree: ast.AST) -> Iterator[tuple[int, str, str, str]]:
    """(line, module, imported name or '', name in the file) for each import from the project. Strings that are programs
    are searched too.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if is_ours(alias.name):
                    yield node.lineno, alias.name, "", alias.asname or ""
        elif isinstance(node, ast.ImportFrom) and is_ours(node.module or ""):
            for alias in node.names:
                yield node.lineno, str(node.module), alias.name, alias.asname or alias.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "import " in node.value:
            for _, *found in imports(program(node.value)):
                yield node.lineno, *found


def is_ours(module: str) -> bool:
    return module.split(".")[0] in OURS or module.startswith("test_")


def program(text: str) -> ast.AST:
    """The syntax tree of a string. The tree is empty if the string is not a program."""
    try:
        return ast.parse(textwrap.dedent(text))
    except SyntaxError:
        return ast.Module([], [])


def exists(module: str, name: str) -> bool:
    """Whether a module defines this name or contains a module of this name. If `name` is empty: whether the module
    exists.
    """
    if f"{module}.".startswith(NEEDS_VLLM):
        return name in names_of(module) or bool(source_of(f"{module}.{name}")) or (not name and bool(source_of(module)))
    try:
        holder = importlib.import_module(module)
        if name and not hasattr(holder, name):
            importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


def source_of(module: str) -> str:
    """The source of a module, which is not imported. '' if there is no such module."""
    place = REPOSITORY / module.replace(".", "/")
    return next((p.read_text() for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()), "")


def names_of(module: str) -> set[str]:
    """The names that a module's source binds at the top level."""
    names: set[str] = set()
    for node in ast.parse(source_of(module)).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        else:
            names |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names


def missing(path: Path) -> dict[str, int]:
    """Maps each imported name that does not exist to its line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {f"{module}.{name}".rstrip("."): line for line, module, name, _ in imports(tree) if not exists(module, name)}


# Calls


def misfits(path: Path) -> list[str]:
    """One line for each call of an imported function whose arguments do not fit, and for each attribute that a module
    lacks.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    known = imported_objects(tree)
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            value = known.get(node.value.id)
            if (inspect.ismodule(value) or inspect.isclass(value)) and not has(value, node.attr):
                wrong.append(f"{path.name}:{node.lineno}: {node.value.id} has no {node.attr}")
        elif isinstance(node, ast.Call):
            function = called(node.func, known)
            if function is not None and (why := misfit(node, function)):
                wrong.append(f"{path.name}:{node.lineno}: {ast.unparse(node.func)}: {why}")
    return wrong


def has(value: Any, name: str) -> bool:
    """Whether an object has this attribute or declares a field of this name. Classes do not have their fields as
    attributes.
    """
    return hasattr(value, name) or name in getattr(value, "__annotations__", {})


def imported_objects(tree: ast.AST) -> dict[str, Any]:
    """Maps each name to the object that the file imports under it.

    Leaves out names that the file also binds in another way, and names from modules that need vLLM.
    """
    objects: dict[str, Any] = {}
    bound = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    bound |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    for _, module, name, here in imports(tree):
        needs_vllm = f"{module}.{name}.".startswith(NEEDS_VLLM)
        if needs_vllm or not exists(module, name):
            continue
        if name:
            holder = importlib.import_module(module)
            value = getattr(holder, name) if hasattr(holder, name) else importlib.import_module(f"{module}.{name}")
        else:
            package = module.split(".")[0]
            value = importlib.import_module(module if here else package)
            here = here or package
        if objects.setdefault(here, value) is not value:
            bound.add(here)
    return {name: value for name, value in objects.items() if name not in bound}


def called(function: ast.expr, known: dict[str, Any]) -> Any:
    """The imported object that a call refers to, or None if the object is not imported."""
    if isinstance(function, ast.Name):
        return known.get(function.id)
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return getattr(known.get(function.value.id), function.attr, None)
    return None


def misfit(node: ast.Call, function: Any) -> str:
    """The reason why the arguments of a call do not fit the function's parameters, or '' if they fit."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""
    if any(isinstance(argument, ast.Starred) for argument in node.args):
        return ""
    keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg}
    partly = len(keywords) < len(node.keywords)
    try:
        (signature.bind_partial if partly else signature.bind)(*node.args, **keywords)
    except TypeError as error:
        return str(error)
    return ""


def test_every_imported_name_exists():
    stale = {str(path.relative_to(REPOSITORY)): names for path in files() if (names := missing(path))}
    assert {path: set(names) for path, names in stale.items()} == OLD, stale


def test_every_call_fits():
    assert [line for path in files() for line in misfits(path)] == []


def test_every_bug_of_the_loss_can_be_planted():
    """`make loss-bugs` plants bugs by replacing texts of the source, so each text must occur exactly once."""
    spec = importlib.util.spec_from_file_location("loss_bugs", REPOSITORY / "benchmarks" / "loss_bugs.py")
    assert spec is not None
    assert spec.loader is not None
    loss_bugs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loss_bugs)
    changes = [change for bug in loss_bugs.BUGS.values() for change in bug]
    assert [old for name, old, _ in changes if (REPOSITORY / name).read_text().count(old) != 1] == []


def test_a_wrong_name_and_a_wrong_call_are_seen(tmp_path):
    path = tmp_path / "stale.py"
    path.write_text(
        "import distill.nowhere\n"
        "from synthgen import durable, logits\n"
        "from synthgen.recipe import load_recipe\n"
        "from synthgen.teachers.vllm import engine\n"
        "from synthgen.teachers.vllm.engine import Engine, Motor\n"
        "from synthgen.teachers.vllm.nowhere import Engine as Other\n"
        "def inside():\n"
        "    from distill.losses import divergence, divergences\n"
        "    divergence(1, 2, 'jsd', temperature=2.0)\n"
        "    divergence(1, 2, 'jsd', heat=2.0)\n"
        "    divergence(*inside())\n"
        "CODE = 'from synthgen.recipe import recipes'\n"
        "load_recipe()\n"
        "durable.write_json('path', {})\n"
        "logits.to_tables()\n"
    )
    assert missing(path) == {
        "distill.nowhere": 1,
        "synthgen.teachers.vllm.engine.Motor": 5,
        "synthgen.teachers.vllm.nowhere.Engine": 6,
        "distill.losses.divergences": 8,
        "synthgen.recipe.recipes": 12,
    }
    assert sorted(misfits(path)) == [
        "stale.py:10: divergence: got an unexpected keyword argument 'heat'",
        "stale.py:13: load_recipe: missing a required argument: 'name'",
        "stale.py:15: logits has no to_tables",
    ]
