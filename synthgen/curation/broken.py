"""The check `broken_text` rejects completions with wrongly decoded characters or leftover markup."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import numbers
from synthgen.curation.turns import MARK as SPECIAL
from synthgen.curation.verdicts import Rejection, Verdicts
from synthgen.executor import Services
from synthgen.tables.curation_settings import BrokenText

# The characters that the bytes 0x80 to 0xBF become in Windows-1252, or in Latin-1 where Windows-1252 has no character.
_TAIL = r"\x{80}-\x{bf}€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_LATIN = rf"[\x{{c2}}-\x{{f4}}][{_TAIL}]{{1,3}}"
_FOREIGN = re.compile(re.sub(r"\\x\{(..)\}", r"\\x\1", _LATIN))
# People also write some of these pairs on purpose: a capital letter and then a mark, as in “CAFÉ” or «LIBERTÉ».
_LEADS = "ÂÃÄÅÎÏÐÑ×ØÙÚÛ"  # first bytes of Latin, Greek, Cyrillic, Hebrew and Arabic letters, wrongly decoded
_QUOTE, _SIGN = "‘’‚“”„‹›«»–—…•", "\xa0™®©°"
# Cyrillic letters in UTF-8, read as Windows-1251: "Р" or "С" and another character, again and again.
_CYRILLIC = r"(?:[РС][\x{a0}-\x{bb}Ђ-Џђ-џЁёІіҐґЎў‚-™€№]){3}"
_CYRILLIC_LETTERS = re.compile(r"(?:[РС][^\x00-\x7f])+")
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]"
_RE2_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x{7f}-\x{9f}\x{fdd0}-\x{fdef}\x{fffe}\x{ffff}]"

_TAGS = "a b i u p s em div span strong small sub sup ul ol li table thead tbody tr td th h1 h2 h3 h4 h5 h6 font center"
_TAGS += " script style html body head section article form button label pre code blockquote"
_VOID = "br hr img input meta link"
_TAG = re.compile(rf"<(/?)({'|'.join((_TAGS + ' ' + _VOID).split())})(?:\s[^<>]*)?(/?)>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:nbsp|amp|lt|gt|quot|apos|#\d{2,5}|#x[0-9a-fA-F]{2,5});")
_MARKUP = r"(?i)<\s*/?\s*[a-z][a-z0-9]*[\s/>]|&(?:[a-z]+|#x?[0-9a-f]+);"
_SPECIAL = re.compile(SPECIAL)
_ABOUT_TEMPLATES = re.compile(
    r"\b(?:tokens?|tokeniz\w*|templates?|delimiters?|markers?|chatml|prompts?|turns?)\b", re.IGNORECASE
)
_CODE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`", re.DOTALL)
_ABOUT = re.compile(r"\b(?:html|xml|css|markup|jsx|tags?|elements?|entit(?:y|ies))\b", re.IGNORECASE)


def broken_text(batch: pa.RecordBatch, section: BrokenText, services: Services) -> Verdicts:
    """Reject a completion with wrongly decoded letters, replacement characters, control characters, marks of chat
    templates or leftover HTML.
    The rules are tried in this order, and the rejection names the first rule that the completion breaks.
    """
    texts = batch["completion.text"]
    rejected: dict[int, Rejection] = {}
    for rule, (likely, describe) in RULES.items():
        if rule in section.skip:
            continue
        for row in np.flatnonzero(
            numbers(pc.fill_null(pc.match_substring_regex(texts, pattern=likely), False))
        ).tolist():
            what = None if row in rejected else describe(texts[row].as_py())
            if what:
                rejected[row] = Rejection(what, rule=rule)
    return Verdicts(rejected)


def _mojibake(text: str) -> str | None:
    """Finds letters such as "Ã©" that are "é" in UTF-8, read as Windows-1252 or Latin-1."""
    for found in _FOREIGN.finditer(text):
        raw = b"".join(_byte(character) for character in found.group())
        for stop in range(len(raw), 1, -1):
            try:
                right = raw[:stop].decode("utf-8")
            except UnicodeDecodeError:
                continue
            if len(right) == 1 and not (stop == 2 and _written(text, found.start())):
                return f"wrongly decoded letters: '{found.group()[:stop]}' for '{right}'"
    return None


def _written(text: str, place: int) -> bool:
    """Whether people write these two characters on purpose: a capital letter and then a quote, a dash or a sign. The
    letter must be rare in wrongly decoded text, or it must end a word of capital letters.
    """
    letter, mark, after = text[place], text[place + 1], text[place + 2 : place + 3]
    if mark not in (_QUOTE if letter in "ÂÃ" else _QUOTE + _SIGN):  # people seldom write "Â°" or "Ã\xa0" on purpose
        return False
    return letter not in _LEADS or not (after.isalpha() or text[place - 1 : place].islower())


def _cyrillic(text: str) -> str | None:
    """Finds letters such as "РџСЂРё" that are "При" in UTF-8, read as Windows-1251."""
    for found in _CYRILLIC_LETTERS.finditer(text):
        try:
            right = found.group().encode("cp1251").decode("utf-8")
        except UnicodeError:
            continue
        if len(right) > 2:
            return f"wrongly decoded letters: '{found.group()}' for '{right}'"
    return None


def _letters(text: str) -> str | None:
    return _mojibake(text) or _cyrillic(text)


def _special(text: str) -> str | None:
    """Finds marks of chat templates. Marks in code, and in texts about such templates, are not judged."""
    found = None if _ABOUT_TEMPLATES.search(text) else _SPECIAL.search(_CODE.sub(" ", text))
    return f"mark of a chat template: '{found.group()}'" if found else None


def _byte(character: str) -> bytes:
    try:
        return character.encode("cp1252")
    except UnicodeEncodeError:
        return character.encode("latin-1", "replace")


def _replacement(text: str) -> str:
    """In Chinese encodings, two replacement characters are read as "锟斤拷"."""
    return f"replacement characters (U+FFFD): {text.count(chr(0xFFFD)) + 2 * text.count('锟斤拷')}"


def _control(text: str) -> str | None:
    found = re.search(_CONTROL, text)
    return f"control character U+{ord(found.group()):04X}" if found else None


def _html(text: str) -> str | None:
    """Finds an entity, or a tag that is not closed or not opened. Code, whole HTML documents and texts about markup are
    not judged.
    """
    stripped = text.strip()
    if (stripped.startswith("<") and stripped.endswith(">")) or _ABOUT.search(text):
        return None
    prose = _CODE.sub(" ", text)
    entity = _ENTITY.search(prose)
    if entity:
        return f"leftover HTML: '{entity.group()}'"
    open_: list[str] = []
    for tag in _TAG.finditer(prose):
        name = tag.group(2).lower()
        if name in _VOID.split() or tag.group(3):
            continue
        if not tag.group(1):
            open_.append(name)
        elif name in open_:
            open_.remove(name)
        else:
            return f"leftover HTML: '{tag.group()}' closes nothing"
    return f"leftover HTML: '<{open_[0]}>' is not closed" if open_ else None


RULES: dict[str, tuple[str, Callable[[str], str | None]]] = {
    "mojibake": (f"{_LATIN}|{_CYRILLIC}", _letters),
    "replacement_character": (r"\x{fffd}|锟斤拷", _replacement),
    "control_character": (_RE2_CONTROL, _control),
    "special_token": (SPECIAL, _special),
    "html": (_MARKUP, _html),
}
"""Maps a rule to an expression with which Arrow finds the likely texts, and to a function. The function says what is
wrong with a text, or returns None.
"""
