"""Sweeps over the whole corpus: exact duplicates."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from synthgen.records import Record, Verdict


def duplicates(records: Iterable[Record]) -> dict[str, Verdict]:
    """Verdicts by id for every later copy (same prompt, same completion; case and whitespace aside).

    The first in corpus order stays. Memory: 16 bytes and an id for each distinct row.
    """
    first: dict[bytes, str] = {}
    found: dict[str, Verdict] = {}
    for r in records:
        prompt = "\0".join(m["content"] or "" for m in r.prompt)
        key = hashlib.blake2b(f"{_plain(prompt)}\1{_plain(r.text)}".encode(), digest_size=16).digest()
        original = first.setdefault(key, r.id)
        if original != r.id:
            found[r.id] = Verdict(False, "duplicates", f"same as {original}")
    return found


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
