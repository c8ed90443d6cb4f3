"""Objectives with a live teacher. The teacher scores the corpus's texts or the student's texts, or is trained with the
student.

    fit(OnPolicy(model, teacher, section, steps), batch_of, section, steps, checkpoints, bar, accelerator=…)

The teacher's whole distribution is available, so every divergence of `distill.losses` is defined, including mse.
`OnPolicy` is GKD (arXiv 2306.13649, algorithm 1). No gradient flows through the sampling of tokens. `Mutual` is deep
mutual learning (arXiv 1706.00384). Here one optimizer step updates both models, while the paper updates them in turns.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distill import losses, processes
from distill.data import Choice, Example
from distill.output_layer import Head, completion_states, logits_of, output_head
from distill.streaming.columns import TEACHER_PROMPT
from distill.streaming.conversations import reader_of
from distill.streaming.mapped import Mapped, outline_of
from distill.streaming.stream import open_stream
from distill.streaming.tokencache import Row
from distill.targets.stored import FromCompletions, Rows, TargetOf, batch_loss
from distill.tokenizer import written_with
from synthgen import corpus
from synthgen.errors import CorpusError
from synthgen.lm.model import LanguageModel
from synthgen.lm.tokens import Tokens
from synthgen.logits import LogitsMeta
from synthgen.recipe import OnlineSection, TrainSection


@dataclass(frozen=True, kw_only=True)
class Text(Example):
    """A row without a stored distribution.

    The teacher reads the completion after `teacher_prompt`, or after `prompt` when `teacher_prompt` is empty. `written`
    says that the student wrote the completion. A completion of the student has no cross-entropy loss, and `ended` says
    whether it has an end token.
    """

    written: bool = False
    ended: bool = False


class LiveTeacher(FromCompletions[Text]):
    """The loss of a causal language model against a frozen teacher, which computes its distributions in each step."""

    def __init__(self, model: PreTrainedModel, teacher: LanguageModel, section: TrainSection) -> None:
        super().__init__()
        assert section.online is not None
        self.model, self.section, self.online = model, section, section.online
        self.meta: LogitsMeta = {
            "kind": "dense",
            "temperature": section.online.loss_temperature,
            "vocab_size": teacher.weights.vocab_size,
        }
        frozen = teacher.weights.model
        self.frozen = (frozen, output_head(frozen))
        self.head = output_head(model)

    def forward(self, rows: Sequence[Text], step: Sequence[Text]) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.forward` and `batch_loss`."""
        teacher, head = self.frozen
        with torch.no_grad(), torch.autocast(teacher.device.type, enabled=False):
            teacher_ND = _states_after_teacher_prompt(teacher, head, rows)
        states_ND = _states(self.model, self.head, rows)
        live = _targets_of(teacher_ND, head)
        return batch_loss(states_ND, self.head, Rows(rows, step), self.section, self.meta, live)


class OnPolicy(LiveTeacher):
    """The loss of `LiveTeacher`. In some steps, this loss is computed on completions that the student writes.

    The expected loss is λ · E_student[D] + (1 − λ) · E_corpus[D], where D is the divergence. Whether the student writes
    in a step is drawn from (seed, step). The student's tokens are drawn from (seed, step, row). A completion ends at
    one of the teacher's end tokens.
    """

    def __init__(self, model: PreTrainedModel, teacher: LanguageModel, section: TrainSection, steps: int) -> None:
        super().__init__(model, teacher, section)
        self.writer = LanguageModel.of(model, teacher.tokens, teacher.batch_size)
        self.steps = steps
        self.buffer: list[Text] = []

    def begin(self, step: int, rows: list[Text]) -> list[Text]:
        """Return the step's rows, or rows whose completions the student wrote.

        The student writes completions for the rows of one step. These completions are used in this step and the next
        `online.reuse` − 1 steps. With several processes, each process writes the completions of its own rows, and gets
        the completions that the other processes wrote.
        """
        if step % self.online.reuse == 0:
            coin = np.random.Generator(np.random.Philox(key=int(key(self.section.seed, step), 16))).random()
            self.buffer = self._write(step, rows) if coin < share(self.online, step, self.steps) else []
        return self.buffer or rows

    def _write(self, step: int, rows: list[Text]) -> list[Text]:
        own = range(processes.rank(), len(rows), processes.count())
        written = list(rows)
        for number, found in enumerate(processes.gathered(self._write_own(step, [(n, rows[n]) for n in own]))):
            written[number :: processes.count()] = found
        return written

    def _write_own(self, step: int, rows: Sequence[tuple[int, Text]]) -> list[Text]:
        """The rows of `rows` with completions that the student writes. Each row comes with its number in the step."""
        if not rows:
            return []
        training = self.model.training
        self.model.eval()
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.section.dtype == "bfloat16"):
            replies = self.writer.complete(
                [row.prompt for _, row in rows],
                [key(self.section.seed, step, number) for number, _ in rows],
                self.online.temperature,
                self.online.max_new_tokens,
            )
        self.model.train(training)
        return [
            replace(row, completion=reply.tokens, kept=False, written=True, ended=reply.ended)
            for (_, row), reply in zip(rows, replies, strict=True)
        ]

    def forward(self, rows: Sequence[Text], step: Sequence[Text]) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.forward`. For completions that the student wrote, the returned dictionary has three further
        entries.

        `length` is the mean number of tokens, including the end token. `ended` is the share of completions that have an
        end token. `empty` is the share of completions whose first token is an end token.
        """
        loss, parts = super().forward(rows, step)
        if step[0].written:
            ended = [row.ended for row in rows]
            parts |= {
                "length": sum(len(row.completion) for row in rows) / len(step),
                "ended": sum(ended) / len(step),
                "empty": sum(row.ended and len(row.completion) == 1 for row in rows) / len(step),
            }
        return loss, parts

    def state(self) -> object:
        """The rows that the student wrote and that later steps will use."""
        return [asdict(row) for row in self.buffer]

    def restore(self, state: object) -> None:
        """See `Objective.restore`."""
        assert isinstance(state, list)
        self.buffer = [Text(**{**row, "also": (), "parts": ()}) for row in state]


class Mutual(LiveTeacher):
    """A loss with which student and teacher learn from each other and from the corpus.

    The student's loss is that of `LiveTeacher`. The teacher's loss is the same loss with student and teacher exchanged,
    and with `teacher_kd_weight` in place of `kd_weight`. The gradient of one loss does not reach the other model. The
    gradients of both models are clipped together.
    """

    def __init__(self, model: PreTrainedModel, teacher: LanguageModel, section: TrainSection) -> None:
        super().__init__(model, teacher, section)
        self.teacher = copy.deepcopy(teacher.weights.model).float().requires_grad_()
        self.teacher_head = output_head(self.teacher)
        self.frozen = (None, None)
        self.teacher_section = section.model_copy(update={"kd_weight": self.online.teacher_kd_weight})

    def forward(self, rows: Sequence[Text], step: Sequence[Text]) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.forward`. The loss is the sum of both losses. The terms of the teacher's loss have names that
        begin with `teacher_`.
        """
        student_ND = _states(self.model, self.head, rows)
        teacher_ND = _states_after_teacher_prompt(self.teacher, self.teacher_head, rows)
        batch = Rows(rows, step)
        live = _targets_of(teacher_ND, self.teacher_head)
        loss, parts = batch_loss(student_ND, self.head, batch, self.section, self.meta, live)
        live = _targets_of(student_ND, self.head)
        other, values = batch_loss(teacher_ND, self.teacher_head, batch, self.teacher_section, self.meta, live)
        parts |= {f"teacher_{name}": value for name, value in values.items()}
        return loss + other, {**parts, "loss": parts["loss"] + values["loss"], "student_loss": parts["loss"]}

    def beside(self) -> dict[str, nn.Module]:
        """The trained teacher."""
        return {"teacher": self.teacher}


def share(online: OnlineSection, step: int, steps: int) -> float:
    """λ at a step: the probability that the student writes the completions."""
    if not isinstance(online.lmbda, tuple):
        return online.lmbda
    first, last = online.lmbda
    return first + (last - first) * step / max(1, steps - 1)


def key(*numbers: int) -> str:
    """Hash the numbers to 32 hexadecimal digits, which seed a random generator."""
    return hashlib.blake2b(repr(numbers).encode(), digest_size=16).hexdigest()


def _states(model: PreTrainedModel, head: Head | None, rows: Sequence[Text]) -> Tensor:
    return completion_states(model, head, [row.prompt for row in rows], [row.completion for row in rows])


def _states_after_teacher_prompt(model: PreTrainedModel, head: Head | None, rows: Sequence[Text]) -> Tensor:
    prompts = [row.teacher_prompt or row.prompt for row in rows]
    return completion_states(model, head, prompts, [row.completion for row in rows])


def _targets_of(states_ND: Tensor, head: Head | None) -> TargetOf:
    """Return a function that computes targets from another model's states. No gradient flows to the other model."""
    states_ND = states_ND.detach()

    def target(chunk: tuple[int, int]) -> losses.Target:
        here_ND = states_ND[slice(*chunk)]
        with torch.no_grad():
            return losses.Dense(here_ND if head is None else logits_of(here_ND.to(head.weight_VD.dtype), head))

    return target


def check_teacher(source: Path, teacher: LanguageModel) -> None:
    """Raise CorpusError when the teacher wrote no row of the corpus, because the audit would not include this teacher.

    Also raises CorpusError when the tokens of the corpus were made with another tokenizer than the teacher's.
    """
    written_by = corpus.manifest(source)["teachers"].values()
    if not any(one.get("revision") == teacher.weights.revision for one in written_by):
        raise CorpusError(
            f"{source}: the teacher's revision {teacher.weights.revision} wrote none of its rows",
            "name in the recipe a teacher that wrote the corpus, or generate the corpus again",
        )
    if not any(one.get("tokenizer") == teacher.tokens.hash for one in written_by):
        raise CorpusError(f"{source}: its tokens do not come from the teacher's tokenizer", "generate the corpus again")


def read_texts(
    source: Path, tokens: Tokens, context: int, section: TrainSection, cache: Path, split: str = "train"
) -> Mapped[Text]:
    """Open the rows of a split. No other function reads rows for students of a live teacher.

    `tokens` and `context` belong to the teacher. The rows' tokens are stored in `cache`. Raises CorpusError when a
    row has no tokens, or when no row is left.
    """
    online = section.online
    assert online is not None
    new = online.max_new_tokens if online.mode == "on_policy" else 0

    def asked(rows: Sequence[Row]) -> list[Sequence[int]]:
        return [row.prompt_token_ids or tokens.render(row.teacher_prompt or row.prompt, row.tools) for row in rows]

    reader = reader_of(tokens, written_with(source, tokens))
    reader = replace(reader, columns=(*reader.columns, TEACHER_PROMPT), asked=asked)
    choice = Choice(section.max_length, split, section.share, targets=False, max_prompt=context - new if new else None)
    return Mapped(
        open_stream(source, reader, cache, choice),
        lambda stored: _text(stored.example),
        lambda stored: _text(outline_of(stored.example)),
    )


def _text(row: Example) -> Text:
    return Text(row.id, row.prompt, row.completion, None, row.kept, teacher_prompt=list(row.teacher_prompt))
