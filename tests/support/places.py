"""Where the project lies, for tests that read its own files."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
SHARED = REPOSITORY.parent / "shared" / "data"
