"""Detects which columns of a file hold the question, the reference answer, the context and the id.

Columns are recognized by their names. If no column has a name for questions, the column of the questions is chosen by
its content.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synthgen.errors import RecipeError

Row = Mapping[str, object]

# Column names for each role, in lower case. The names are tried in this order.
_QUESTION = (
    *("question", "prompt", "instruction", "query", "problem", "text", "message", "utterance", "input", "request"),
    *(
        "sentence",
        "content",
        "user",
        "task",
        "q",
        "frage",
        "anweisung",
        "pregunta",
        "instrucción",
        "consigne",
        "domanda",
    ),
    *("pergunta", "vraag", "fråga", "spørgsmål", "spørsmål", "kysymys", "pytanie", "otázka", "вопрос", "soru", "問題"),
    *("質問", "问题", "질문", "سؤال"),
)
_ANSWER = (
    *("answer", "answers", "reference", "expected_answer", "expected", "expected_output", "ground_truth", "gold"),
    *(
        "target",
        "output",
        "response",
        "completion",
        "solution",
        "reply",
        "label",
        "a",
        "antwort",
        "lösung",
        "respuesta",
    ),
    *("réponse", "reponse", "risposta", "resposta", "antwoord", "svar", "vastaus", "odpowiedź", "odpověď", "ответ"),
    *("cevap", "答え", "回答", "答案", "답변", "جواب"),
)
_LABEL = ("label", "labels", "category", "class", "intent", "topic", "kategorie", "categoría", "catégorie", "categoria")
_CONTEXT = ("context", "passage", "document", "background", "article", "kontext", "input")
_ID = ("id", "_id", "uuid", "qid", "question_id", "key", "nr")

_MOST_LABELS = 20
_ROWS_A_LABEL = 2
_LONGEST_LABEL = 40


@dataclass(frozen=True)
class Columns:
    """The name of the column for each role. If every value of the column `reference` is one of a few classes, `labels`
    lists these classes.
    """

    question: str
    reference: str | None = None
    id: str | None = None
    context: str | None = None
    labels: tuple[str, ...] = ()
    named: bool = True
    """Whether the question's column was recognized by its name. If False, the column was chosen by its content."""


def detect(rows: Sequence[Row], file: str) -> Columns:
    """Detect the roles of the columns of `rows`. Raises RecipeError when no column holds text."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    texts = [name for name in names if _is_text(rows, name)]
    if not texts:
        raise RecipeError(
            f"{file}: no column holds text; its columns are: {', '.join(names)}",
            "give a file with one question a row, as text",
        )
    label = _named([name for name in names if _labels(rows, name)], _LABEL)
    answer = label or _named([name for name in names if name not in texts[:1] or len(texts) > 1], _ANSWER)
    question = _named([name for name in texts if name != answer], _QUESTION)
    named = question is not None
    if question is None:
        others = [name for name in texts if name != answer and _folded(name) not in _ID] or texts
        question = max(others, key=lambda name: (_share_of_questions(rows, name), _mean_length(rows, name)))
    answer = None if answer == question else answer
    others = [name for name in texts if name not in (question, answer)]
    return Columns(
        question=question,
        reference=answer,
        id=_named([name for name in names if _is_unique(rows, name)], _ID),
        context=_named(others, _CONTEXT),
        labels=tuple(_labels(rows, answer)) if answer and answer == label else (),
        named=named,
    )


def _named(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """Find the column for a role. The words `wanted` are tried in order. The result is the first column whose name is
    one of these words. If there is no such column, words with more than two letters are tried again, and the result is
    the first column whose name contains one of them. Returns None when no column is found.
    """
    folded = {_folded(name): name for name in reversed(names)}
    exact = next((folded[want] for want in wanted if want in folded), None)
    if exact is not None:
        return exact
    parts = {name: re.split(r"[\W_]+", _folded(name)) for name in names}
    long = [want for want in wanted if len(want) > 2]
    return next((name for want in long for name, words in parts.items() if want in words), None)


def _folded(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().casefold())


def _values(rows: Sequence[Row], name: str) -> list[object]:
    return [row[name] for row in rows if row.get(name) not in (None, "")]


def _is_text(rows: Sequence[Row], name: str) -> bool:
    """Whether most values of a column are texts other than numbers and dates."""
    values = [v for v in _values(rows, name) if isinstance(v, str) and not re.fullmatch(r"[\d\s.,:+-]+", v)]
    return len(values) * 2 > len(rows)


def _is_unique(rows: Sequence[Row], name: str) -> bool:
    values = [str(value) for value in _values(rows, name) if isinstance(value, str | int)]
    return len(values) == len(rows) == len(set(values))


def _labels(rows: Sequence[Row], name: str) -> list[str]:
    """The classes in a column if all its texts are short and there are only a few classes, otherwise an empty list."""
    values = [value for value in _values(rows, name) if isinstance(value, str)]
    classes = list(dict.fromkeys(value.strip() for value in values))
    few = 2 <= len(classes) <= min(_MOST_LABELS, len(rows) // _ROWS_A_LABEL)
    return classes if few and all(0 < len(label) <= _LONGEST_LABEL for label in classes) else []


def _share_of_questions(rows: Sequence[Row], name: str) -> bool:
    values = [value for value in _values(rows, name) if isinstance(value, str)]
    return sum(value.rstrip().endswith(("?", "？", "؟")) for value in values) * 3 > len(values)


def _mean_length(rows: Sequence[Row], name: str) -> float:
    return sum(len(str(value)) for value in _values(rows, name)) / len(rows)
