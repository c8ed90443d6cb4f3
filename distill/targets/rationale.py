"""How rationales teach: before the answer, as a task of their own, or not at all.

- `then_answer`: the completion as the teacher wrote it, rationale first. What a recipe does that says nothing.
- `step_by_step` (arXiv 2305.02301): two tasks. The prompt is answered with the answer alone; the prompt with a word
  before it, with the rationale. Each loss is a mean over its own tokens, weighted and added.
- `dropped`: the answer alone. The control: what the rationales were worth.

An answer without its rationale is no completion that the teacher's stored distributions belong to, so answers teach by
cross-entropy, from rows that curation kept; a rationale keeps its stored distributions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from distill.data import Example
from distill.output_layer import completion_states
from distill.targets.stored import FromShards, batch_loss
from synthgen.lm.sampling import cut
from synthgen.recipe import RationaleSection, TrainSection
from synthgen.records import Message, Record
from synthgen.teachers.transformers import LocalModel

Shape = Callable[[Record, Example], Example | None]


def shape(section: TrainSection, teacher: LocalModel, marker: str | None) -> Shape | None:
    """What a row becomes before it teaches: None leaves it out. None when rows teach as they are."""
    rationale = section.rationale
    if rationale is None or rationale.mode == "then_answer":
        return None
    end = teacher.tokenizer.eos_token_id

    def answer(record: Record, example: Example) -> Example | None:
        if not record.answer or not example.kept:
            return None
        ids = teacher.tokenizer(record.answer, add_special_tokens=False)["input_ids"]
        return replace(example, completion=[*ids, end], target=None, task="label")

    def both(record: Record, example: Example) -> Example | None:
        label = answer(record, example)
        length = rationale_tokens(teacher, example.completion, marker)
        if length == 0:
            return label
        asked = teacher.render(explaining(record.prompt, rationale))
        target = None if example.target is None else cut(example.target, length)
        also = () if label is None else (label,)
        told = replace(example, prompt=asked, completion=example.completion[:length], target=target, task="rationale")
        return replace(told, also=also)

    return answer if rationale.mode == "dropped" else both


def explaining(prompt: Sequence[Message], rationale: RationaleSection) -> list[Message]:
    """The prompt that asks for the rationale: the word before the last user message."""
    last = max(n for n, message in enumerate(prompt) if message["role"] == "user")
    return [
        {**message, "content": f"{rationale.explain}{message['content']}"} if n == last else message
        for n, message in enumerate(prompt)
    ]


def rationale_tokens(teacher: LocalModel, completion: Sequence[int], marker: str | None) -> int:
    """How many of a completion's tokens are before the last `marker` (all but the end token without one)."""
    spoken = [token for token in completion if token not in teacher.eos]
    text = teacher.tokenizer.decode(spoken, skip_special_tokens=True)
    if not marker or marker not in text:
        return len(spoken)
    before = text.rpartition(marker)[0].rstrip()
    length = 0
    while length < len(spoken):
        if len(teacher.tokenizer.decode(spoken[: length + 1], skip_special_tokens=True).rstrip()) > len(before):
            break
        length += 1
    return length


class StepByStep(FromShards):
    """`weight` · loss of the answers + (1 − `weight`) · loss of the rationales, each a mean over its own tokens."""

    def forward(self, rows: Sequence[Example], step: Sequence[Example]) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.forward`."""
        assert self.section.rationale is not None
        rows, step = expand(rows), expand(step)
        states_ND = completion_states(self.model, self.head, [e.prompt for e in rows], [e.completion for e in rows])
        pieces = dict(zip(map(id, rows), states_ND.split([len(e.completion) for e in rows]), strict=True))
        total: Any = states_ND.sum() * 0
        parts = {"loss": 0.0, "label": 0.0, "rationale": 0.0}
        shares = {"label": self.section.rationale.weight, "rationale": 1 - self.section.rationale.weight}
        for task, share in shares.items():
            mine, whole = ([e for e in some if e.task == task] for some in (rows, step))
            if mine:
                alone = self.labels_alone or task == "label"
                states = torch.cat([pieces[id(e)] for e in mine])
                loss, _ = batch_loss(states, self.head, mine, self.meta, self.section, alone, whole)
                total = total + share * loss
                parts[task] = float(loss.detach())
        parts["loss"] = float(total.detach())
        return total, parts

    def tokens(self, rows: Sequence[Example]) -> int:
        """Of both tasks."""
        return super().tokens(expand(rows))


def expand(rows: Sequence[Example]) -> list[Example]:
    """Each row and what it teaches besides."""
    return [example for row in rows for example in (row, *row.also)]
