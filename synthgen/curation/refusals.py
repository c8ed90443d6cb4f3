"""The check `refusal`: completions that decline to do what was asked, in English, German, Spanish, French and Chinese.

A completion is a refusal if one of its first sentences declines, as in "I can't help with that", and no answer follows.
These are no refusals: a completion that declines one part and answers the rest, words that are quoted, a dialogue or a
letter in which somebody declines, and a completion whose prompt asked to translate or repeat a refusal.

Most texts are settled by one search of Arrow over the whole batch. The others are read sentence by sentence. Their
phrases are in `synthgen.curation.refusal_phrases`.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import numbers
from synthgen.curation.plain import contents
from synthgen.curation.refusal_phrases import LANGUAGES, Language, simple
from synthgen.curation.verdicts import Rejection, Verdicts
from synthgen.executor import Services
from synthgen.records import Span
from synthgen.tables.section import Section

_WITHIN = 300  # the sentence that declines begins within this many characters
_READ = 1500  # and this many characters are read to see whether an answer follows
_SENTENCES = 4  # the sentence that declines is one of this many first sentences
_ANSWER = 150  # an answer has this many characters at least; a Chinese character counts as three
_QUOTED = 80  # characters of the sentence that a reason quotes

# A text without any of these words has no phrase of `refusal_phrases`.
_LIKELY = (
    r"\b(?:can(?:no|['’ʼ`´]?)t|can not|could(?:n['’ʼ`´]t| not)|won['’ʼ`´]t|(?:will|would|should|must|may|am|['’ʼ`´]m|do|choose|prefer|"
    r"rather|is|['’ʼ`´]s|be|ain['’ʼ`´]t) (?:\w+ )?not|(?:do|should|would|is)n['’ʼ`´]t|ain['’ʼ`´]t|unable|inappropriate|unethical|irresponsible|declin|refus|incapable|"
    r"prohibit|lack|abstain|refrain|avoid|opt out|pass on|guidelines|polic(?:y|ies)|beyond|outside|against|violat|programm|"
    r"instructed not|talk about something else|change the|no |not |(?:as|am|['’ʼ`´]m) (?:an?|just|only|merely|simply|your)|being an?)"
    r"|\b(?:nicht|kein|ablehn|lehne|verweiger|weiger|verst|widerspr|unm|absehen|verzicht|übersteig|wechsel|ich|no|ni|negarme|rechaz|imposible|viola|contra|fuera|tema|"
    r"ne|je|pas|encontre|hors)\b"
)
_LIKELY_CHINESE = r"[\x{3400}-\x{9fff}]"
_SENTENCE = re.compile(r"[^.!?。！？\n]+(?:[.!?。！？]+[\"'”’»」)*_]*|\n|$)")
_THOUGHT = re.compile(r"\s*<(think|thinking|reasoning)>.*?</\1>", re.DOTALL)
_QUOTE = re.compile(r"[\s*_#>-]*[\"“”„«‹「『‘]")
_LETTER = re.compile(
    r"\s*(?:dear|subject|re|betreff|asunto|objet|sehr geehrte\w*|liebe[rs]?|estimad[oa]s?|querid[oa]s?|madame|monsieur|"
    r"chère?|cher|尊敬的|亲爱的|主题)\b",
    re.IGNORECASE,
)
_GREETING = re.compile(r"\s*(?:hi|hello|hey|hallo|hola|bonjour|salut|您好|你好)\b[^\n.!?]{0,40}[,!:，！：]?\n", re.IGNORECASE)
_SPEAKER = re.compile(r"\s*(?:[-*•+] |\d|[^\s:：]+(?: [^\s:：]+)?\s?[:：]\s?\S)")
_SAYS = re.compile(
    r"^.{0,60}?(?:[,\"”»“] ?|\b)(?:(?:he|she|they|the \w+|\w+) (?:said|says|replied|whispered|muttered|thought|complain(?:s|ed)|"
    r"wr(?:ote|ites)|told|sighed)|(?:sagte|sagt|schreibt|schrieb|meinte|dachte|flüsterte|antwortete|murmelte)\b|(?:dijo|dice|pensó|respondió|susurró|"
    r"murmuró|escribió)\b|(?:dit|répondit|pensa|murmura|pense|écrit)[- ](?:-?il|-?elle|l[ea])|(?:他|她|它)(?:想|说|道|心想|写道))"
)
_REPEATS = re.compile(
    r"translat|rephras|paraphras|rewrit|reword|proofread|grammar|correct (?:the|this)|repeat|repl(?:y|ies) with|respond with|"
    r"\bsay\b|answer with|output|complete the (?:sentence|dialog|conversation)|übersetz|formulier|korrigier|wiederhol|antworte|sage|schreibe den|"
    r"trad[uú]|politely|höflich|amable|poliment|礼貌|reformul|corrig|repit|répèt|responde|réponds|翻译|翻譯|译成|译为|改写|润色|重复|复述|回复|回答.{0,4}[“\"]|说"
)
_NEGATED = re.compile(
    r"\b(?:cannot|unable to|will not|not able|decline|kann (?:\w+ ){0,4}nicht|geht nicht|no puedo|no es posible|ne peux pas|pas possible)\b|无法|不能|做不|帮不|办不"
)
_FENCE = re.compile(r"```|^\s*(?:step 1|schritt 1|paso 1|étape 1|第一步)\b", re.IGNORECASE | re.MULTILINE)
_HERE = re.compile(
    r"\b(?:here(?: is|'s|’s| are)|below (?:is|are)|hier (?:ist|sind)|aquí (?:tienes|está|tiene)|voici)\b(?! (?:some|a few|einige|algun|quelques))|(?:以下是|下面是)"
)
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def refusal(batch: pa.RecordBatch, section: Section, services: Services) -> Verdicts:
    """Reject a completion that declines to answer. The reason quotes the sentence that declines."""
    texts = batch["completion.text"]
    likely = np.flatnonzero(_likely(texts))
    rejected = {}
    for row, text in zip(likely.tolist(), texts.take(pa.array(likely)).to_pylist(), strict=True):
        span = declining(text)
        if span and not _asked_for(_prompt(batch["prompt"], row)):
            said = " ".join(text[span["start"] : span["stop"]].split())
            quoted = said if len(said) <= _QUOTED else f"{said[:_QUOTED].rstrip()} …"
            rejected[row] = Rejection(f"declines: '{quoted}'", span=span)
    return Verdicts(rejected)


def _likely(texts: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which texts may have a phrase that declines."""
    starts = pc.utf8_slice_codeunits(texts, 0, _WITHIN)
    likely = pc.match_substring_regex(starts, pattern=_LIKELY, ignore_case=True)
    likely = pc.or_(likely, pc.match_substring_regex(starts, pattern=_LIKELY_CHINESE))
    likely = pc.or_(likely, pc.match_substring_regex(starts, pattern=r"^\s*<(?:think|reasoning)"))
    return np.asarray(numbers(pc.fill_null(likely, False)), bool)


def _prompt(prompts: pa.Array, row: int) -> str:
    return str(contents(prompts.slice(row, 1), "\n")[0].as_py() or "")


def declining(text: str) -> Span | None:
    """The sentence of a completion that declines to answer; None if the completion is no refusal."""
    thought = _THOUGHT.match(text)
    start = thought.end() if thought else 0
    opening = text[start : start + _READ]
    if any(pattern.match(opening) for pattern in (_QUOTE, _LETTER, _GREETING)):
        return None
    sentences = [found for found in _SENTENCE.finditer(opening) if found.group().strip()]
    for place, found in enumerate(sentences[:_SENTENCES]):
        sentence = simple(found.group())
        if found.start() > _WITHIN or _SPEAKER.match(found.group()):
            return None
        for language in LANGUAGES:
            rest = [simple(other.group()) for other in sentences[place + 1 :]]
            where = _declined(sentence, language) or _declined_weakly(sentence, rest, language)
            if where is None:
                continue
            if _answers(sentence, where, rest, opening[found.end() :], language):
                return None
            left = len(found.group()) - len(found.group().lstrip())
            return {"start": start + found.start() + left, "stop": start + found.start() + len(found.group().rstrip())}
        if not any(language.compiled["openers"].match(sentence) for language in LANGUAGES):
            return None
    return None


def _declined(sentence: str, language: Language) -> tuple[int, int] | None:
    """Where in a sentence its writer declines; None where the writer does not."""
    return _declining(sentence, language.found, language)


def _declined_weakly(sentence: str, rest: list[str], language: Language) -> tuple[int, int] | None:
    """Where in a sentence its writer declines something, whatever it is, if these sentences sound like an assistant's."""
    where = _declining(sentence, language.compiled["weak"], language)
    if where is None or not any(language.compiled["support"].search(part) for part in (sentence, *rest[:2])):
        return None
    return where


def _declining(sentence: str, phrase: re.Pattern[str], language: Language) -> tuple[int, int] | None:
    """Where `phrase` is found in a sentence whose writer says it of themselves, and at its beginning."""
    for found in phrase.finditer(sentence):
        before = sentence[: found.start()].strip(" ;:-–—")
        if any(mark in before for mark in '"“”„«「'):
            return None
        begins = not before or language.compiled["openers"].match(before)
        if not begins and language.free_order:
            begins = len(before) < 60 and "," not in before and ":" not in before.strip()
        if begins and not language.compiled["idioms"].match(sentence[found.start() :]):
            return None if _SAYS.match(sentence[found.end() :]) else found.span()
    return None


def _answers(sentence: str, place: tuple[int, int], rest: list[str], after: str, language: Language) -> bool:
    """Whether an answer follows the refusal at `place` of a sentence. `rest` are the other sentences in their simple
    form, and `after` is their text.
    """
    phrases = language.compiled
    main = sentence[place[1] :]
    contrast = phrases["contrast"].search(main)
    if contrast is None and phrases["although"].match(sentence):
        contrast = re.search(r"[,，]", main)
    if contrast and _size(main[contrast.end() :]) > 15 and not phrases["closing"].search(main[contrast.end() :]):
        return True
    if _HERE.search(after.lower()) or _FENCE.search(after):
        return True
    if phrases["everything"].match(sentence[place[0] :]):
        return False
    others = [other for other in rest if not phrases["closing"].search(other) and _declined(other, language) is None]
    if others and rest[0] is others[0] and phrases["contrast"].match(others[0]) and _size(others[0]) > 25:
        return True
    return sum(map(_size, others)) + max(len(after) - _READ, 0) >= _ANSWER


def _size(text: str) -> int:
    return len(text) + 2 * len(_WIDE.findall(text))


def _asked_for(prompt: str) -> bool:
    """Whether a prompt holds a refusal and asks to translate, change or repeat something."""
    plain = simple(prompt)
    if not _REPEATS.search(plain):
        return False
    return bool(_NEGATED.search(plain)) or any(language.found.search(plain) for language in LANGUAGES)
