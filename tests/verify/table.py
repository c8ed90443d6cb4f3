"""The cases of verification. Each line of cases.jsonl has a reference, answers that match it, and answers that do not.

Every kind has answers that match and answers that do not, so a verifier that always gives the same verdict fails in
every kind. The kind "expressions" needs math-verify; the cheap rules decide all kinds except this one.
"""

from __future__ import annotations

import json
from pathlib import Path

Entry = tuple[object, list[object], list[object]]

MATHEMATICS = "expressions"


def load() -> dict[str, list[Entry]]:
    """Maps each kind to its entries (reference, answers that match, answers that do not)."""
    kinds: dict[str, list[Entry]] = {}
    for line in (Path(__file__).parent / "cases.jsonl").read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        kinds.setdefault(case["kind"], []).append((case["reference"], case["right"], case["wrong"]))
    return kinds


KINDS = load()
CHEAP = [kind for kind in KINDS if kind != MATHEMATICS]
