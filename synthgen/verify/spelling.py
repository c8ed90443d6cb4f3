"""Converts the different spellings of a character in Unicode and LaTeX to one plain form. Every function here takes
linear time.
"""

from __future__ import annotations

import re
import unicodedata

from synthgen.verify.short import remembered

# Characters whose compatibility form (NFKC) would change a value: NFKC turns "1½" into "11⁄2" and "10³" into "103".
_VULGAR = "½1/2 ⅓1/3 ⅔2/3 ¼1/4 ¾3/4 ⅕1/5 ⅖2/5 ⅗3/5 ⅘4/5 ⅙1/6 ⅚5/6 ⅐1/7 ⅛1/8 ⅜3/8 ⅝5/8 ⅞7/8 ⅑1/9 ⅒1/10"
_SAME = {
    "-": "−‐‑﹣－",
    "'": "’‘ʼ‛",
    '"': "“”„‟«»",
    "*": "×·⋅∗✕∙",
    "/": "÷∕⁄",
    "<=": "≤⩽≦",
    ">=": "≥⩾≧",
    "!=": "≠",
    "->": "→⟶",
    "=>": "⇒⟹",
    "°": "º",
    ". ": "。｡",
    ", ": "、",
    ".": "٫",
    ",": "٬",
    "": "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff\u00ad",
}
_CHARACTERS = str.maketrans(
    {char: plain for plain, chars in _SAME.items() for char in chars}
    | {part[0]: f" {part[1:]}" for part in _VULGAR.split()}
)
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
_RANGE = re.compile(r"(?<=\d)[ \t]*+[–—][ \t]*+(?=[\d$€£])")

_DOLLARS = re.compile(r"\$\$?(?=\S)([^$]*+)(?<=\S)\$\$?(?!\d)")
_FRACTION = re.compile(r"\\[dtc]?frac\s*\{([^{}]*+)\}\s*\{([^{}]*+)\}")
_SHORT_FRACTION = re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)")
_BRACED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*+)\}")
_WIDTH = re.compile(r"\\(?:left|right|displaystyle|quad|qquad|big|Big|limits)(?![A-Za-z])|(?<!\\)\\[,;:! ]|~")
_BOLD = re.compile(r"(?<![\d)])\*\*|\*\*(?![\d(])")
_EMPHASIS = re.compile(r"([*_]{1,3})(?=[^\s*_])(.*[^\s*_])\1", re.DOTALL)
_ABBREVIATED = re.compile(r"(?<![\w.])(?:[^\W\d_]\.)+[^\W\d_](?:\.|(?![\w.]))")
_SPAN = re.compile(r"([$€£]?\d[\d.,]*)-([$€£]?\d[\d.,]*%?)")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z])")
_POWER = re.compile(r"\^\s*\{\s*([-+]?\d+)\s*\}")
_GROUPED = re.compile(r"\{,\}")
_COMMANDS = {
    r"\\(?:times|cdot|ast)": "*",
    r"\\div": "/",
    r"\\pm": "±",
    r"\\(?:leq|le)": "<=",
    r"\\(?:geq|ge)": ">=",
    r"\\(?:neq|ne)": "!=",
    r"\\lt": "<",
    r"\\gt": ">",
    r"\\(?:approx|sim)": "≈",
    r"\\pi": "π",
    r"\\infty": "∞",
    r"\\cup": "∪",
    r"\\cap": "∩",
    r"\\in": "∈",
    r"\\(?:rightarrow|to)": "->",
    r"\\(?:Rightarrow|implies|therefore)": "=>",
    r"\\(?:ldots|dots|cdots)": "...",
}
_COMMAND = [(re.compile(f"{pattern}(?![A-Za-z])"), plain) for pattern, plain in _COMMANDS.items()]
_ESCAPED = re.compile(r"\\([%$&#_{}])")
_DELIMITER = re.compile(r"\\[()\[\]]")
_DEPTH = 6  # fractions inside fractions


def clean(text: str) -> str:
    """The text with one character for each sign: minus signs, quotation marks, digits of all scripts, fractions and
    raised digits in their ASCII form. Accents are kept.
    """
    if text.isascii():
        return text
    text = text.translate(_CHARACTERS)
    text = _SUPERSCRIPT.sub(lambda raised: "^" + raised.group().translate(_RAISED), text)
    text = _RANGE.sub(" to ", text).replace("–", "-").replace("—", " -- ")
    text = unicodedata.normalize("NFKC", text)
    if _OTHER_DIGIT.search(text):
        text = "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)
    return text


@remembered
def undress(text: str) -> str:
    """The text without LaTeX delimiters, spacing and text commands, and without marks of emphasis. Simple commands
    become signs, and fractions become `a/b`. Other commands stay.
    """
    if "*" in text or "`" in text:
        text = _BOLD.sub("", text).replace("`", "")
    text = " ".join(text.split())  # with single spaces, the patterns here and in other modules take linear time
    if "." in text:
        text = _ABBREVIATED.sub(lambda letters: letters.group().replace(".", ""), text)
    if text[:1] in ("*", "_") and (emphasis := _EMPHASIS.fullmatch(text)):
        text = emphasis[2]
    if "-" in text and (span := _SPAN.fullmatch(text)):
        text = f"{span[1]} to {span[2]}"
    if "$" in text:
        text = _DOLLARS.sub(r"\1", text)
    if "\\" not in text and "{" not in text:
        return text
    text = _WIDTH.sub(" ", _DELIMITER.sub(" ", _DEGREES.sub("°", _GROUPED.sub(",", text))))
    text = _POWER.sub(r"^\1", _BRACED.sub(r" \1 ", text))
    text = _SHORT_FRACTION.sub(_over, text)
    for _ in range(_DEPTH):
        text, count = _FRACTION.subn(_over, text)
        if not count:
            break
    for pattern, plain in _COMMAND:
        text = pattern.sub(plain, text)
    return " ".join(_ESCAPED.sub(r"\1", text).split())


def _over(fraction: re.Match[str]) -> str:
    """A LaTeX fraction as `a/b`. A whole number before it makes a mixed number, as in 2\\frac{1}{2}."""
    above, below = (part.strip() for part in fraction.groups())
    above, below = (part if part.isalnum() else f"({part})" for part in (above, below))
    before = fraction.string[: fraction.start()].rstrip()[-1:]
    after = fraction.string[fraction.end() : fraction.end() + 1]
    if above.isdecimal() and below.isdecimal():
        return f"{' ' if before.isdigit() else ''}{above}/{below}{' ' if after.isdigit() else ''}"
    joined = f"({above}/{below})"
    return f"*{joined}" if before.isdigit() else joined
