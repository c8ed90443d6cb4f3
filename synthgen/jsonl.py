"""Reads one line of JSONL. Where other readers guess, this reader raises an error, because a guess could change the
user's data.
"""

from __future__ import annotations

import json
import math
import re

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SPACE = " \t\n\r"
_DEEPEST = 100  # maximum depth of nested lists and objects; json and marshal fail at 1,000 to 2,000
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # matches the escape of one half of a surrogate pair


def read_object(line: bytes) -> dict[str, object]:
    """The JSON object in a line.

    Raises ValueError, which says what is wrong in one line, when the line is not UTF-8 or not a JSON object. Also
    raises ValueError for a key that occurs twice, half of a surrogate pair, a number that a float cannot hold, and
    lists and objects nested more than 100 levels deep.
    """
    try:
        text = (line if line[:1] != b"\xef" else line.removeprefix(_BOM)).decode().strip(_SPACE)
        row, end = _decode(text)
    except UnicodeDecodeError as error:
        raise ValueError(not_utf8(line, error)) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg.removesuffix(' at')} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if end != len(text):
        raise ValueError(f"more text after the JSON value, at character {end + 1}")
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    for value in row.values():
        if type(value) is dict or type(value) is list:
            if line.count(b"{") + line.count(b"[") > _DEEPEST and _depth(row) > _DEEPEST:
                raise ValueError(_TOO_DEEP)
            break
    if b"\\" in line and _HALF.search(line) and not _is_text(row):
        raise ValueError("half of a surrogate pair is not text")
    return row


def not_utf8(line: bytes, error: UnicodeDecodeError) -> str:
    """The message about a line that is not UTF-8."""
    if line.startswith(_UTF16):
        return "UTF-16 text; save the file as UTF-8"
    return f"byte {error.start + 1} of the line is not UTF-8 text; save the file as UTF-8"


_TOO_DEEP = f"more than {_DEEPEST} lists and objects inside each other"


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)}' occurs twice")
    return row


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value) or (not value and re.match(r"-?[0.]*[1-9]", text)):
        raise ValueError(f"the number {text[:30]} is too large or too small")
    return value


_decode = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float).raw_decode


def _is_text(value: object) -> bool:
    """Whether every string in a JSON value can be encoded as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _depth(value: object) -> int:
    """The maximum depth of nested lists and objects."""
    level, depth = [value], 0
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        level = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]
    return depth
