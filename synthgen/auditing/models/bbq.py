"""Reads BBQ: questions about two people of different groups. A stereotype is about one of these groups.

An ambiguous context does not answer the question, so only "unknown" is right. A disambiguated context answers the
question. Each context has two questions. The stereotype answers the negative question with its own group, and the
non-negative question with the other group. Source: "BBQ: A Hand-Built Bias Benchmark for Question Answering" (Parrish
et al., 2022).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path

from synthgen.auditing.models.files import lines, refuse
from synthgen.jsonl import read_object

OPTIONS = ("ans0", "ans1", "ans2")


@dataclass(frozen=True)
class Question:
    """One item of BBQ. `right` is the index of the right option, and `unknown` is the index of the option that means
    "unknown". `biased` is the index of the option that the stereotype gives, or None when the file does not say which
    group the stereotype is about. `block` is the number of the context: items with the same people in the same place
    have the same number.
    """

    category: str
    template: str
    block: int
    ambiguous: bool
    context: str
    question: str
    options: tuple[str, ...]
    right: int
    unknown: int
    biased: int | None

    @property
    def follows_stereotype(self) -> bool:
        """Whether the right option is the option that the stereotype gives."""
        return self.right == self.biased


def read_bbq(path: Path) -> list[Question]:
    """Read a file of BBQ: JSONL with the keys of the authors' repository. Raises UserError, with the number of the
    line, when a line has another form.
    """
    found: list[Question] = []
    block, begin = 0, ""
    for number, line in lines(path):
        try:
            question = _question(read_object(line.encode()))
        except ValueError as error:
            refuse(path, number, str(error))
        if found and question.template == found[-1].template and question.context.startswith(begin):
            found.append(replace(question, block=block))
            continue
        block, begin = block + 1, question.context
        found.append(replace(question, block=block))
    return found


def _question(row: Mapping[str, object]) -> Question:
    """The question in one row. Raises ValueError."""
    options = tuple(_text(row, key) for key in OPTIONS)
    groups = _groups(row)
    if groups.count("unknown") != 1:
        raise ValueError("not exactly one option of the group 'unknown'")
    unknown, right = groups.index("unknown"), row.get("label")
    if type(right) is not int or right not in (0, 1, 2):
        raise ValueError("'label' is not 0, 1 or 2")
    polarity, condition = _text(row, "question_polarity"), _text(row, "context_condition")
    if polarity not in ("neg", "nonneg") or condition not in ("ambig", "disambig"):
        raise ValueError("'question_polarity' is not neg or nonneg, or 'context_condition' not ambig or disambig")
    if (right == unknown) != (condition == "ambig"):
        raise ValueError("the right answer is unknown in a disambiguated context, or known in an ambiguous context")
    target = _target(row, groups)
    named = [place for place in range(3) if place != unknown]
    other = next((place for place in named if place != target), None)
    return Question(
        category=_text(row, "category"),
        template=str(row.get("question_index") or _missing("question_index")),
        block=0,
        ambiguous=condition == "ambig",
        context=_text(row, "context"),
        question=_text(row, "question"),
        options=options,
        right=right,
        unknown=unknown,
        biased=None if target is None else target if polarity == "neg" else other,
    )


def _target(row: Mapping[str, object], groups: Sequence[str]) -> int | None:
    """The index of the option whose group the stereotype is about: the only option whose group is in
    `stereotyped_groups`. None when there is no such option, or when there are two.
    """
    about = row.get("additional_metadata")
    names = about.get("stereotyped_groups") if isinstance(about, dict) else None
    if not isinstance(names, list):
        raise ValueError("'additional_metadata' has no list 'stereotyped_groups'")
    stereotyped = {str(name).lower() for name in names}
    places = [place for place, group in enumerate(groups) if group != "unknown" and group.lower() in stereotyped]
    return places[0] if len(places) == 1 else None


def _groups(row: Mapping[str, object]) -> list[str]:
    """The group of each option: the last entry of its list in `answer_info`."""
    info = row.get("answer_info")
    entries = [info.get(key) for key in OPTIONS] if isinstance(info, dict) else []
    if not entries or not all(isinstance(one, list) and one and isinstance(one[-1], str) for one in entries):
        raise ValueError("'answer_info' does not give the group of each option")
    return [str(one[-1]) for one in entries if isinstance(one, list)]


def _text(row: Mapping[str, object], key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) and value.strip() else _missing(key)


def _missing(key: str) -> str:
    raise ValueError(f"'{key}' is missing or empty")


def sample(questions: Sequence[Question], items: int | None, seed: int) -> list[Question]:
    """About `items` questions of one category, drawn evenly from its templates. All questions if `items` is None.

    Whole blocks are drawn: a context with both of its questions, ambiguous and disambiguated. Two kinds of blocks take
    turns: blocks whose right answers follow the stereotype, and blocks whose right answers do not. A model that always
    answers correctly has no bias only if both kinds of blocks are equally frequent. The questions keep the order of the
    file.
    """
    if items is None or items >= len(questions):
        return list(questions)
    blocks: dict[int, list[Question]] = defaultdict(list)
    for question in questions:
        blocks[question.block].append(question)
    templates: dict[str, list[int]] = defaultdict(list)
    for block, inside in blocks.items():
        templates[inside[0].template].append(block)
    draw = random.Random(seed)
    queues = [
        _alternating(templates[name], blocks, draw, first=turn % 2 == 0) for turn, name in enumerate(sorted(templates))
    ]
    chosen: set[int] = set()
    count = 0
    for block in filter(None, chain(*zip_longest(*queues))):
        if count < items:
            chosen.add(block)
            count += len(blocks[block])
    return [question for question in questions if question.block in chosen]


def _alternating(
    names: Sequence[int], blocks: Mapping[int, Sequence[Question]], draw: random.Random, *, first: bool
) -> list[int]:
    """The blocks of a template in random order. Two kinds of blocks take turns: blocks whose right answers follow the
    stereotype, and blocks whose right answers do not. If `first` is true, the order begins with a block of the first
    kind.
    """
    shuffled = draw.sample(list(names), len(names))
    follows = {name: any(one.follows_stereotype for one in blocks[name]) for name in names}
    sides = ([name for name in shuffled if follows[name] is side] for side in (first, not first))
    return [name for both in zip_longest(*sides) for name in both if name is not None]
