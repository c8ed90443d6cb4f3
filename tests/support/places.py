"""The folders of the project, for tests that read the project's own files."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
SHARED = REPOSITORY.parent / "shared" / "data"
