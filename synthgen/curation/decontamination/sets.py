"""Reads the rows of evaluation sets: their ids, questions and answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from synthgen.datasets import open_dataset, records, source_of
from synthgen.datasets.rows import rows
from synthgen.errors import RecipeError, UserError, nearest, one_line
from synthgen.jsonl import not_utf8
from synthgen.recipe import SeedSource
from synthgen.records import Message
from synthgen.seeds import Row, Where
from synthgen.seeds.files import opened, suffixes
from synthgen.tables.curation_settings import EvaluationSet
from synthgen.tables.formats import DATASET_FORMATS
from synthgen.tables.reference import resolve
from synthgen.values import is_blank, text_of


@dataclass(frozen=True)
class Item:
    """One row of an evaluation set. The answer is empty if it is not known."""

    id: str
    question: str
    answer: str


def items_of(one: EvaluationSet) -> list[Item]:
    """Every row of an evaluation set. A row without an id is named by its place, such as "test.jsonl, line 3".

    Raises RecipeError when the set has no questions, or when the set or a row of it cannot be read. The message names
    the set.
    """
    try:
        found = list(_of_lines(one) if suffixes(Path(one.path).name)[0] == ".txt" else _of_rows(one))
    except UserError as error:
        raise RecipeError(one_line(f"evaluation set '{one.name}': {error.message}"), one_line(error.hint)) from None
    if not found:
        raise RecipeError(f"evaluation set '{one.name}': there are no questions in '{one.path}'", "check the path")
    return found


def _of_lines(one: EvaluationSet) -> Iterator[Item]:
    """The questions of a text file, one in each line that is not empty."""
    path = Path(one.path)
    if not path.is_file():
        raise RecipeError(f"'{path}' does not exist", "correct the path")
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise RecipeError(f"{path}, line {number}: {not_utf8(line, error)}", "correct the file") from None
            if not is_blank(text):
                yield Item(_place(one, Where(str(path), "line", number)), text.strip(), "")


def _of_rows(one: EvaluationSet) -> Iterator[Item]:
    source = source_of(Path(one.path), fields={"id": one.id} if one.id else None)
    if one.question:
        yield from _of_columns(one, source, one.question)
        return
    where, first, _ = next(rows(source), (None, {}, None))
    if where and not any(resolve(entry.recognize)(first) for entry in DATASET_FORMATS.values()):
        raise RecipeError(
            f"{where}: unknown format of rows; the columns are {', '.join(sorted(first)) or 'nothing'}",
            f"name the column of the questions: {{name: {one.name}, path: …, question: COLUMN}}",
        )
    dataset = open_dataset(source)
    has_ids = bool(one.id) or "id" in dataset.taken
    for place, record in records(dataset, one.name, None):
        asked = [message for message in record.prompt if message["role"] == "user"] or record.prompt
        answer = _text(record.completion)
        # a row of plain text has no prompt, so its whole text counts as a question
        item_id = record.id if has_ids else _named(one, place)
        yield Item(item_id, _text(asked), answer) if asked else Item(item_id, answer, "")


def _of_columns(one: EvaluationSet, source: SeedSource, question: str) -> Iterator[Item]:
    """The questions and answers in named columns."""
    for where, row, _ in rows(source):
        asked = _value(row, question, where)
        answer = _value(row, one.answer, where) if one.answer else ""
        own = _value(row, one.id, where) if one.id else ("" if is_blank(row.get("id")) else _value(row, "id", where))
        if asked or answer:
            yield Item(own or _place(one, where), asked, answer)


def _value(row: Row, column: str, where: Where) -> str:
    """The text of a row in a column, or '' if the row has none."""
    if column not in row:
        raise RecipeError(f"{where}: no column '{column}'{nearest(column, row)}", "correct the name of the column")
    try:
        return "" if is_blank(row[column]) else text_of(row[column])
    except ValueError as error:
        raise RecipeError(f"{where}: the column '{column}' holds {error}", "name a column of texts") from None


def _text(messages: list[Message]) -> str:
    return "\n".join(message.get("content") or "" for message in messages)


def _place(one: EvaluationSet, where: Where) -> str:
    return _named(one, str(where))


def _named(one: EvaluationSet, place: str) -> str:
    """A row's place without the folder of the evaluation set, so that the place is the same on every machine."""
    folder = Path(one.path) if Path(one.path).is_dir() else Path(one.path).parent
    return place.removeprefix(f"{folder}/")
