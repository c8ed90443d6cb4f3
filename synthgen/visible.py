"""Makes text that others wrote safe to show: on a terminal, in a card, in a table of Markdown.

Rows, licenses and errors of servers may hold control characters. ESC and similar characters give commands to a
terminal, direction marks make text look like other text, and a line break or `|` ends the cell of a table. Files of
data keep every character. These functions are only for text that people read.
"""

from __future__ import annotations

import re

# C0 and C1 controls except tab and line feed; marks of direction; separators that act like line breaks; invisible
# characters; surrogates, which cannot be written as UTF-8
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
_BREAK = re.compile(r"\s*[\r\n]\s*")


def visible(text: str) -> str:
    """The text with each hidden character replaced by its escape, such as \\x1b. Tabs and line feeds stay."""
    return _HIDDEN.sub(_escaped, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The text that `visible` returns, with each line break replaced by a space."""
    return visible(_BREAK.sub(" ", text)).replace("\t", " ")


def cell(text: str) -> str:
    """The text as one cell of a Markdown table."""
    return one_line(text).replace("\\|", "|").replace("|", "\\|")


def finalize(value: object) -> object:
    """For `jinja2.Environment(finalize=…)`: applies `visible` to text. Safe markup and values that are not text are not
    changed.
    """
    return visible(value) if type(value) is str else value


def json_ascii(text: str) -> str:
    """The JSON text with each hidden character replaced by its JSON escape. The text keeps its meaning."""
    return _HIDDEN.sub(lambda match: "".join(f"\\u{unit:04x}" for unit in _units(match.group())), text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def _units(letter: str) -> list[int]:
    """The UTF-16 code units of a character."""
    data = letter.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[place : place + 2]) for place in range(0, len(data), 2)]
