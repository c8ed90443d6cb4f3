"""Evaluations and exports that measure in this process, for tests in which speed and memory do not matter.

A child process takes seconds to import torch. Measuring in children, as users do, is tested by
tests/evaluation/test_cost.py, tests/commands/test_kill.py, and all tests that read the evaluation of the fixture
`finished`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from distill.cost import peak_rss
from synthgen.tables.reference import resolve

if TYPE_CHECKING:
    import pytest

_EVALUATIONS = tuple(f"distill.evaluation.{name}.measure" for name in ("answers", "classifiers", "similarity"))
_EXPORTS = ("distill.exporting.parity.measure",)


def measure(function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Measures in this process as `distill.cost.measure` does in a child; arguments and result are also converted to
    JSON and back.
    """
    measured = resolve(function)(json.loads(json.dumps(arguments)))
    return {**json.loads(json.dumps(measured)), "peak_rss_bytes": peak_rss()}


def measure_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations and exports start no processes for the rest of a test."""
    for place in (*_EVALUATIONS, *_EXPORTS):
        monkeypatch.setattr(place, measure)


@contextmanager
def measured_here() -> Iterator[None]:
    """Within this context, evaluations start no processes."""
    with ExitStack() as stack:
        for place in _EVALUATIONS:
            stack.enter_context(patch(place, measure))
        yield
