"""Decides which label a teacher's reply names, and with which probabilities.

A label is accepted only when all labels together have at least `LEAST_MASS` of the probability. The row keeps this mass
as the score `label_mass`. Local engines compute the mass from the whole distribution. A server shows only the most
probable tokens of a reply that it wrote, so the reply of a server must also name exactly one label. Text that merely
contains a label, such as "not a refund", names no label.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from synthgen.recipe.generate import plain_label
from synthgen.records import Usage
from synthgen.requests import Request
from synthgen.teachers.base import Reply

LEAST_MASS = 0.01
"""The smallest total probability of all labels at which a label is accepted. docs/log.md shows the effect of this
bound.
"""

# If unclear tokens (see `label_probs`) have more probability than this, the shares of the labels are not known.
_UNCLEAR = 0.01
_MOST_EXCESS = 0.02  # the sum of the probabilities of one place's tokens may exceed 1 by this much
_ROUNDING = 1e-6  # a log-probability of a server may exceed 0 by this much
_FEWEST_LETTERS = 3  # a token that is only the beginning of a label has at least this many letters
_SHOWN = 80  # maximum number of characters of a reply in a reason
# Words that often begin a sentence or a phrase. A token that is one of these words is not taken for the beginning of a
# label.
_WORDS = """
    all and any are but can der des die das ein for from had has hat her here his how ihr ist its les let may not
    new non now one our out para per por she since that the their them then there these they this those too una und une
    use was well what when which who why will with yes you your answer based category class dear given hello label none
    okay please sorry sure thank topic
    """
_COMMON = frozenset(_WORDS.split())
# A reply that is a sentence with a label at its end, such as "The category is: refund".
_NAMED = re.compile(
    r"(?:(?:the|this|my)\s)?(?:(?:final|correct|best|right|likely|most likely|predicted)\s)?"
    r"(?:answer|category|class|classification|label|topic|intent|sentiment|type|tag|choice|option|result)"
    r"(?:\sis:?|\s?:)\s(?P<label>.+)"
)
_AFTER = " \t\r\n.,;:!\"'*`”’»)"  # characters that may follow a label within the label's last token
_BULLET = re.compile(r"^[-*•]\s+")


def too_little(mass: float, said: str) -> tuple[str, str] | None:
    """The failure of a reply whose labels have a total probability of `mass`. None when this probability is large
    enough. `said` is what the teacher wrote, or would write.
    """
    if math.isnan(mass):
        return "engine", "the teacher's probabilities are not numbers"
    if mass >= LEAST_MASS:
        return None
    written = f"; the teacher writes {said[:_SHOWN]!r}" if said else ""
    return "schema", f"the labels have {mass:.2%} of the probability, and {LEAST_MASS:.0%} is needed{written}"


def most_likely(labels: Sequence[str], masses: Sequence[float], said: str) -> Reply:
    """The reply of an engine that knows the probability of each label. `masses` are the probabilities of the labels. No
    text counts for two labels, so the total is at most 1. `said` is what the engine would write.
    """
    mass = math.fsum(masses)
    if (failed := too_little(mass, said)) is not None:
        return Reply(failure=failed)
    best = max(range(len(masses)), key=masses.__getitem__)
    probs = [one / mass for one in masses]
    return Reply(labels[best], finish_reason="stop", label_probs=probs, scores=(("label_mass", mass),))


def apart(labels: Sequence[Sequence[int]], masses: Sequence[float]) -> list[float]:
    """For each label, the probability that the answer begins with this label and not with a longer label.

    `labels` are the labels' tokens. `masses` are the probabilities that the answer begins with these tokens. If the
    labels are "1" and "10", the mass of "10" is a part of the mass of "1".
    """
    keys = [tuple(label) for label in labels]
    left = list(masses)
    for longer, mass in zip(keys, masses, strict=True):
        shorter = [n for n, key in enumerate(keys) if len(key) < len(longer) and longer[: len(key)] == key]
        # this mass is subtracted only from the longest of the shorter labels; the mass of that label, which includes
        # this mass, is itself subtracted from the label that is shorter still
        if shorter:
            left[max(shorter, key=lambda n: len(keys[n]))] -= mass
    return [one if math.isnan(one) else max(0.0, one) for one in left]


def named(text: str, labels: Sequence[str]) -> int | None:
    """The index of the label that a whole reply names, or None. Quotes, emphasis, a final period and letter case are
    ignored. The label may also be in a phrase such as "Category: refund".
    """
    wanted = {plain_label(label): n for n, label in enumerate(labels)}
    line = _BULLET.sub("", text.strip())
    if (found := wanted.get(plain_label(line))) is not None:
        return found
    sentence = " ".join(unicodedata.normalize("NFC", line).casefold().replace("*", "").replace("`", "").split())
    match = _NAMED.fullmatch(sentence)
    return wanted.get(plain_label(match["label"])) if match else None


def classified(request: Request, text: str, content: Sequence[object], usage: Usage | None) -> Reply:
    """The reply to a request of kind 'classify'. `text` is what the server wrote, and `content` its log-probabilities.

    The text must name one label. The labels' probabilities come from the tokens that the server showed at the place
    where the label begins. When these tokens do not determine the probabilities, or no tokens are shown, the named
    label gets probability 1, and the score `label_from_answer` is 1.
    """
    labels, said = request.labels, named(text, request.labels)
    try:
        shown = [_shown(entry) for entry in content]
        at = _place(shown, text.strip(), "" if said is None else labels[said])
    except ValueError as problem:
        return Reply(failure=("schema", str(problem)), usage=usage)
    found = None if at is None else label_probs(shown[at:], labels, said)
    written = text.strip()[:_SHOWN]
    if said is None:
        mass = f" (the labels have {found.mass:.2%} of the probability where it begins)" if found else ""
        return Reply(failure=("schema", f"the answer is not one of the labels: {written!r}{mass}"), usage=usage)
    if found and (failed := too_little(found.mass, written)) is not None:
        return Reply(failure=failed, usage=usage)
    probs = found.probs if found else None
    if probs and max(probs) > probs[said]:
        reason = f"the answer is {written!r}, but '{labels[probs.index(max(probs))]}' has a higher probability"
        return Reply(failure=("schema", reason), usage=usage)
    scores = (*((("label_mass", found.mass),) if found else ()), ("label_from_answer", float(probs is None)))
    shares = probs or [float(n == said) for n in range(len(labels))]
    return Reply(text=text.strip(), answer=labels[said], label_probs=shares, usage=usage, scores=scores)


@dataclass(frozen=True)
class Shown:
    """One token of a reply: its bytes, and the probabilities of the tokens that the server showed for its place. The
    reply's own token is among the tokens that the server showed.
    """

    piece: bytes
    probs: Mapping[bytes, float]


@dataclass(frozen=True)
class Found:
    """`mass` is the total probability of the labels. `probs` are the labels' shares of this mass, or None when the
    tokens that the server showed do not determine the shares.
    """

    mass: float
    probs: list[float] | None


def label_probs(shown: Sequence[Shown], labels: Sequence[str], said: int | None) -> Found | None:
    """The probabilities of the labels, from the tokens that a server showed. `shown` begins where the label begins.
    `said` is the label that the reply names, or None when it names none. Returns None when `shown` is empty or does not
    spell the label.

    The tokens of the reply are read until only one label begins with them. At each step, the server also showed other
    tokens. The probability of each of these tokens is added to the label that begins with the token. A token that
    begins several labels, or that could also begin another word, is unclear.
    """
    masses, unclear, reach, before = [0.0] * len(labels), 0.0, 1.0, b""
    for token in shown:
        texts = {piece: _text(before + piece) for piece in token.probs}
        owners = {piece: _owner(text, labels, texts.values()) for piece, text in texts.items()}
        continued = 0.0
        if len(token.probs) == 1:  # the server shows only the tokens that it wrote
            unclear += reach * (1 - token.probs[token.piece])
        for piece, p in token.probs.items():
            if piece == token.piece and said is not None:
                continue
            owner = owners[piece]
            if owner is not None:
                continued += p
                if owner >= 0:
                    masses[owner] += reach * p
                else:
                    unclear += reach * p
        if said is None:
            return Found(math.fsum(masses), None)
        owner = owners[token.piece]
        if owner == said:
            masses[said] += reach * token.probs[token.piece]
            return _found(masses, unclear)
        if owner is None:  # the label ended before this token
            masses[said] += reach * max(0.0, 1.0 - continued)
            return _found(masses, unclear) if _text(before) == labels[said].strip().casefold() else None
        if owner >= 0:
            return None
        reach *= token.probs[token.piece]
        before += token.piece
    if said is None or not shown:
        return None
    masses[said] += reach
    return _found(masses, unclear=1.0)  # no further tokens are shown, but a longer label was still possible


_UNDECIDED = -1  # the text may be the beginning of several labels, or of a label or another word


def _owner(text: str, labels: Sequence[str], others: Collection[str]) -> int | None:
    """The label that begins with `text`, or `_UNDECIDED`, or None when no label begins with it. `others` are the texts
    of all tokens that the server showed for the same place.
    """
    names = [label.strip().casefold() for label in labels]
    whole = names.index(text) if text in names else None
    longer = [n for n, name in enumerate(names) if text and len(name) > len(text) and name.startswith(text)]
    if whole is not None:
        # A server that shows a longer label as one token would not write it as a shorter label and another token.
        return whole if all(names[n] in others for n in longer) else _UNDECIDED
    if longer:
        word = text.strip()
        sure = len(word) >= _FEWEST_LETTERS and word.isascii() and word.isalpha() and word not in _COMMON
        return longer[0] if sure and len(longer) == 1 else _UNDECIDED
    ended = text.rstrip(_AFTER)
    return names.index(ended) if ended in names else None


def _text(piece: bytes) -> str:
    """The text of a token in lower case. Bytes at the end that are only a part of a character are left out."""
    return piece.decode(errors="ignore").lstrip().casefold()


def _found(masses: list[float], unclear: float) -> Found:
    mass = math.fsum(masses)
    return Found(mass, [one / mass for one in masses] if mass > 0 and unclear <= _UNCLEAR else None)


def _shown(entry: object) -> Shown:
    """One entry of a server's log-probabilities. Raises ValueError when the entry is not valid."""
    top = entry.get("top_logprobs") if isinstance(entry, dict) else None
    pairs = [_pair(one) for one in [entry, *(top if isinstance(top, list) else [])]]
    probs: dict[bytes, float] = {}
    for piece, p in pairs:
        probs[piece] = max(p, probs.get(piece, 0.0))
    if (total := math.fsum(probs.values())) > 1 + _MOST_EXCESS:
        raise ValueError(f"the probabilities that the server shows for one token add up to {total:.3g}")
    return Shown(pairs[0][0], probs)


def _pair(entry: object) -> tuple[bytes, float]:
    """The bytes of a token, and its probability."""
    token, logprob = (entry.get("token"), entry.get("logprob")) if isinstance(entry, dict) else (None, None)
    if not isinstance(entry, dict) or not isinstance(token, str) or not isinstance(logprob, float | int):
        raise ValueError("the server's log-probabilities do not have the expected form")
    if isinstance(logprob, bool) or not -math.inf < logprob <= _ROUNDING:
        raise ValueError(f"the server gave {logprob} as a log-probability, which must be at most 0")
    raw = entry.get("bytes")
    if isinstance(raw, list) and raw and all(type(one) is int and 0 <= one < 256 for one in raw):
        return bytes(raw), math.exp(min(logprob, 0.0))
    for marker, plain in (("\u2581", " "), ("\u0120", " "), ("\u010a", "\n")):  # white space as tokenizers store it
        token = token.replace(marker, plain)
    return token.encode(errors="replace"), math.exp(min(logprob, 0.0))


def _place(shown: Sequence[Shown], text: str, label: str) -> int | None:
    """The index of the token in which `label` begins. If `label` is empty, the index of the token in which `text`
    begins. None when the server does not show this token. Raises ValueError when the tokens do not spell the text.
    """
    joined, wanted = b"".join(token.piece for token in shown), text.encode(errors="replace")
    if not joined.strip():
        return None
    start = joined.rfind(wanted)
    if start < 0:
        if not wanted.startswith(joined.strip()):
            raise ValueError(f"the tokens with log-probabilities do not spell the answer: {joined[:_SHOWN]!r}")
        start = len(joined) - len(joined.lstrip())
    matches = list(re.finditer(re.escape(label.strip()), text, re.IGNORECASE))
    if not matches:
        return None
    offset = start + len(text[: matches[-1].start() if label else 0].encode(errors="replace"))
    end = 0
    for n, token in enumerate(shown):
        begin, end = end, end + len(token.piece)
        if begin <= offset < end:
            return n if not joined[begin:offset].strip() else None
    return None
