"""The check `refusal` rejects completions that decline the request, in English, German, Spanish, French and Chinese.

A completion is a refusal if one of its first sentences declines, as in "I can't help with that", and no answer follows.
The check keeps a completion that declines one part of the request and answers the rest. The check also keeps a
completion in which somebody else declines (in a quote, a dialogue or a letter), and a completion whose prompt asked to
translate or repeat a refusal.

Most texts are settled by one search of Arrow over the whole batch. The other texts are read sentence by sentence. The
phrases of each language are in a module of this package.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import numbers
from synthgen.curation.plain import contents
from synthgen.curation.refusals.chinese import CHINESE
from synthgen.curation.refusals.english import ENGLISH
from synthgen.curation.refusals.french import FRENCH
from synthgen.curation.refusals.german import GERMAN
from synthgen.curation.refusals.language import Language, simple
from synthgen.curation.refusals.spanish import SPANISH
from synthgen.curation.verdicts import Rejection, Verdicts
from synthgen.executor import Services
from synthgen.records import Span
from synthgen.tables.section import Section

LANGUAGES = (ENGLISH, GERMAN, SPANISH, FRENCH, CHINESE)  # Chinese is last: a text in ASCII is not compared with it

_WITHIN = 300  # the sentence that declines begins within this many characters
_READ = 1500  # this many characters are read to see whether an answer follows
_SENTENCES = 4  # only the first sentences, up to this number, may decline
_ANSWER = 150  # an answer has at least this many characters; a Chinese character counts as three
_QUOTED = 80  # a reason quotes at most this many characters of the sentence

_STARTS = rf"^\W*(?:<(?:think|reasoning)|{'|'.join(language.starts for language in LANGUAGES)})"
_CLAUSES = (
    r"[,，] ?(?:and |so |but |et |mais |y |pero |und |aber |所以|因此|但)*(?:(?:i|je|ich|no)\b|我)|"
    r"\W(?:and i|und ich|y no|et je|et ne)\b|"
    r" (?:kann|darf|will|bin|muss|\w+e) ich\b"
)
_APOSTROPHES = dict.fromkeys(map(ord, "’‘ʼ`´＇"), "'")
_SENTENCE = re.compile(r"[^.!?。！？\n]+(?:[.!?。！？]+[\"'”’»」)*_]*|\n|$)")
_THOUGHT = re.compile(r"\s*<(think|thinking|reasoning)>.*?</\1>", re.DOTALL)
_GREETING = re.compile(
    r"\s*(?:hi|hello|hey|hallo|hola|bonjour|salut|您好|你好)\b[^\n.!?]{0,40}[,!:，！：]?\n", re.IGNORECASE
)
_SPEAKER = re.compile(r"\s*(?:[-*•+] |\d|[^\s:：]+(?: [^\s:：]+)?\s?[:：]\s?\S)")
_SAYS = re.compile(
    r"^.{0,60}?(?:[,\"”»“] ?|\b)(?:(?:he|she|they|the \w+|\w+) (?:said|says|replied|whispered|muttered|thought|"
    r"complain(?:s|ed)|wr(?:ote|ites)|told|sighed)|(?:sagte|sagt|schreibt|schrieb|meinte|dachte|flüsterte|"
    r"antwortete|murmelte)\b|"
    r"(?:dijo|dice|pensó|respondió|susurró|murmuró|escribió)\b|"
    r"(?:dit|répondit|pensa|murmura|pense|écrit)[- ](?:-?il|-?elle|l[ea])|"
    r"(?:他|她|它)(?:想|说|道|心想|写道))"
)
_REPEATS = (
    r"translat|rephras|paraphras|rewrit|reword|proofread|grammar|politely|repeat (?:after|the|this|exactly)|"
    r"complete the (?:sentence|dialog|conversation)|übersetz|formulier|korrigier|höflich|trad[uú]|amable|"
    r"reformul|corrig|poliment|"
    r"翻译|翻譯|译成|译为|改写|润色|复述|礼貌|\b(?:say|reply|respond|answer|write|output|antworte|sage?|"
    r"schreibe?|responde|di|"
    r"réponds|dis|écris|回复|回答|说)(?:s|ing)?(?: (?:with|only|exactly|that|just|mit|nur|con|solo|avec|"
    r"seulement))* ?[:：]? ?[\"'“‘«„「]"
)
_REFUSES = (
    r"\b(?:can(?:no|['’‘ʼ`´]?)t|can not|unable to|won['’‘ʼ`´]t|will not|not able|not possible|declin|refus|"
    r"kann (?:\w+ ){0,4}nicht|"
    r"geht nicht|no puedo|no es posible|(?:ne peux|peux|pas) p(?:as|ossible))|无法|不能|做不|帮不|办不"
)
_DECLINES = (
    r"\b(?:write|draft|compose|play|pretend|role-?play|schreib\w*|verfass\w*|escrib\w*|redacta\w*|écri\w*|rédige\w*)\b"
    r"[^.\n]{0,60}\b(?:apolog|excuse|declin|reject|refus|turn\w* down|entschuldig|absage|ablehn|disculpa|rechaz)|"
    r"(?:写|寫)[^。\n]{0,20}(?:道歉|拒绝|拒絕|婉拒)"
)
_WHAT_IS_SAID = r"\bwhat (?:does|did|would|do) .{0,60}\b(?:say|reply|answer)\b|\bquote\b"
_FENCE = re.compile(r"```|^\s*(?:step 1|schritt 1|paso 1|étape 1|第一步)\b", re.IGNORECASE | re.MULTILINE)
_HERE = re.compile(
    r"(?i)\b(?:here(?: is|'s|’s| are)|below (?:is|are)|hier (?:ist|sind)|"
    r"aquí (?:tienes|está|tiene)|voici)\b(?! (?:some|a few|einige|algun|quelques))|(?:以下是|下面是)"
)
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def refusal(batch: pa.RecordBatch, section: Section, services: Services) -> Verdicts:
    """Reject a completion that declines to answer. The reason quotes the sentence that declines."""
    spans = _spans(batch["completion.text"])
    wanted = _asked_for(contents(batch["prompt"].take(pa.array(list(spans), pa.int64())), "\n"))
    rejected = {}
    for (row, (span, sentence)), asked in zip(spans.items(), wanted, strict=True):
        if not asked:
            said = " ".join(sentence.split())
            quoted = said if len(said) <= _QUOTED else f"{said[:_QUOTED].rstrip()} …"
            rejected[row] = Rejection(f"declines: '{quoted}'", span=span)
    return Verdicts(rejected)


def refused(prompts: Sequence[str], completions: Sequence[str]) -> list[bool]:
    """For each completion, whether the check `refusal` finds that it declines its prompt."""
    spans = _spans(pa.array(completions, pa.string()))
    asked = _asked_for(pa.array([prompts[row] for row in spans], pa.string()))
    declined = {row for row, wanted in zip(spans, asked, strict=True) if not wanted}
    return [row in declined for row in range(len(completions))]


def _spans(texts: pa.Array) -> dict[int, tuple[Span, str]]:
    """The rows whose text declines. Each row comes with the position of the sentence that declines, and with this
    sentence.
    """
    spans = {}
    rows = np.flatnonzero(_likely(texts))
    for row, text in zip(rows.tolist(), texts.take(pa.array(rows)).to_pylist(), strict=True):
        span = declining(text)
        if span:
            spans[row] = (span, text[span["start"] : span["stop"]])
    return spans


def _likely(texts: pa.Array) -> npt.NDArray[np.bool_]:
    """Which texts may decline: they begin like a refusal, or have a clause that begins with "I" in one of the
    languages.
    """
    heads = pc.utf8_lower(pc.utf8_slice_codeunits(texts, 0, _WITHIN))
    likely = pc.or_(*(pc.match_substring_regex(heads, pattern=pattern) for pattern in (_STARTS, _CLAUSES)))
    return numbers(pc.fill_null(likely, False)).astype(bool)


def declining(text: str) -> Span | None:
    """The sentence of a completion that declines to answer; None if the completion is not a refusal."""
    thought = _THOUGHT.match(text)
    start = thought.end() if thought else 0
    opening = text[start : start + _READ]
    head = f" {opening[:_WITHIN].lower()}"
    head = head.replace("`", "'") if head.isascii() else head.translate(_APOSTROPHES)
    possible = LANGUAGES[:-1] if head.isascii() else LANGUAGES
    languages = [language for language in possible if _has(head, language.speaks) and _has(head, language.denies)]
    if not languages or _GREETING.match(opening):
        return None
    sentences = _SENTENCE.finditer(opening)
    for _ in range(_SENTENCES):
        found = next(sentences, None)
        if found is None or found.start() > _WITHIN or _SPEAKER.match(found.group()):
            return None
        sentence = simple(found.group())
        for language in (language for language in languages if _has(f" {sentence} ", language.denies)):
            where = _declined(sentence, language) or _declined_weakly(sentence, opening[found.end() :], language)
            if where is None:
                continue
            if _answers(sentence, where, opening[found.end() :], language):
                return None
            left = len(found.group()) - len(found.group().lstrip())
            return {"start": start + found.start() + left, "stop": start + found.start() + len(found.group().rstrip())}
        if not any(language.compiled["openers"].match(sentence) for language in languages):
            return None
    return None


def _has(text: str, words: tuple[str, ...]) -> bool:
    return any(map(text.__contains__, words))


def _declined(sentence: str, language: Language) -> tuple[int, int] | None:
    """The place in a sentence where its writer declines; None if the writer does not decline."""
    return _declining(sentence, language.found, language)


def _declined_weakly(sentence: str, after: str, language: Language) -> tuple[int, int] | None:
    """The place in a sentence where its writer declines anything. None unless this sentence or one of the two sentences
    after it sounds like an assistant.
    """
    where = _declining(sentence, language.compiled["weak"], language)
    if where is None or language.compiled["support"].search(sentence):
        return where
    following = [simple(found.group()) for found, _ in zip(_SENTENCE.finditer(after), range(2), strict=False)]
    return where if any(language.compiled["support"].search(other) for other in following) else None


def _declining(sentence: str, phrase: re.Pattern[str], language: Language) -> tuple[int, int] | None:
    """The place of `phrase` at the beginning of a sentence, if the writer says it about themselves."""
    phrases = language.compiled
    opens = phrases["openers"].match(sentence) or language.free_order
    if not (opens or phrase.match(sentence) or phrases["support"].search(sentence)):
        return None
    for found in phrase.finditer(sentence):
        before = sentence[: found.start()].strip(" ;:-–—")
        if any(mark in before for mark in '"“”„«「'):
            return None
        if not _begins(before, language) or phrases["idioms"].match(sentence[found.start() :]):
            continue
        return None if _SAYS.match(sentence[found.end() :]) else found.span()
    return None


def _begins(before: str, language: Language) -> bool:
    """Whether a sentence that declines may begin with the words `before`."""
    if not before or language.compiled["openers"].match(before):
        return True
    if language.free_order and len(before) < 60 and "," not in before and ":" not in before:
        return True
    clause = len(before) < 100 and before.endswith((",", " and", " und", " y", " et"))
    return clause and language.compiled["support"].search(before) is not None


def _answers(sentence: str, place: tuple[int, int], after: str, language: Language) -> bool:
    """Whether an answer follows the refusal at `place` of a sentence. `after` is the text after the sentence."""
    phrases = language.compiled
    main = sentence[place[1] :]
    contrast = phrases["contrast"].search(main)
    if contrast is None and phrases["although"].match(sentence):
        contrast = re.search(r"[,，]", main)
    if contrast and _size(main[contrast.end() :]) > 15 and not phrases["closing"].search(main[contrast.end() :]):
        return True
    if _HERE.search(after) or _FENCE.search(after):
        return True
    if phrases["everything"].match(sentence[place[0] :]):
        return False
    rest = [simple(found.group()) for found in _SENTENCE.finditer(after) if found.group().strip()]
    others = [other for other in rest if not phrases["closing"].search(other) and _declined(other, language) is None]
    if others and rest[0] is others[0] and phrases["contrast"].match(others[0]) and _size(others[0]) > 25:
        return True
    return sum(map(_size, others)) + max(len(after) - _READ, 0) >= _ANSWER


def _size(text: str) -> int:
    return len(text) + 2 * len(_WIDE.findall(text))


def _asked_for(texts: pa.Array) -> list[bool]:
    """For each prompt: whether a refusal may be the answer that it asks for. There are three kinds of such prompts: a
    prompt that holds a refusal and asks to translate, change or repeat it; a prompt that asks what somebody says; and a
    prompt that asks to write an apology or a rejection.
    """
    asked = _matches(texts, _WHAT_IS_SAID) | _matches(texts, _DECLINES)
    repeats = np.flatnonzero(_matches(texts, _REPEATS))
    if len(repeats):
        asked[repeats] |= _matches(texts.take(pa.array(repeats)), _REFUSES)
    return [bool(found) for found in asked]


def _matches(texts: pa.Array, pattern: str) -> npt.NDArray[np.bool_]:
    return numbers(pc.match_substring_regex(texts, pattern=pattern, ignore_case=True)).astype(bool)
