"""Mathematical notation: which answers are expressions, and their spelling in LaTeX for math-verify."""

from __future__ import annotations

import re
from typing import NamedTuple

from synthgen.verify.arithmetic import NO_SUM
from synthgen.verify.short import remembered
from synthgen.verify.spelling import clean

LONGEST = 200  # maximum number of characters of an expression that is compared as mathematics

_NAMES = frozenset(
    str.split(
        "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp sqrt pi inf infinity max min det "
        "gcd lcm"
    )
)
_COMMANDS = _NAMES | frozenset(
    str.split(
        "frac dfrac tfrac cfrac left right infty cdot times div pm mp cup cap setminus emptyset le leq ge geq lt gt "
        "ne neq circ degree alpha beta gamma delta epsilon theta lambda mu nu rho sigma tau phi varphi omega Delta "
        "Omega mathbb R Z Q N C binom quad qquad displaystyle text mathrm begin end pmatrix bmatrix vmatrix"
    )
)
_WORDS = frozenset(str.split("is of or at to in if as by no so we it be do he an on up us my me go am pm ok hi vs"))
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[pbv]matrix\}|\\(?:text|mathrm)\s*\{\s*\}")
_LETTERS = re.compile(r"[A-Za-z]+")
_CHARACTERS = re.compile(r"[\w\s.,;:+\-*/^=<>!|()\[\]{}&'\\$π∞√∪∩°∅]+")
_SYMBOLIC = re.compile(
    r"\\[A-Za-z]|[π√∞∪∩∅]|(?:[A-Za-z)\d]\s*(?:[-+*/^=<>]|<=|>=)\s*[-\w(\\{√π])|sqrt|\d[A-Za-z]\b|[\[(]\s*-?\d[^()\[\]]*,"
)
_MORE = re.compile(r"[A-Za-z√π∞∪∩∅]|[(\[][^()\[\]]*,")
_FLOAT = re.compile(r"(?<![A-Za-z])\d+(?:\.\d+)?[eE][-+]?\d")
_DANGLING = re.compile(r"[-+*/^=<>]\s*$|^\s*[*/^=<>]")
_SPELLED = (
    (re.compile(r"\\[dtc]frac"), r"\\frac"),
    (re.compile(r"\\(?:left|right|displaystyle|quad|qquad)(?![A-Za-z])|(?<!\\)\\[,;:! ]|\$"), " "),
    (re.compile(r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"√\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"√\s*(\d+|[A-Za-z])"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![\\A-Za-z])(sin|cos|tan|ln|log|exp)(?![A-Za-z])"), r"\\\1"),
    (re.compile(r"(?<![\\A-Za-z])pi(?![A-Za-z])|π"), r"\\pi "),
    (re.compile(r"(?<![\\A-Za-z])(?:infinity|inf)(?![A-Za-z])|∞"), r"\\infty "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\*"), r" \\cdot "),
    (re.compile(r"∪"), r" \\cup "),
    (re.compile(r"∩"), r" \\cap "),
    (re.compile(r"∅"), r" \\emptyset "),
    (re.compile(r"<="), r" \\le "),
    (re.compile(r">="), r" \\ge "),
    (re.compile(r"!="), r" \\ne "),
    (re.compile(r"°"), r"^{\\circ}"),
    (re.compile(r"\^\(([^()]*)\)"), r"^{\1}"),
    (re.compile(r"\^(-?\d+)"), r"^{\1}"),
)


@remembered
def notation(text: str) -> str:
    """The text in LaTeX if it is only a mathematical expression. '' for any other text, for a text with words, and for
    a text of more than 200 characters.
    """
    if len(text) > LONGEST:
        return ""
    text = clean(text).strip().rstrip(".;,").strip()
    if text.startswith(("\\[", "\\(")) and text.endswith(("\\]", "\\)")):
        text = text[2:-2]
    if NO_SUM.fullmatch(text) or _FLOAT.search(text) or not _CHARACTERS.fullmatch(text) or _DANGLING.search(text):
        return ""
    if any(name not in _COMMANDS for name in _COMMAND.findall(text)):
        return ""
    rest = _COMMAND.sub(" ", _ENVIRONMENT.sub(" ", text))
    if any(len(run) > 2 and run not in _NAMES for run in _LETTERS.findall(rest)):
        return ""
    if any(run in _WORDS for run in _LETTERS.findall(rest)):
        return ""
    if _listed(text):
        return ""
    for pattern, spelled in _SPELLED:
        text = pattern.sub(spelled, text)
    return " ".join(text.split())


def _listed(text: str) -> bool:
    """Whether the text is a list, with a comma or semicolon outside brackets. math-verify would ignore the order of a
    list.
    """
    depth = 0
    for char in text:
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char in ",;" and depth <= 0:
            return True
    return False


def symbolic(text: str) -> bool:
    """Whether the expression has more than numbers and operators. Numbers and operators alone are left to
    `arithmetic`.
    """
    return _SYMBOLIC.search(text) is not None and _MORE.search(text) is not None


class Relation(NamedTuple):
    """A chain of relations: `signs` between `sides`, as in 0 < x < 5. An expression has one side and no sign."""

    signs: tuple[str, ...]
    sides: tuple[str, ...]

    @property
    def assigns(self) -> bool:
        """Whether the relation gives a name to an expression: "y = 2x" or "f(x) = 2x"."""
        return self.signs == ("=",) and _NAME.fullmatch(self.sides[0]) is not None

    def reversed(self) -> Relation:
        """The same chain, read from the right: 5 > x > 0."""
        return Relation(tuple(_FLIPPED[sign] for sign in self.signs[::-1]), self.sides[::-1])


_NAME = re.compile(r"[A-Za-z](?:_\{?\w\}?)?(?:\([A-Za-z]\))?'?")
_SIGN = re.compile(r"\\(?:leq?|geq?|lt|gt|neq?)(?![A-Za-z])|[<>=]")
_SIGNS = {
    "\\le": "<=",
    "\\leq": "<=",
    "\\ge": ">=",
    "\\geq": ">=",
    "\\lt": "<",
    "\\gt": ">",
    "\\ne": "!=",
    "\\neq": "!=",
}
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


def relation(text: str) -> Relation:
    """Split an expression in LaTeX at relation signs such as "<" or "="."""
    signs = tuple(_SIGNS.get(sign, sign) for sign in _SIGN.findall(text))
    return Relation(signs, tuple(side.strip() for side in _SIGN.split(text)))
