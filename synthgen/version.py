"""Says which code a process runs, and with which packages. The processes of a command may run on several machines, but
all run the same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from synthgen import durable

_PACKAGES = (
    "eldc", "jinja2", "jsonschema", "latex2sympy2-extended", "llguidance", "math-verify", "numba", "numpy",
    "pandas", "pyarrow", "sympy", "tokenizers", "torch", "transformers",
)  # fmt: skip
_REPLACED = "math-verify"  # without this package, answers are compared otherwise, and no error says so


@cache
def code() -> str:
    """A hash of the source code of the packages synthgen and distill. It differs more often than the version."""
    folder = Path(__file__).parent.parent
    paths = [path for name in ("synthgen", "distill") for path in sorted((folder / name).rglob("*.py"))]
    return durable.digest([[str(path.relative_to(folder)), durable.sha256(path)] for path in paths])


@cache
def packages() -> dict[str, str]:
    """The versions of the installed packages that may decide what a row says. Builds of a version, such as "+cpu", are
    not told apart.
    """
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return found


def differing(theirs: Mapping[str, str]) -> str:
    """The first package that this process has in another version than another process, such as "numpy 2.1, not 2.0"; ""
    if there is none. A package that only one of them has is no difference, because a process that needs the package
    ends with an error.
    """
    ours = packages()
    for name in sorted(ours.keys() | theirs.keys()):
        here, there = ours.get(name), theirs.get(name)
        if here != there and (name == _REPLACED or (here and there)):
            return f"{name} {here or 'none'}, not {there or 'none'}"
    return ""
