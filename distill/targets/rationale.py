"""Learning from rationales: before the answer, as a separate task, or not at all.

- `then_answer` (the default): the student learns the completion as the teacher wrote it, with the rationale first.
- `step_by_step` (arXiv 2305.02301): there are two tasks. In the first task, the student reads the prompt and writes the
  answer alone. In the second task, the student reads the prompt with `rationale.explain` before the last user message,
  and writes the rationale. The loss of each task is a mean over the tokens of the task, and the total loss is the
  weighted sum of both.
- `dropped`: the student learns the answer alone. The mode `dropped` is a control that shows the effect of the
  rationales.

The rationale is the text before `generate.answer_marker`. If the row has no stored distributions, and its completion
has the field `reasoning_content`, which servers of reasoning models send, the rationale is the text of this field.

The teacher's stored distributions are not valid for an answer without its rationale. Answers are therefore learned by
cross-entropy, from kept rows only. A rationale keeps its stored distributions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from distill.data import Answered, Example, Shape
from distill.output_layer import completion_states
from distill.targets.stored import FromStored, Rows, batch_loss, expand
from synthgen.lm.tokens import Tokens
from synthgen.logits import cut
from synthgen.recipe import RationaleSection, TrainSection
from synthgen.records import Message

LABEL, RATIONALE = "label", "rationale"
"""The tasks of a row: writing the answer, and writing the rationale."""


def shape(section: TrainSection, tokens: Tokens, marker: str | None) -> Shape | None:
    """Return the function that changes rows as the section says; None when rows are not changed.

    `marker` is the text before the answer.
    """
    rationale = section.rationale
    if rationale is None or rationale.mode == "then_answer":
        return None

    def answer(record: Answered, example: Example) -> Example | None:
        text = record.answer or (text_of(record) if reasoning_of(record) else None)
        if not text or not example.kept:
            return None
        return replace(example, completion=tokens.completion(text), target=None, task=LABEL)

    def both(record: Answered, example: Example) -> Example | None:
        label = answer(record, example)
        reasons = _reasons(record, example, tokens, marker)
        if not reasons.completion:
            return label
        prompt = tokens.render(explaining(record.prompt, rationale))
        also = () if label is None else (label,)
        return replace(reasons, prompt=prompt, task=RATIONALE, also=also)

    return answer if rationale.mode == "dropped" else both


def _reasons(record: Answered, example: Example, tokens: Tokens, marker: str | None) -> Example:
    """The example with the rationale alone as its completion, which is empty when there is no rationale."""
    reasoning = reasoning_of(record)
    if reasoning and example.target is None:
        return replace(example, completion=tokens.completion(reasoning))
    length = rationale_tokens(tokens, example.completion, marker)
    target = None if example.target is None else cut(example.target, length)
    return replace(example, completion=example.completion[:length], target=target)


def reasoning_of(record: Answered) -> str:
    """The reasoning that a server sent beside the answer; "" when there is none."""
    return "\n\n".join(filter(None, [message.get("reasoning_content") for message in record.completion]))


def text_of(record: Answered) -> str:
    """The text of the answer."""
    return "\n\n".join(filter(None, [message.get("content") for message in record.completion])).strip()


def explaining(prompt: Sequence[Message], rationale: RationaleSection) -> list[Message]:
    """Return the prompt that asks for the rationale. `rationale.explain` is put before the text of the last user
    message.
    """
    last = max(n for n, message in enumerate(prompt) if message["role"] == "user")
    return [
        {**message, "content": f"{rationale.explain}{message['content']}"} if n == last else message
        for n, message in enumerate(prompt)
    ]


def rationale_tokens(tokens: Tokens, completion: Sequence[int], marker: str | None) -> int:
    """Count the tokens of a completion before the last `marker`. Without a marker, count all tokens except the end
    token.
    """
    shown = [token for token in completion if token not in tokens.eos]
    text = tokens.decode(shown)
    if not marker or marker not in text:
        return len(shown)
    before = text.rpartition(marker)[0].rstrip()
    length = 0
    while length < len(shown):
        if len(tokens.decode(shown[: length + 1]).rstrip()) > len(before):
            break
        length += 1
    return length


class StepByStep(FromStored):
    """The loss of mode `step_by_step`: weight · loss of the answers + (1 − weight) · loss of the rationales.

    The loss of the answers is a mean over the tokens of all answers. The loss of the rationales is a mean over the
    tokens of all rationales.
    """

    def forward(self, rows: Sequence[Example], step: Sequence[Example]) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.forward`."""
        assert self.section.rationale is not None
        rows, step = expand(rows), expand(step)
        states_ND = completion_states(self.model, self.head, [e.prompt for e in rows], [e.completion for e in rows])
        pieces = dict(zip(map(id, rows), states_ND.split([len(e.completion) for e in rows]), strict=True))
        total = states_ND.sum() * 0
        parts = {"loss": 0.0, LABEL: 0.0, RATIONALE: 0.0}
        shares = {LABEL: self.section.rationale.weight, RATIONALE: 1 - self.section.rationale.weight}
        for task, share in shares.items():
            batch = Rows([e for e in rows if e.task == task], [e for e in step if e.task == task])
            if batch.rows:
                states = torch.cat([pieces[id(e)] for e in batch.rows])
                loss, _ = batch_loss(states, self.head, batch, self.section, None if task == LABEL else self.meta)
                total = total + share * loss
                parts[task] = float(loss.detach())
        parts["loss"] = float(total.detach())
        return total, parts
