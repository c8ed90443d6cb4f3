"""`train` and `curve` for tests that are not about the audit: they override it, as `--override-audit` does.

tests/auditing/test_gate.py tests the gate itself.
"""

from __future__ import annotations

from typing import Any

import distill


def train(*args: Any, **options: Any) -> Any:
    """`distill.train` without an audit."""
    return distill.train(*args, override_audit=True, **options)


def curve(*args: Any, **options: Any) -> Any:
    """`distill.curve` without an audit."""
    return distill.curve(*args, override_audit=True, **options)
