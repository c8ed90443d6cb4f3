"""Answers that are held to a form: why one does not have it."""

from __future__ import annotations

import json
import re
from typing import Any


def mismatch(text: str, schema: dict[str, Any]) -> str:
    """Why a text is not an answer of the schema, or ''. Type and required keys at the top; the server does the rest."""
    try:
        value = json.loads(text)
    except ValueError:
        return "the answer is not JSON"
    kinds = {"object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool}
    wanted = kinds.get(str(schema.get("type")))
    if wanted is not None and not isinstance(value, wanted):  # type: ignore[arg-type]
        return f"the answer is not of type {schema['type']}"
    missing = [key for key in schema.get("required", ()) if isinstance(value, dict) and key not in value]
    return f"the answer lacks {', '.join(missing)}" if missing else ""


def unmatched(text: str, regex: str) -> str:
    """Why a text is not an answer of the pattern, or ''. One that was cut short may not be."""
    return "" if re.fullmatch(regex, text) else "the answer does not match generate.regex"
