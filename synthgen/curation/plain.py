"""Computes the text of messages, and its plain form, which is lower case with words separated by single spaces.

The result equals Python's `" ".join(text.lower().split())`. Arrow normalizes all texts of a batch in one call. Only the
texts for which Arrow's result may differ are normalized in Python. These texts contain letters that are new in Unicode,
a capital sigma (its lower case depends on its position), or a capital I with a dot (its lower case is two characters).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import as_lists, lengths, numbers

# All characters that str.split treats as white space, except the space itself.
_SPACE = r"\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
_RUNS = f"[{_SPACE}][{_SPACE} ]*| [{_SPACE} ]+"  # matches any sequence of white space except a single space
_SAID = ("content", "name", "tool_calls", "reasoning_content")  # the random ids of tool calls are left out
_INVISIBLE = r"[\x{ad}\x{200b}-\x{200d}\x{2060}\x{feff}]"  # characters without width, which join or separate letters
# Matches a character that `canonical` may have to change. The expression leaves out characters that are written in one
# way only and change no letter before them: characters below U+0300 except for U+00AD, Cyrillic letters, dashes,
# quotes, common signs, Kana, Chinese characters and Hangul.
_NOT_CANONICAL = (
    r"[^\x00-\x{ac}\x{ae}-\x{2ff}\x{400}-\x{482}\x{48a}-\x{52f}\x{2010}-\x{2027}\x{20ac}\x{2190}-\x{2193}\x{2212}\x{2248}"
    r"\x{2260}\x{2264}\x{2265}\x{2500}-\x{257f}\x{2713}-\x{2717}\x{3001}-\x{3029}\x{3041}-\x{3096}\x{30a1}-\x{30fe}"
    r"\x{4e00}-\x{9fff}\x{ac00}-\x{d7a3}\x{ff01}-\x{ff5e}]"
)
_FOR_PYTHON = r"[\x{130}\x{3a3}\x{1c80}-\x{1cff}\x{a640}-\x{a7ff}\x{ab30}-\x{abbf}\x{10000}-\x{1efff}]"


def contents(messages: pa.Array, separator: str) -> pa.Array:
    """For each conversation: join the contents of its messages. A message without content counts as empty."""
    texts = pc.fill_null(pc.struct_field(messages.flatten(), "content"), "")
    return pc.binary_join(as_lists(lengths(messages), texts, pa.list_(pa.string())), separator)


def whole(messages: pa.Array) -> pa.Array:
    """Like `said`, but with the role of each message."""
    return _joined(messages, ("role", *_SAID))


def said(messages: pa.Array) -> pa.Array:
    """For each conversation: the whole text of its messages, with tool calls and reasoning, but without roles. Words
    are separated by single spaces, and each character is written as `canonical` writes it.
    """
    return _joined(messages, _SAID)


def _joined(messages: pa.Array, names: Sequence[str]) -> pa.Array:
    flat = messages.flatten()
    columns = [pc.struct_field(flat, name) for name in names]
    # Most messages have only a role and a content. To save time, columns in which every value is null are skipped.
    filled = [number == 0 or each.null_count < len(each) for number, each in enumerate(columns)]
    fields = [
        _spaced(canonical(pc.fill_null(each, ""))) if some else "" for each, some in zip(columns, filled, strict=True)
    ]
    texts = pc.binary_join_element_wise(*fields, "\1")
    return pc.binary_join(as_lists(lengths(messages), texts, pa.list_(pa.string())), "\2")


def completion_text(completion: pa.Array, prompt: pa.Array) -> pa.Array:
    """The completion of each row as text. For a row without a completion (strategy `embed`), the text is the last
    message of the prompt.
    """
    texts = contents(completion, "\n")
    without = lengths(completion) == 0
    if not without.any():
        return texts
    last = pa.array([(messages or [{}])[-1].get("content") or "" for messages in prompt.to_pylist()], pa.string())
    return pc.if_else(pa.array(without), last, texts)


def plain(texts: pa.Array) -> pa.Array:
    """Convert each text to lower case with words separated by single spaces. Null stays null."""
    slow = numbers(pc.invert(pc.fill_null(pc.string_is_ascii(texts), True))).astype(bool)
    if slow.any():
        slow[slow] = numbers(pc.match_substring_regex(pc.filter(texts, pa.array(slow)), pattern=_FOR_PYTHON))
    if not slow.any():
        return _plain(texts)
    fast = _plain(pc.filter(texts, pa.array(~slow)))
    others = [" ".join(text.lower().split()) for text in pc.filter(texts, pa.array(slow)).to_pylist()]
    order = np.argsort(slow, kind="stable")  # the row of each text: first the texts in `fast`, then those in `others`
    return pa.concat_arrays([fast, pa.array(others, texts.type)]).take(pa.array(np.argsort(order)))


def canonical(texts: pa.Array) -> pa.Array:
    """Write each character of a text in one way: Unicode's form NFC, without characters that have no width. Texts that
    look the same are then mostly equal.
    """
    if not numbers(pc.invert(pc.fill_null(pc.string_is_ascii(texts), True))).any():
        return texts
    odd = pc.fill_null(pc.match_substring_regex(texts, pattern=_NOT_CANONICAL), False)
    written = pc.utf8_normalize(pc.filter(texts, odd), "NFC")
    return pc.replace_with_mask(texts, odd, pc.replace_substring_regex(written, pattern=_INVISIBLE, replacement=""))


def _plain(texts: pa.Array) -> pa.Array:
    return _spaced(pc.utf8_lower(texts))


def _spaced(texts: pa.Array) -> pa.Array:
    """The texts with words separated by single spaces."""
    return pc.ascii_trim(pc.replace_substring_regex(texts, pattern=_RUNS, replacement=" "), characters=" ")
