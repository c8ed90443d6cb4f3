"""Measuring without a process of its own, for tests in which speed and memory do not matter.

A child process takes seconds to import torch. tests/reporting and tests/exporting measure in children, as users do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from distill import cost
from synthgen.tables.reference import resolve


def measure_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have evaluations and exports call the measuring function in this process."""
    for module in ("fidelity", "classifiers", "similarity"):
        monkeypatch.setattr(f"distill.evaluation.{module}.measure", _measure)
    monkeypatch.setattr("distill.exporting.parity.measure", _measure)


def _measure(function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    found = resolve(function)(json.loads(json.dumps(arguments)))
    return json.loads(json.dumps({**found, "peak_rss_bytes": cost.peak_rss()}))
