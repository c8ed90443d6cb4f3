"""Writes the Markdown text that says how to run exported files."""

from __future__ import annotations

from collections.abc import Mapping

from synthgen.cards import environment
from synthgen.results.export import ExportedFile

_QUESTION = "What is 2 plus 3?"


def usage(template: str, files: Mapping[str, ExportedFile]) -> str:
    """Render a template of `synthgen/templates/usage`. The template's variable `file` is the last entry of `files`,
    because the last file is the smallest.
    """
    file = list(files.values())[-1].file
    return environment().get_template(f"usage/{template}").render(file=file, question=_QUESTION).strip()
