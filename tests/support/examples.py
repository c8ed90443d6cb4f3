"""The Python examples of docs/extending.md, run as they are printed.

with added("A check", "An engine"):     # the tables have these entries until the end of the block
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

from support.places import REPOSITORY
from synthgen.tables import curation, engines, formats, strategies, students

PAGE = REPOSITORY / "docs" / "extending.md"
TABLES = {
    **{"CHECKS": curation.CHECKS, "STRATEGIES": strategies.STRATEGIES, "ENGINES": engines.ENGINES},
    **{"KINDS": students.KINDS, "DATASET_FORMATS": formats.DATASET_FORMATS, "MODEL_FORMATS": formats.MODEL_FORMATS},
    **{"ROW_FORMATS": formats.ROW_FORMATS, "DESCRIPTIONS": formats.DESCRIPTIONS},
}


def example(heading: str) -> str:
    """The Python code in one section of the page."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (code,) = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return str(code)


EXAMPLES = (
    *("A check", "A strategy", "An engine", "A kind of student"),
    *("A dataset format", "An export format", "A description", "A model format"),
)


@contextmanager
def added(*headings: str) -> Iterator[None]:
    """Runs the examples of these sections. At the end of the `with` block, the tables get their former entries back."""
    before = {name: dict(table) for name, table in TABLES.items()}
    names = [f"example_{len(sys.modules) + n}" for n in range(len(headings))]
    try:
        for name, heading in zip(names, headings, strict=True):
            sys.modules[name] = module = types.ModuleType(name)
            exec(compile(example(heading), f"{PAGE} ({heading})", "exec"), module.__dict__)
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
        for name, table in TABLES.items():
            table.clear()
            table.update(before[name])
