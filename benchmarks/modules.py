"""For structure.py: reads the packages synthgen and distill from a git revision or a folder, and resolves names and
imports.
"""

from __future__ import annotations

import ast
import io
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parent.parent
PACKAGES = ("synthgen", "distill")
ENDINGS = (".py", ".j2")


class Hit(NamedTuple):
    """One place in the code that structure.py counts."""

    path: str
    line: int
    text: str


@dataclass
class Module:
    """One Python file.

    `names` maps each name that is assigned at the top of the file to its value. `imports` maps a local name to (path of
    the file from which it is imported, name in that file), or to (path, '') if a whole module is imported.
    """

    path: str
    tree: ast.Module
    names: dict[str, ast.expr] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)


Modules = Mapping[str, Module]


def read_revision(revision: str) -> dict[str, str]:
    """Maps the path of each file of synthgen and distill in a git revision to its text."""
    packed = subprocess.run(["git", "archive", revision, *PACKAGES], cwd=REPOSITORY, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        files = {member.name: archive.extractfile(member) for member in archive if member.name.endswith(ENDINGS)}
        return {name: file.read().decode("utf-8") for name, file in files.items() if file}


def read_folder(root: Path) -> dict[str, str]:
    """Maps the path of each file of synthgen and distill below the folder `root` to its text."""
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*")) if path.suffix in ENDINGS]
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def parse(sources: Mapping[str, str]) -> dict[str, Module]:
    """The Python files among `sources`, with the values of their global names and imports."""
    modules = {path: Module(path, ast.parse(text)) for path, text in sources.items() if path.endswith(".py")}
    for module in modules.values():
        for node in module.tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                module.names[node.targets[0].id] = node.value
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
                module.names[node.target.id] = node.value
            elif type(node).__name__ == "TypeAlias":  # `type X = ...`; ast has no TypeAlias in Python 3.11
                module.names[node.name.id] = node.value  # type: ignore[attr-defined]
        for leaf in ast.walk(module.tree):
            for local, dotted, name in imported(leaf):
                path = file_of(f"{dotted}.{name}", modules) if name else ""
                target = (path, "") if path else (file_of(dotted, modules), name)
                if target[0]:
                    module.imports[local] = target
    return modules


def imported(node: ast.AST) -> Iterator[tuple[str, str, str]]:
    """Yields (local name, module, name in the module) for each name that a statement imports. `import x` gives (x, x,
    '').
    """
    if isinstance(node, ast.Import):
        yield from ((alias.asname or alias.name, alias.name, "") for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from ((alias.asname or alias.name, node.module or "", alias.name) for alias in node.names)


def file_of(dotted: str, modules: Modules) -> str:
    """The path of the module with the dotted name `dotted`; '' if the module is not in synthgen or distill."""
    stem = dotted.replace(".", "/")
    return next((path for path in (f"{stem}.py", f"{stem}/__init__.py") if path in modules), "")


def definition(name: str, module: Module, modules: Modules) -> tuple[Module, ast.expr] | None:
    """Returns (module, value) of a global name: the module that assigns the name, and the assigned expression."""
    for _ in range(4):
        if name in module.names:
            return module, module.names[name]
        if name not in module.imports:
            return None
        path, name = module.imports[name]
        module = modules[path]
    return None


def last_name(node: ast.AST) -> str:
    """The last part of a dotted name: `c` for `a.b.c`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
