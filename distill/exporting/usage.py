"""Markdown that tells how exported files are run."""

from __future__ import annotations

from collections.abc import Mapping

from synthgen.cards import environment
from synthgen.results.export import ExportedFile

_QUESTION = "What is 2 plus 3?"


def usage(template: str, files: Mapping[str, ExportedFile]) -> str:
    """The text of a template in `synthgen/templates/usage`. `file` in it is the last file: the smallest one."""
    file = list(files.values())[-1].file
    return environment().get_template(f"usage/{template}").render(file=file, question=_QUESTION).strip()
