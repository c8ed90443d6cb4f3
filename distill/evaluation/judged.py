"""Asks another model whether the student's answers are better than the teacher's recorded answers.

Judges often prefer one position, whatever the answers say (arXiv 2306.05685). Every pair is therefore judged twice,
with the answers swapped. An answer wins only if it is preferred in both positions. If neither answer is preferred in
both positions, the pair is a tie.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill.evaluation.subject import Subject
from distill.held_out import HeldOut
from distill.intervals import Array
from synthgen import durable
from synthgen.cards import environment
from synthgen.recipe import Recipe
from synthgen.records import Message, Sampling
from synthgen.requests import Request
from synthgen.results.measures import Measure
from synthgen.tables.engines import ASK_ONE
from synthgen.tables.reference import resolve
from synthgen.teachers.base import Reply
from synthgen.ui import UI

MEASURES = {
    "judge_win": Measure("judge prefers the student", "percent", False),
    "judge_tie": Measure("judge: tie", "percent"),
    "judge_loss": Measure("judge prefers the teacher", "percent", True),
    "position_bias": Measure("judge follows the position", "percent", about="detail"),
}

A, B, TIE = "A", "B", "tie"
_WORDS = {"a": A, "b": B, "tie": TIE, "answer a": A, "answer b": B}
_NAMED = re.compile(
    r"(?:(?:my|the|your|final|overall)\s)*(?:verdict|winner|choice|better answer|answer)(?:\sis:?|\s?[:=])\s?(.+)"
)

Ask = Callable[[Recipe, str, Sequence[Request], Path, UI], list[Reply]]


@dataclass(frozen=True)
class Verdicts:
    """The judge's choice for each of P pairs: `first` with the student's answer as A, and `second` with the student's
    answer as B. A choice is "A", "B", "tie", or None when none can be read from the reply.
    """

    judge: str
    first: list[str | None]
    second: list[str | None]

    def shares(self) -> dict[str, Array]:
        """For each measure, (P,): 1 for each pair that the measure counts, else 0. NaN where a choice is missing."""
        read = np.array([a is not None and b is not None for a, b in zip(self.first, self.second, strict=True)], bool)
        pairs = list(zip(self.first, self.second, strict=True))
        won = np.array([pair == (A, B) for pair in pairs], bool)
        lost = np.array([pair == (B, A) for pair in pairs], bool)
        found = {
            "judge_win": won,
            "judge_tie": ~won & ~lost,
            "judge_loss": lost,
            "position_bias": np.array([pair in ((A, A), (B, B)) for pair in pairs], bool),
        }
        return {name: np.where(read, values, np.nan) for name, values in found.items()}

    def notes(self) -> list[str]:
        """Notes on how the judge was asked."""
        shares = self.shares()["position_bias"]
        missing = int(np.isnan(shares).sum())
        text = (
            f"The judge {self.judge} saw each pair of answers twice, with the positions swapped. An answer wins only "
        )
        text += "if the judge prefers it both times."
        if missing < len(shares):
            text += f" In {np.nanmean(shares):.1%} of the pairs, the judge chose the same position both times."
        if missing:
            text += f" {missing:,} of {len(shares):,} pairs are left out, because a reply names no choice."
        return [text]


def judge(subject: Subject, rows: Sequence[HeldOut], texts: Sequence[str]) -> Verdicts | None:
    """Ask the judge of the recipe about the student's `texts` and the recorded answers of `rows`. None when the recipe
    names no judge. Raises BudgetReached and TeacherError.
    """
    name = subject.recipe.evaluate.judge
    if name is None:
        return None
    recorded = [str(row.completion[-1].get("content") or "") if row.completion else "" for row in rows]
    differ = [n for n, (own, theirs) in enumerate(zip(texts, recorded, strict=True)) if own.strip() != theirs.strip()]
    requests = [
        _request(subject.recipe, name, rows[n], a, b)
        for n in differ
        for a, b in ((texts[n], recorded[n]), (recorded[n], texts[n]))
    ]
    subject.ui.note(f"evaluate: {name} judges {len(differ)} pairs of answers, each in both orders")
    ask: Ask = resolve(ASK_ONE)
    # the ledger of a run is beside its generated rows; a student of a dataset has its own ledger
    replies = ask(subject.recipe, name, requests, subject.source.parent / "generated", subject.ui) if requests else []
    first: list[str | None] = [TIE] * len(rows)
    second: list[str | None] = [TIE] * len(rows)
    for place, n in enumerate(differ):
        first[n], second[n] = (None if r.failure else choice(r.text) for r in replies[2 * place : 2 * place + 2])
    return Verdicts(subject.recipe.teachers[name].model, first, second)


def _request(recipe: Recipe, name: str, row: HeldOut, a: str, b: str) -> Request:
    """The request to the judge about two answers to the prompt of a row."""
    text = (
        environment()
        .get_template("compare_answers.md.j2")
        .render(question=_question(row.prompt), reference=" or ".join(row.reference or ()), a=a, b=b)
    )
    messages: list[Message] = [{"role": "user", "content": text.strip()}]
    limit = recipe.steps.max_new_tokens
    sampling: Sampling = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": limit, "seed": 0, "sample_index": 0}
    identifier = durable.digest([name, messages, sampling])[:32]
    return Request("sample", messages, sampling, target=False, teacher=name, id=identifier)


def _question(prompt: Sequence[Message]) -> str:
    """The conversation that the answers continue, as text."""
    if len(prompt) == 1:
        return str(prompt[0].get("content") or "")
    return "\n\n".join(f"{message['role']}: {message.get('content') or ''}" for message in prompt)


def choice(text: str) -> str | None:
    """The choice in a judge's reply: "A", "B" or "tie". None when the reply names no choice, or several.

    A choice is read only from the first and the last line. The line must be the choice alone, or name it as in
    "Verdict: B". Sentences that mention both answers are not read.
    """
    text = text.rpartition("</think>")[2]
    lines = [line for line in map(_plain, text.splitlines()) if line]
    found = set()
    for line in {*lines[:1], *lines[-1:]}:
        named = _NAMED.fullmatch(line)
        found.add(_WORDS.get(named[1] if named else line))
    found.discard(None)
    return found.pop() if len(found) == 1 else None


def _plain(line: str) -> str:
    """A line in lower case, without Markdown, brackets, quotation marks and the final stop, and with single spaces."""
    return " ".join(re.sub(r"[*_`#\"'“”()]|\[\[?|\]\]?", "", line).casefold().split()).removesuffix(".")
