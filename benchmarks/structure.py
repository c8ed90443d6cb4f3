"""Counts features that make code hard to change. Compares the counts in a git revision with those in the working tree.

    python benchmarks/structure.py [REVISION] [--list] [--check]

The default revision is 199c186, which is read with `git archive`. Only `synthgen/` and `distill/` are counted. `--list`
prints every hit as path:line. `--check` exits with 1 if the working tree exceeds a limit. Each of the four counts below
has a limit. Count 1 (comparisons) must be zero. Count 2 (`Any`) may be at most half of the same count in the revision.
Count 3 (modules, functions, parameter lists and calls that are too long) must be zero. Count 4 (circles) must be zero.

1. Comparisons with the name of a strategy, an engine or a kind of student, outside the table that owns the name.
   - The names are the keys of STRATEGIES, ENGINES and KINDS, and the members of three kinds of Literal: the alias
     `Strategy`, the field `engine` of a recipe section, and the field `kind` of a class called ...Student. The names of
     199c186 are always included.
   - A comparison is one of: ==, !=, in, not in, `case`, a Jinja test, `table["name"]`, `.get("name")`, a lookup in a
     dictionary whose keys are such names, or a test of type. A test of type is `isinstance`, `case Class()` or `type(x)
     is Class` with a section class that belongs to some entries of a table but not to all.
   - Constants, local variables and loop variables are replaced by the values assigned to them.
   - Words such as 'score' or 'sentence' have other meanings too. So a comparison with a word counts only if the other
     side is a variable, attribute, key or function with a name that belongs to the table. Such a name contains
     `strateg` for strategies, `engine` for engines, and `kind` or `student` for kinds of student. `request.kind ==
     "score"` does not count, because no kind of student is called score.
   - The members of a Literal do not count as comparisons. Comparisons in the file of the table do not count. In a
     module, comparisons with the name of an entry that the module owns do not count. A module owns an entry if the
     entry names a function of the module as "module:function". A module also owns an entry if it is named after the
     entry and lies in one of the folders of the table in FOLDERS (comparisons.py).
   - 199c186 has no tables. In 199c186 these files are treated as the tables: synthgen/generate/catalogue.py and
     synthgen/steps.py for strategies, synthgen/teachers/__init__.py for engines, and distill/train.py for kinds of
     student.
   - The script does not detect `startswith`, regular expressions, or tests of other attributes that differ between
     entries.
2. `Any` in annotations. Every occurrence counts, also inside `dict[str, Any]`. An alias that contains Any counts each
   time an annotation uses the alias. Any inside `np.ndarray[...]` is counted in a separate row, because it only means
   that the annotation does not state the shape or the dtype of an array.
3. Modules over 400 lines, functions over 60 lines (decorators do not count), and parameter lists and calls with more
   than 6 positional parameters or arguments. `self` and `cls` do not count, and `*rest` counts as one. Click passes the
   parameters of a command by keyword, so commands are counted in a separate row without a limit.
4. Circles: groups of files that import each other, directly or through other files. Three rows of the table count
   circles. The first row follows only imports at the top of modules. The second row also follows imports inside
   functions. The third row also follows imports under TYPE_CHECKING. An import of a module does not count as an import
   of the `__init__.py` of its package.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from comparisons import FUNCTIONS, comparisons
from modules import REPOSITORY, Hit, Module, Modules, file_of, imported, last_name, parse, read_folder, read_revision

FIRST = "199c186"
LINES, FUNCTION_LINES, POSITIONAL = 400, 60, 6

COMPARISONS = "comparisons outside the table"
ANY, DICTIONARIES, ALIASES = "Any in annotations", "  of which in dict[str, Any]", "  of which uses of an alias"
ARRAYS = "Any inside np.ndarray[...] (no limit)"
MODULES, LONG = f"modules over {LINES} lines", f"functions over {FUNCTION_LINES} lines"
PARAMETERS, ARGUMENTS = f"parameter lists over {POSITIONAL} positional", f"calls over {POSITIONAL} positional"
COMMANDS = f"click commands over {POSITIONAL} parameters (no limit)"
CIRCLES = ("circles, imports at the top", "circles, with imports in functions", "circles, with TYPE_CHECKING too")
ROWS = (COMPARISONS, ANY, DICTIONARIES, ALIASES, ARRAYS, MODULES, LONG, PARAMETERS, ARGUMENTS, COMMANDS, *CIRCLES)
NONE_WANTED = (COMPARISONS, MODULES, LONG, PARAMETERS, ARGUMENTS, *CIRCLES)


def count(sources: Mapping[str, str]) -> dict[str, list[Hit]]:
    """Maps the name of each row of the printed table to the places in the code that count for it."""
    modules = parse(sources)
    hits: dict[str, list[Hit]] = {row: [] for row in ROWS}
    hits[COMPARISONS] = comparisons(sources, modules)
    for row, hit in [*untyped(modules), *sizes(sources, modules), *circles(modules)]:
        hits[row].append(hit)
    return {row: sorted(row_hits) for row, row_hits in hits.items()}


# 2. Any


def untyped(modules: Modules) -> Iterator[tuple[str, Hit]]:
    aliases = _aliases(modules)
    for module in modules.values():
        for annotation in _annotations(module.tree):
            text = ast.unparse(annotation)
            for node, row in _any_in(annotation, module, aliases):
                hit = Hit(module.path, annotation.lineno, text)
                yield (ARRAYS if row == ARRAYS else ANY), hit
                if row in (DICTIONARIES, ALIASES):
                    yield row, Hit(module.path, annotation.lineno, f"{last_name(node)} in {text}")


def _annotations(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            args = node.args
            parameters = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
            yield from (each.annotation for each in parameters if each and each.annotation)
            if node.returns:
                yield node.returns
        elif isinstance(node, ast.AnnAssign):
            yield node.annotation


def _any_in(
    node: ast.AST, module: Module, aliases: set[tuple[str, str]], row: str = ANY
) -> Iterator[tuple[ast.AST, str]]:
    """Yields pairs (node, name of the table row that counts it) for each Any below `node`, and for each use of an alias
    that contains Any.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            node = ast.parse(node.value, mode="eval").body  # an annotation in quotes
        except SyntaxError:
            return
    if isinstance(node, ast.Name | ast.Attribute):
        if last_name(node) == "Any":
            yield node, row
        elif _meant(node, module) in aliases:
            yield node, ALIASES
        return
    if isinstance(node, ast.Subscript) and last_name(node.value) == "Literal":
        return
    if isinstance(node, ast.Subscript) and row != ARRAYS:
        name = last_name(node.value)
        row = ARRAYS if name in ("ndarray", "NDArray") else DICTIONARIES if name == "dict" else ANY
    for child in ast.iter_child_nodes(node):
        yield from _any_in(child, module, aliases, row)


def _meant(node: ast.AST, module: Module) -> tuple[str, str]:
    """Returns (path, name) of the definition to which a name in an annotation refers."""
    if isinstance(node, ast.Attribute):
        return module.imports.get(last_name(node.value), ("", ""))[0], node.attr
    path, name = module.imports.get(last_name(node), (module.path, ""))
    return path, name or last_name(node)


def _aliases(modules: Modules) -> set[tuple[str, str]]:
    """Returns (path, name) of each type alias, NewType or subclass whose definition contains Any."""
    aliases: set[tuple[str, str]] = set()
    for _ in range(4):  # the search is repeated, because an alias may use another alias that is defined later
        for module in modules.values():
            for name, value in module.names.items():
                new_type = isinstance(value, ast.Call) and last_name(value.func) == "NewType"
                if (new_type or isinstance(value, ast.Name | ast.Attribute | ast.Subscript | ast.BinOp)) and any(
                    row != ARRAYS for _, row in _any_in(value, module, aliases)
                ):
                    aliases.add((module.path, name))
            for node in module.tree.body:
                if isinstance(node, ast.ClassDef) and any([*_any_in(base, module, set())] for base in node.bases):
                    aliases.add((module.path, node.name))
    return aliases


# 3. Sizes


def sizes(sources: Mapping[str, str], modules: Modules) -> Iterator[tuple[str, Hit]]:
    for path, module in modules.items():
        lines = len(sources[path].splitlines())
        if lines > LINES:
            yield MODULES, Hit(path, 1, f"{lines} lines")
        methods = {id(node) for cls in ast.walk(module.tree) if isinstance(cls, ast.ClassDef) for node in cls.body}
        for node in ast.walk(module.tree):
            if isinstance(node, FUNCTIONS):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    yield LONG, Hit(path, node.lineno, f"{node.name}: {lines} lines")
            if isinstance(node, (*FUNCTIONS, ast.Lambda)):
                wide = _positional(node, id(node) in methods)
                if wide > POSITIONAL:
                    row = COMMANDS if _is_command(node) else PARAMETERS
                    yield row, Hit(path, node.lineno, f"{getattr(node, 'name', 'lambda')}: {wide}")
            if isinstance(node, ast.Call) and len(node.args) > POSITIONAL:
                yield ARGUMENTS, Hit(path, node.lineno, f"{last_name(node.func)}(...): {len(node.args)}")


def _positional(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, method: bool) -> int:
    names = [each.arg for each in (*node.args.posonlyargs, *node.args.args)]
    bound = method and names[:1] in (["self"], ["cls"])
    return len(names) - bound + (node.args.vararg is not None)


def _is_command(node: ast.AST) -> bool:
    decorators = [each.func if isinstance(each, ast.Call) else each for each in getattr(node, "decorator_list", [])]
    return any(last_name(each) in ("command", "group") for each in decorators)


# 4. Circles


def circles(modules: Modules) -> Iterator[tuple[str, Hit]]:
    edges = {path: [*_imports(module, modules)] for path, module in modules.items()}
    for most, row in enumerate(CIRCLES):
        graph = {path: {there for there, where in targets if where <= most} for path, targets in edges.items()}
        reached = {path: _reached(path, graph) for path in graph}
        groups = {frozenset({other for other in reached[path] if path in reached[other]}) for path in graph}
        for group in sorted(map(sorted, groups - {frozenset()})):
            yield row, Hit(group[0], 1, f"{len(group)} files: {' '.join(group)}")


def _imports(module: Module, modules: Modules) -> Iterator[tuple[str, int]]:
    """Yields (path, where) for each import of a module of the two packages.

    `where` is 0 at the top of the file, 1 inside a function and 2 under TYPE_CHECKING.
    """
    waiting: list[tuple[ast.AST, int]] = [(module.tree, 0)]
    while waiting:
        node, where = waiting.pop()
        for _, dotted, name in imported(node):
            path = (file_of(f"{dotted}.{name}", modules) if name else "") or file_of(dotted, modules)
            if path and path != module.path:
                yield path, where
        if isinstance(node, (*FUNCTIONS, ast.Lambda)):
            where = max(where, 1)
        if isinstance(node, ast.If) and last_name(node.test) == "TYPE_CHECKING":
            waiting += [(child, 2) for child in node.body] + [(child, where) for child in node.orelse]
        else:
            waiting += [(child, where) for child in ast.iter_child_nodes(node)]


def _reached(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    """All files that the file `start` imports, directly or through other files. If `start` is part of a circle, the
    result contains `start`.
    """
    seen: set[str] = set()
    waiting = [*graph[start]]
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += graph[path]
    return seen


# The table


def table(revision: str, before: Mapping[str, list[Hit]], now: Mapping[str, list[Hit]]) -> str:
    rows = [("what", revision, "now"), *((row, str(len(before[row])), str(len(now[row]))) for row in ROWS)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(f"{a:<{widths[0]}} | {b:>{widths[1]}} | {c:>{widths[2]}}" for a, b, c in rows)


def exceeded(before: Mapping[str, list[Hit]], now: Mapping[str, list[Hit]]) -> list[str]:
    """One line for each limit that the working tree exceeds."""
    problems = [f"{row}: {len(now[row])}; the limit is 0" for row in NONE_WANTED if now[row]]
    half = len(before[ANY]) // 2
    if len(now[ANY]) > half:
        problems.append(f"{ANY}: {len(now[ANY])}; the limit is {half}, half of {len(before[ANY])}")
    return problems


def main(arguments: list[str] | None = None, root: Path = REPOSITORY) -> int:
    parser = argparse.ArgumentParser(description="Count comparisons, Any, sizes and circles in two trees.")
    parser.add_argument("revision", nargs="?", default=FIRST, help=f"the git revision to compare with; default {FIRST}")
    parser.add_argument("--list", action="store_true", help="print every hit of both trees as path:line")
    parser.add_argument("--check", action="store_true", help="exit with 1 if the working tree exceeds a limit")
    options = parser.parse_args(arguments)
    before, now = count(read_revision(options.revision)), count(read_folder(root))
    if options.list:
        for name, hits in ((options.revision, before), ("now", now)):
            for row in ROWS:
                print(f"\n{name}: {row.strip()}: {len(hits[row])}")
                print(*(f"  {hit.path}:{hit.line}  {hit.text[:120]}" for hit in hits[row]), sep="\n")
        print()
    print(table(options.revision, before, now))
    problems = exceeded(before, now) if options.check else []
    print(*problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
