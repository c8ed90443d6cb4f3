"""Says which code a process runs. The processes of a command may run on several machines, but all run the same code."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from synthgen import durable


@cache
def code() -> str:
    """A hash of the source code of the packages synthgen and distill. It differs more often than the version."""
    folder = Path(__file__).parent.parent
    paths = [path for name in ("synthgen", "distill") for path in sorted((folder / name).rglob("*.py"))]
    return durable.digest([[str(path.relative_to(folder)), durable.sha256(path)] for path in paths])
