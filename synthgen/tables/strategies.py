"""STRATEGIES: ways to make rows from a seed. An entry owns every fact of a strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from synthgen.tables.reference import Reference


@dataclass(frozen=True)
class Strategy:
    """One way to make rows. `run` is a generator over rounds of requests: see `synthgen.generation.rounds`."""

    run: Reference
    answered_by: Literal["one", "every"] = "one"
    """Whose completions become rows: one teacher's a seed, or those of every teacher of the recipe."""


STRATEGIES: dict[str, Strategy] = {}
