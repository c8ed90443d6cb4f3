"""Finds the place where a completion continues with an invented turn: another question, or a mark of a chat template.

    The Loire.\\n\\nUser: And in Spain?          a line with the name of a speaker or of a question
    The Loire.<|im_end|>\\n<|im_start|>user     a mark with which a chat template ends a turn
    positive\\n\\nReview: It broke.              a name with which a line of the prompt begins, if the prompt ends with
                                               such a name too, as in "Sentiment:"

Turns in blocks of code do not count. If the prompt asks for a dialogue or a quiz, its speakers or questions do not
count. A turn at the very beginning of a completion does not count either.
"""

from __future__ import annotations

import re

_NAMES = (
    r"Q|[Qq]uestion|QUESTION|User|USER|[Hh]uman|HUMAN|Assistant|ASSISTANT|Instruction|Frage|Nutzer|Benutzer|Anweisung|"
    r"Pregunta|Usuario|Utilisateur|Utilisatrice|Pergunta|Usuário|Domanda|Utente|Вопрос|Пользователь|问|提问|用户|問|提問|"
    r"用戶|質問|ユーザー|질문|사용자"
)
_LINE = (
    rf"\n\s*(?:(?:\*\*|__)?(?:{_NAMES})\s*\d*\s*(?:\*\*|__)?\s*[:：]|Q\d*\)|"
    r"#{2,4} *(?:(?:Instruction|Question|User|Human)\b|Input *:))"
)
MARK = (
    r"<\|(?:im_end|im_start|eot_id|eom_id|end_of_text|endoftext|start_header_id|end|user|assistant|system)\|>|"
    r"<(?:start|end)_of_turn>|<｜end▁of▁sentence｜>|<｜User｜>|\[/?INST\]"
)
"""The marks of chat templates. Arrow also reads this expression, so it must be valid in RE2."""
_END = r"</s>\s*(?:<s>|\[INST\]|\z)"  # in other places, `</s>` may be an HTML tag
_LABEL = r"[^\W\d_][\w ]{0,24}[:：]"

LIKELY = f"{_LINE}|{MARK}|{_END}"
"""An expression for Arrow that matches every completion in which `begins` may find a turn if the prompt does not end
with a name.
"""
LABELLED = r"\n[ \t]*\pL[\pL\pM\pN_ ]{0,24}[:：]"
"""Like `LIKELY`, but for completions whose prompt ends with a name, as in "Sentiment:"."""
ENDS_WITH_LABEL = r"[:：]\s*\z"
"""An expression for Arrow that matches every prompt which ends with a name."""

_SPEAKER = re.compile(rf"(?:{_LINE})(?!\d)")  # "Q:1/4" is music in ABC notation
_SPECIAL = re.compile(rf"(?P<mark>{MARK})|{_END}".replace(r"\z", r"\Z"))
_LABELS = re.compile(rf"(?:^|\n)[ \t]*({_LABEL})")
_LAST_LABEL = re.compile(rf"(?:^|\n)[ \t]*{_LABEL}\s*\Z")
_ABOUT_MARKS = re.compile(r"<\||\[/?INST|</?s>|_of_turn|special token|chat template|prompt (?:template|format)", re.I)
_ASKS = re.compile(
    r"\b(?:write|create|generate|make|compose|draft|give|produce|simulate|imagine|continue|role-?play|invent|prepare|"
    r"design|list|complete)\b[^.\n]{0,80}?\b(?:dialog(?:ue)?s?|conversations?|faqs?|q ?& ?as?|interviews?|chats?|"
    r"transcripts?|scripts?|scenes?|quiz(?:zes)?|questions|exams?|role-?plays?)\b|"
    r"\b(?:schreib|erstell|verfass|erfind|entwirf|formulier|nenn|mach)\w*\b[^.\n]{0,80}?(?:dialog|gespräch|interview|"
    r"quiz|fragen\b|faq)|"
    r"\b(?:escrib|crea|redact|gener|invent|haz)\w*\b[^.\n]{0,80}?\b(?:diálogo|conversaci|entrevista|preguntas|"
    r"cuestionario|faq)|"
    r"\b(?:écri|cré|rédig|génèr|invent|fai)\w*\b[^.\n]{0,80}?\b(?:dialogue|conversation|entretien|interview|questions|"
    r"quiz|faq)|"
    r"(?:写|寫|编|編|创作|創作|生成|列出|设计|設計|模拟|模擬)[^。\n]{0,30}(?:对话|對話|问答|問答|采访|採訪|问题|問題)",
    re.IGNORECASE,
)


def begins(text: str, prompt: str) -> int:
    """The place in a completion where an invented turn begins. The length of the text if the completion has no invented
    turn.

    `prompt` is the text of the prompt's last message.
    """
    start = len(text) - len(text.lstrip())
    places = [len(text)]
    speaker = _first(_SPEAKER, text, start)
    if not (_ASKS.search(prompt) or text[:speaker].rstrip().endswith((":", "："))):  # "Here is a dialogue:"
        places.append(speaker)
    if not _ABOUT_MARKS.search(prompt):
        places.append(_mark(text, start))
    if _LAST_LABEL.search(prompt):
        places.append(_example(text, start, prompt))
    return min(places)


def is_turn(text: str) -> bool:
    """Whether the first line of a text is itself a turn, such as "Question 1: …"."""
    return _SPEAKER.match(f"\n{text}") is not None


def _first(pattern: re.Pattern[str], text: str, start: int) -> int:
    """The first place outside of blocks of code where the pattern matches."""
    found = (each.start() for each in pattern.finditer(text, start))
    return next((place for place in found if not _in_code(text, place)), len(text))


def _in_code(text: str, place: int) -> bool:
    """Whether a place is in a block of code, or in code within a line. A block that is never closed does not count."""
    if text.count("```", 0, place) % 2 and "```" in text[place:]:
        return True
    line = text[text.rfind("\n", 0, place) + 1 : place]
    return line.count("`") % 2 == 1 and not line.lstrip().startswith("```")


def _mark(text: str, start: int) -> int:
    for found in _SPECIAL.finditer(text, start):
        struck = found["mark"] is None and "<s>" in text[: found.start()]
        if not struck and not _in_code(text, found.start()):
            return found.start()
    return len(text)


def _example(text: str, start: int, prompt: str) -> int:
    """The place where a further example begins, after the example that the prompt left open."""
    labels = {label.casefold() for label in _LABELS.findall(prompt)}
    lines = [found for found in _LABELS.finditer(text, start) if found[1].casefold() in labels]
    if len(labels) < 2 or not lines or lines[0].start() == start:
        return len(text)
    return min(found.start() for found in lines)
