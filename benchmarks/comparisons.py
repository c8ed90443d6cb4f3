"""Finds comparisons with the name of a strategy, an engine or a kind of student. structure.py states the rules."""

from __future__ import annotations

import ast
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import jinja2
from jinja2 import nodes
from modules import Hit, Module, Modules, definition, file_of, last_name

Words = tuple[str, ...]
WORDS: dict[str, Words] = {"strategy": ("strateg",), "engine": ("engine",), "kind": ("kind", "student")}
TABLES = {"strategy": "STRATEGIES", "engine": "ENGINES", "kind": "KINDS"}
# HOMES: for each table, the folder that holds it. FOLDERS: for each table, a list of folders. If a module in one of
# these folders has the name of an entry, the module owns this entry.
HOMES = {"strategy": "synthgen/tables/", "engine": "synthgen/tables/", "kind": "synthgen/tables/"}
FOLDERS = {
    "strategy": ("synthgen/generation/strategies", "synthgen/generate"),
    "engine": ("synthgen/teachers",),
    "kind": ("distill/students", "distill/evaluation", "distill/exporting", "distill"),
}
# For revisions without tables, such as 199c186: for each table, the files that are treated as this table.
BEFORE = {
    "strategy": ("synthgen/generate/catalogue.py", "synthgen/steps.py"),
    "engine": ("synthgen/teachers/__init__.py",),
    "kind": ("distill/train.py",),
}
# Names of strategies, engines and kinds of student in revision 199c186. The search always includes these names.
KNOWN = {
    "strategy": (
        "answer rationale classify embed score rationalise vote best_of_n preference consensus disagreement "
        "self_instruct evolve magpie personas paraphrase back_translation counterfactual extract conversation"
    ),
    "engine": "transformers vllm openai replay",
    "kind": "decoder classifier encoder seq2seq sentence",
}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Family:
    """The entries of one table.

    `names` are the names of the entries. `tables` are the files that hold the table. `classes` maps the name of a
    section class, such as `VllmTeacher`, to the entries that have this section. `own` maps the path of a module to the
    entries that the module owns. In this module, comparisons with the names of these entries do not count.
    """

    words: Words
    folders: tuple[str, ...] = ()
    names: set[str] = field(default_factory=set)
    tables: set[str] = field(default_factory=set)
    classes: dict[str, set[str]] = field(default_factory=dict)
    own: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def excuses(self, path: str, names: set[str]) -> bool:
        return path in self.tables or names <= self.own[path] | self._called_after(path)

    def _called_after(self, path: str) -> set[str]:
        """The entries after which a module or its folder is named: `vllm` for vllm.py, vllm_draws.py and vllm/x.py."""
        entries = set()
        for folder in self.folders:
            if PurePosixPath(path).is_relative_to(folder):
                first = PurePosixPath(path).relative_to(folder).parts[0].removesuffix(".py")
                entries |= {name for name in self.names if first == name or first.startswith(f"{name}_")}
        return entries


def comparisons(sources: Mapping[str, str], modules: Modules) -> list[Hit]:
    families = read_families(modules)
    hits = []
    for path, text in sources.items():
        lines = text.splitlines()
        template = path.endswith(".j2")
        places = template_places(text, modules) if template else module_places(modules[path], modules)
        for line, node, scope in places:
            for word, family in families.items():
                for names in compared(node, scope, family):
                    known = names & family.names
                    if known and not family.excuses(path, known):
                        hits.append(Hit(path, line, f"[{word}] {lines[line - 1].strip()}"))
    return sorted(hits)


# The tables' names


def read_families(modules: Modules) -> dict[str, Family]:
    families = {word: Family(words, FOLDERS[word], set(KNOWN[word].split())) for word, words in WORDS.items()}
    for path, module in modules.items():
        for word, table in TABLES.items():
            if table in module.names and path.startswith(HOMES[word]):
                families[word].tables.add(path)
                _read_table(families[word], module, module.names[table], modules)
        families["strategy"].names |= _literals(module.names.get("Strategy"))
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                _read_section(families, node)
    for word, family in families.items():
        if family.tables <= set(BEFORE[word]):
            family.tables |= {path for path in BEFORE[word] if path in modules}
        _read_groups(family, modules)
    return families


def _literals(node: ast.AST | None) -> set[str]:
    """The strings inside `Literal[...]`."""
    if isinstance(node, ast.Subscript) and last_name(node.value) == "Literal":
        return {str(leaf.value) for leaf in ast.walk(node.slice) if isinstance(leaf, ast.Constant)}
    return set()


def _read_table(family: Family, module: Module, table: ast.expr, modules: Modules) -> None:
    """Adds the keys of a table to `family.names`. If an entry names a function in a module, adds the entry to
    `family.own` under the path of the module. A module is left out if every entry of the table names a function in it.
    """
    entries: dict[str, set[str]] = {}
    for key, value in zip(table.keys, table.values, strict=True) if isinstance(table, ast.Dict) else ():
        if isinstance(key, ast.Constant):
            entries[str(key.value)] = {file_of(name.partition(":")[0], modules) for name in _references(value)} - {""}
    family.names |= set(entries)
    shared = set.intersection(*entries.values()) if len(entries) > 1 else set()
    for name, paths in entries.items():
        for path in paths - shared:
            family.own[path].add(name)


def _references(value: ast.expr) -> set[str]:
    """The strings in an entry that name a function as "module:function"."""
    strings = {leaf.value for leaf in ast.walk(value) if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)}
    return {text for text in strings if text.count(":") == 1 and text.replace(".", "").replace(":", "").isidentifier()}


def _read_section(families: dict[str, Family], node: ast.ClassDef) -> None:
    """If a section class has a field `engine` or `kind`, adds the names in the field's `Literal` to the family of the
    table.
    """
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            names, word = _literals(line.annotation), line.target.id
            if names and (word == "engine" or (word == "kind" and node.name.endswith("Student"))):
                families[word].names |= names
                families[word].classes[node.name] = names


def _read_groups(family: Family, modules: Modules) -> None:
    """Adds base classes and unions, which cover several sections, to `classes`.

    Leaves out base classes and unions that cover all sections of the table.
    """
    for _ in range(3):
        for module in modules.values():
            for node in module.tree.body:
                if isinstance(node, ast.ClassDef) and node.name in family.classes:
                    for base in map(last_name, node.bases):
                        family.classes[base] = family.classes.get(base, set()) | family.classes[node.name]
            for name, value in module.names.items():
                if isinstance(value, ast.BinOp):
                    leaves = {leaf.id for leaf in ast.walk(value) if isinstance(leaf, ast.Name)}
                    for leaf in leaves & set(family.classes):
                        family.classes[name] = family.classes.get(name, set()) | family.classes[leaf]
    family.classes = {name: names for name, names in family.classes.items() if names and names < family.names}


# Finds the strings to which an expression can evaluate, and tests whether names in the expression belong to a table


class Scope:
    """The values assigned to names in one function, in one template, or at the top of a module."""

    def __init__(self, assignments: Iterable[tuple[ast.expr, ast.expr]], module: Module, modules: Modules) -> None:
        self.module, self.modules = module, modules
        self.held: dict[str, list[ast.expr]] = defaultdict(list)
        for target, value in assignments:
            self._hold(target, value)

    def _hold(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.held[target.id].append(value)
        elif isinstance(target, ast.Tuple):
            parts = value.elts if isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts) else None
            for place, part in enumerate(target.elts):
                self._hold(part, parts[place] if parts else value)

    def strings(self, node: ast.expr | None, depth: int = 3) -> set[str]:
        """The strings in a literal or a collection. A name is replaced by the value assigned to it."""
        if isinstance(node, ast.Constant):
            return {node.value} if isinstance(node.value, str) else set()
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            return set().union(*(self.strings(part, depth) for part in node.elts))
        if isinstance(node, ast.Dict):
            return set().union(*(self.strings(key, depth) for key in node.keys))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.Add):
            return self.strings(node.left, depth) | self.strings(node.right, depth)
        if isinstance(node, ast.Call) and last_name(node.func) in ("frozenset", "set", "tuple", "list", "fromkeys"):
            return self.strings(node.args[0], depth) if node.args else set()
        if not isinstance(node, ast.Name) or node.id in TABLES.values() or not depth:
            return set()
        if node.id in self.held:
            return set().union(*(self.strings(value, depth - 1) for value in self.held[node.id]))
        there = definition(node.id, self.module, self.modules)
        return Scope((), there[0], self.modules).strings(there[1], depth - 1) if there else set()

    def about(self, node: ast.expr | None, words: Words, depth: int = 3) -> bool:
        """Whether the value of `node` comes from a variable, attribute, key or function whose name contains one of
        `words`.
        """
        if isinstance(node, ast.Name):
            held = self.held[node.id] if depth and node.id in self.held else []
            return _has(node.id, words) or any(self.about(value, words, depth - 1) for value in held)
        if isinstance(node, ast.Attribute):
            same = node.attr in ("name", "value", "id", "key", "type")
            return _has(node.attr, words) or (same and self.about(node.value, words, depth))
        if isinstance(node, ast.Subscript):
            key = self.strings(node.slice) if isinstance(node.slice, ast.Constant) else set()
            return any(_has(name, words) for name in key) if key else self.about(node.value, words, depth)
        if isinstance(node, ast.Call):
            return self._call_is_about(node, words, depth)
        if isinstance(node, ast.BoolOp):
            return any(self.about(part, words, depth) for part in node.values)
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            return any(self.about(part, words, depth) for part in node.elts)
        return isinstance(node, ast.IfExp) and any(self.about(part, words, depth) for part in (node.body, node.orelse))

    def _call_is_about(self, node: ast.Call, words: Words, depth: int) -> bool:
        name = last_name(node.func)
        if name in ("get", "getattr", "pop"):
            keys = [key for part in node.args[: 1 + (name == "getattr")] for key in self.strings(part)]
            return any(_has(key, words) for key in keys)
        if isinstance(node.func, ast.Attribute) and name in ("lower", "strip", "items", "keys"):
            return self.about(node.func.value, words, depth)
        return _has(name, words) or any(self.about(part, words, depth) for part in node.args)


def _has(name: str, words: Words) -> bool:
    return any(word in name.lower() for word in words)


# Comparisons


def compared(node: ast.AST, scope: Scope, family: Family) -> Iterator[set[str]]:
    """For each comparison in a node: if the name on one side contains one of the table's `words`, yields the strings on
    the other side.
    """
    words = family.words
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        for one, other in itertools.pairwise(sides):
            for value, tested in ((one, other), (other, one)):
                if scope.about(tested, words):
                    yield scope.strings(value)
                if isinstance(tested, ast.Call) and last_name(tested.func) == "type":
                    yield _sections(value, family)
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        yield from _looked_up(node.value, node.slice, scope, words)
    elif isinstance(node, ast.Call) and node.args:
        if last_name(node.func) in ("isinstance", "issubclass") and len(node.args) == 2:
            yield _sections(node.args[1], family)
        if last_name(node.func) == "get" and isinstance(node.func, ast.Attribute):
            yield from _looked_up(node.func.value, node.args[0], scope, words)
    elif isinstance(node, ast.Match):
        for pattern in (leaf for case in node.cases for leaf in ast.walk(case.pattern)):
            if isinstance(pattern, ast.MatchValue) and scope.about(node.subject, words):
                yield scope.strings(pattern.value)
            elif isinstance(pattern, ast.MatchClass):
                yield _sections(pattern.cls, family)


def _looked_up(table: ast.expr, key: ast.expr, scope: Scope, words: Words) -> Iterator[set[str]]:
    if isinstance(key, ast.Constant) and scope.about(table, words):
        yield scope.strings(key)
    if scope.about(key, words):
        yield scope.strings(table) if isinstance(table, ast.Dict | ast.Name) else set()


def _sections(node: ast.expr, family: Family) -> set[str]:
    leaves = [last_name(leaf) for leaf in ast.walk(node)]
    return set().union(*(family.classes.get(leaf, set()) for leaf in leaves))


Place = tuple[int, ast.AST, Scope]


def module_places(module: Module, modules: Modules) -> Iterator[Place]:
    """Yields (line, node, scope) for each node of a module. A nested function has the scope of the outer function."""
    outside: list[ast.AST] = []
    waiting: list[ast.AST] = [module.tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, FUNCTIONS):
            leaves = [*ast.walk(node)]
            scope = Scope(_assignments(leaves), module, modules)
            yield from ((getattr(leaf, "lineno", 1), leaf, scope) for leaf in leaves)
        else:
            outside.append(node)
            waiting += ast.iter_child_nodes(node)
    scope = Scope(_assignments(outside), module, modules)
    yield from ((getattr(leaf, "lineno", 1), leaf, scope) for leaf in outside)


def _assignments(leaves: Iterable[ast.AST]) -> Iterator[tuple[ast.expr, ast.expr]]:
    for leaf in leaves:
        if isinstance(leaf, ast.Assign):
            yield from ((target, leaf.value) for target in leaf.targets)
        elif isinstance(leaf, ast.AnnAssign | ast.NamedExpr) and leaf.value:
            yield leaf.target, leaf.value
        elif isinstance(leaf, ast.For | ast.comprehension):
            yield leaf.target, leaf.iter


# Templates: Jinja expressions are translated to Python expressions, so that the same rules apply


def template_places(text: str, modules: Modules) -> Iterator[Place]:
    tree = jinja2.Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"]).parse(text)
    held = [(_python(node.target), _python(node.node)) for node in tree.find_all(nodes.Assign)]
    held += [(_python(node.target), _python(node.iter)) for node in tree.find_all(nodes.For)]
    scope = Scope(held, Module("", ast.Module([], [])), modules)
    for node in tree.find_all((nodes.Compare, nodes.Test, nodes.Filter, nodes.Getitem, nodes.Call)):
        yield node.lineno, _python(node), scope


def _python(node: nodes.Node) -> ast.expr:
    """Translates a Jinja expression to Python. An expression that has no translation here becomes a Python list of its
    translated parts.
    """
    load = ast.Load()
    if isinstance(node, nodes.Name):
        return ast.Name(node.name, load)
    if isinstance(node, nodes.Const):
        return ast.Constant(node.value)
    if isinstance(node, nodes.Getattr):
        return ast.Attribute(_python(node.node), node.attr, load)
    if isinstance(node, nodes.Getitem):
        return ast.Subscript(_python(node.node), _python(node.arg), load)
    if isinstance(node, nodes.Compare):
        return ast.Compare(_python(node.expr), [ast.Eq()] * len(node.ops), [_python(op.expr) for op in node.ops])
    if isinstance(node, nodes.Test) and node.args:
        return ast.Compare(_python(node.node), [ast.Eq()], [_python(part) for part in node.args])
    if (
        isinstance(node, nodes.Filter)
        and node.node
        and node.name in ("selectattr", "rejectattr")
        and len(node.args) > 2
    ):
        attribute = ast.Subscript(_python(node.node), _python(node.args[0]), load)
        return ast.Compare(attribute, [ast.Eq()], [_python(node.args[2])])
    if isinstance(node, nodes.Call):
        return ast.Call(_python(node.node), [_python(part) for part in node.args], [])
    if isinstance(node, nodes.Dict):
        return ast.Dict([_python(pair.key) for pair in node.items], [_python(pair.value) for pair in node.items])
    if isinstance(node, nodes.Tuple):
        return ast.Tuple([_python(part) for part in node.items], load)
    return ast.List([_python(part) for part in node.iter_child_nodes()], load)
