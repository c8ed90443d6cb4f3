"""Selects the texts of a batch that may hold a value, by the hints in `patterns`.

Hyperscan searches all hints at once, if the package `hyperscan` is installed. Otherwise RE2, which is part of pyarrow,
does. Both select the same texts.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import numbers
from synthgen.curation.privacy.patterns import HINTS

Bits = npt.NDArray[np.uint8]
NAMES = tuple(HINTS)
"""The hints by their bit: bit i of a text's number is set if hint i matches the text."""


def hint_bits(texts: pa.Array, *, hyperscan: bool | None = None) -> Bits:
    """For each text, a number whose bits say which hints match it. A null text has no bits. `hyperscan` chooses the
    engine; the default is Hyperscan if it is installed.
    """
    if hyperscan is None:
        hyperscan = has_hyperscan()
    return _by_hyperscan(texts) if hyperscan else _by_re2(texts)


@cache
def has_hyperscan() -> bool:
    """Whether the package `hyperscan` is installed."""
    return importlib.util.find_spec("hyperscan") is not None


def _by_re2(texts: pa.Array) -> Bits:
    """All texts are searched for any hint, and then each hint in the few texts that have one."""
    bits = np.zeros(len(texts), np.uint8)
    every = "|".join(f"(?:{hint})" for hint in HINTS.values())
    rows = np.flatnonzero(numbers(pc.fill_null(pc.match_substring_regex(texts, pattern=every), False)))
    if not len(rows):
        return bits
    few = texts.take(pa.array(rows))
    for bit, hint in enumerate(HINTS.values()):
        bits[rows] |= numbers(pc.match_substring_regex(few, pattern=hint)).astype(np.uint8) << bit
    return bits


def _by_hyperscan(texts: pa.Array) -> Bits:
    """The buffer with all texts is searched once. A match belongs to the text in which it ends. A match that goes from
    one text into the next is no harm, because `find` searches again.
    """
    bits = np.zeros(len(texts), np.uint8)
    texts = texts.cast(pa.large_string())
    _, ends, data = texts.buffers()
    if data is None or not len(texts):
        return bits
    offsets = np.frombuffer(ends, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    matches: list[int] = []
    add = matches.append

    def on_match(hint: int, start: int, stop: int, flags: int, context: object) -> None:
        add(stop << 3 | hint)

    _database().scan(memoryview(data)[offsets[0] : offsets[-1]], match_event_handler=on_match)
    found = np.array(matches, np.int64)
    rows = np.searchsorted(offsets - offsets[0], found >> 3, side="left") - 1
    np.bitwise_or.at(bits, rows, np.left_shift(1, found & 7).astype(np.uint8))
    return bits


@cache
def _database() -> Any:
    """All hints, compiled by Hyperscan. It is kept for the life of the process."""
    import hyperscan

    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    expressions = [hint.encode() for hint in HINTS.values()]
    database.compile(expressions=expressions, ids=list(range(len(expressions))), flags=[0] * len(expressions))
    return database
