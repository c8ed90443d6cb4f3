"""Reads answers in words: their words, and the part of a sentence that is the answer."""

from __future__ import annotations

import re

from synthgen.verify.sentences import HEDGE, NEGATION, UNSURE, answering, sentences, settled
from synthgen.verify.short import remembered
from synthgen.verify.spelling import clean, undress

Words = tuple[str, ...]

_HYPHEN = re.compile(r"(?<=[^\W\d_]{2})-(?=[^\W_])|(?<=[^\W\d_])-(?=[^\W\d_]{2})")  # "x-y" is a difference
_WORD = re.compile(
    r"[-+]?\d++(?:[.,:/]\d++)*+|[^\W_]+(?:'[^\W_]+)*+|(?<![^\W_][^\W_])(?<=[^\W_])'+|(?<=[,\s])\.\.\.|"
    r"!=|!(?=[A-Za-z(])|(?<![\w.])\.(?=[A-Za-z])|[^\w\s.,;:!?\"'`_]|_"
)
_FACTORIAL = re.compile(r"[^A-Za-z]*(?:\d!|!\d)[^A-Za-z]*|[A-Za-z]!")
_QUOTED = re.compile(r"(?<![\w'])'([^']*)'(?![\w'])")
_RATIO = re.compile(r"(?<=\d) ?: ?(?=\d)")
_THOUSANDS = re.compile(r"(?<![\d,.])(\d{1,3}(?:,\d{3})++)(?![\d,])")
_AROUND = ("()", "[]", "{}")
_ARTICLES = ("a", "an")

_LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore|ok|okay|well|sure|finally|overall)\b,?\s+|"
    r"(?:i (?:think|believe|would say|choose|pick|would choose|would go with)|"
    r"i'd (?:say|go with|choose)|we (?:get|have|find)|it seems)\s+(?:that\s+)?|"
    r"(?:(?:it|that|this)(?:'s| is| was| would be)|they(?:'re| are)|there (?:is|are))\s+|"
    r"(?:the |my |our )?(?:(?:correct|right|final|best|only|most likely) )*"
    r"(?:answer|option|choice|solution|result|name|word|letter)s?\s*(?:is|are|was|:|=)?\s+(?:that\s+)?)",
    re.IGNORECASE,
)
_BEHIND = re.compile(
    r"\s+(?:(?:is|are|was)\s+(?:the\s+)?(?:(?:correct|right|final|best|true)\s*)*(?:answer|choice|option|one|solution)?|"
    r"(?:would be|makes sense|is my answer|it is))\s*$",
    re.IGNORECASE,
)
_CUT = re.compile(
    r"\s*(?:,?\s+(?:because|since|as it|as they|as the|which|due to|given that|so that|where)\b|"
    r"\s--\s|(?<=[A-Za-z]{2})\s-\s(?=[A-Za-z]+\s)|;\s(?=\S+\s\S+\s\S)|,\s+(?:as|who|so)\s)",
    re.IGNORECASE,
)
_EXCLAIMED = re.compile(r"(?<=[A-Za-z]{2})!+$")
_PARENTHESES = re.compile(r"(?<=\S)\s+\([^()]*\)\s*$")
_DOUBTFUL_SUBJECT = re.compile(
    r"\b(?:wrong|incorrect|mistake|mistaken|mistakenly|other|another|alternative|option|except|often|common|commonly|"
    r"confused|instead|opposite|former|previous|old|first|second|next|not|never|no|if|unless|or|one of|some|people|"
    r"claim|claims|said|think|thinks|guess|rumou?r|false|untrue)\b",
    re.IGNORECASE,
)
_PREDICATE = re.compile(r"\b(?:is|are|was|were|equals|means)\s+(?:called\s+|named\s+|known as\s+)?", re.IGNORECASE)


def words(text: str) -> Words:
    """The words and symbols of a text in lower case, without punctuation, "the", and an article at its start. Operators
    and brackets count as words, so "C++" is not "C" and "x > 3" is not "x < 3".
    """
    return words_of(undress(clean(text)))


@remembered
def words_of(text: str) -> Words:
    """The words and symbols of a text that is already in its plain form."""
    text = text.strip().strip("_").lower()
    if "'" in text:
        text = _QUOTED.sub(r"\1", text)
    if ":" in text:
        text = _RATIO.sub(":", text)
    if len(text) > 1 and text[0] + text[-1] in _AROUND and not any(char in text[1:-1] for char in ",()[]{}"):
        text = text[1:-1]
    if "-" in text:
        text = _HYPHEN.sub(" ", text)
    if "," in text:
        text = _THOUSANDS.sub(lambda group: group[1].replace(",", ""), text)
    found = _WORD.findall(text)
    if "!" in text and _FACTORIAL.fullmatch(text):
        found.append("!" if text.endswith("!") else "!n")
    if len(found) > 1:
        found = [word for word in found if word != "the"] or found
        if len(found) > 1 and found[0] in _ARTICLES and found[1][0].isalpha():
            del found[0]
    return tuple(found)


def normalize(text: str) -> str:
    """The words and symbols of a text, separated by single spaces. Two texts with equal results count as equal."""
    return " ".join(words(text))


def clauses(line: str) -> list[str]:
    """The parts of a line in plain form that may be its answer in words: a short first sentence, the last sentence
    without its reasons, and both without words such as "It is". Empty if the line expresses doubt or a denial.
    """
    if UNSURE.search(line):
        return []
    parts = sentences(line)
    spoken = [answering(line)]
    if len(parts) > 1 and len(parts[0].split()) <= 8 and not _contradicts(parts[1:]):
        spoken.insert(0, parts[0])
    found: list[str] = []
    for sentence in spoken:
        cut = _CUT.split(sentence, maxsplit=1)[0].strip()
        cut = cut if cut.endswith("..") else cut.rstrip(".")
        cut = _EXCLAIMED.sub("", cut)
        kept = settled(cut)
        if kept is None:
            continue
        for _ in range(3):
            found.append(kept)
            shorter = _BEHIND.sub("", _LEAD.sub("", _PARENTHESES.sub(_aside, kept), count=1)).strip()
            if shorter == kept or not shorter:
                break
            kept = shorter
    return found


def without_reasons(line: str) -> str:
    """The line up to its reasons: "Paris" of "Paris, because it is the capital"."""
    return _CUT.split(line, maxsplit=1)[0].strip() or line


def _aside(parentheses: re.Match[str]) -> str:
    """Leaves parentheses out, unless they give another answer."""
    inside = parentheses.group()
    if re.search(r"\b(?:or|and|not)\s*$", parentheses.string[: parentheses.start()]):
        return inside
    return inside if re.search(r"\(\s*(?:or|and|not)\b", inside) or HEDGE.search(inside) else ""


def _contradicts(rest: list[str]) -> bool:
    """Whether the sentences after a short first sentence give another answer instead of explaining it."""
    behind = " ".join(rest)
    return (
        any(len(sentence.split()) < 3 for sentence in rest)
        or bool(re.match(r"(?:no|not|wait|actually|or|but|however|maybe|perhaps)\b", behind, re.IGNORECASE))
        or bool(HEDGE.search(behind))
        or bool(re.search(r"\b(?:wait|actually|correction|sorry|the answer)\b", behind, re.IGNORECASE))
    )


def predicate(line: str) -> str | None:
    """What the last sentence says about its subject: "Paris" in "The capital of France is Paris". None if the subject
    shows that this may not be the answer, as in "A common mistake is Paris".
    """
    sentence = None if UNSURE.search(line) else settled(_CUT.split(answering(line), maxsplit=1)[0].strip())
    if sentence is None:
        return None
    verb = next(reversed(list(_PREDICATE.finditer(sentence))), None)
    if verb is None or _DOUBTFUL_SUBJECT.search(sentence[: verb.start()]):
        return None
    return sentence[verb.end() :].strip()


def denies(text: Words) -> bool:
    """Whether the words contain a negation or a doubt themselves."""
    joined = " ".join(text)
    return bool(NEGATION.search(joined) or HEDGE.search(joined))


_YES, _NO = ("yes", "true"), ("no", "false")
TRUTHS = {word: "yes" for word in _YES} | {word: "no" for word in _NO}
_HALF = re.compile(
    r"\b(?:but|however|partly|partially|sometimes|both|depends|unless|only|except|almost|although)\b", re.I
)


def truth(line: str) -> str | None:
    """'yes' or 'no' if the line in plain form answers so, in words such as "Yes, it is" or "False". None otherwise."""
    cut = re.split(r"(?:,?\s+because|,?\s+since|\.\s|;|\s--\s)", line.strip(), maxsplit=1)
    spoken = words_of(cut[0])
    if not spoken:
        return None
    said = TRUTHS.get(spoken[0])
    rest = spoken[1:]
    if said is None:
        return None
    if rest and not (
        line.strip()[len(spoken[0]) :].lstrip(" *_\"'")[:1] in (",", ".", ":", "-", "!", ";") or rest[0] in _PRONOUNS
    ):
        return None
    behind = " ".join(rest)
    opposite = any(TRUTHS.get(word, said) != said for word in rest)
    if opposite or _HALF.search(behind) or HEDGE.search(behind) or (said == "yes" and NEGATION.search(behind)):
        return None
    after = cut[1] if len(cut) > 1 else ""
    first = words_of(after)[:1]
    if after[:1].isdigit():
        return None  # "No. 5"
    return None if first and TRUTHS.get(first[0], said) != said else said


_PRONOUNS = ("it", "they", "he", "she", "this", "that", "these", "those", "there", "we", "you", "i")
