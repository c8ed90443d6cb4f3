"""Learning from a live teacher: it reads the corpus's texts, or the student's own, or is trained beside the student.

    fit(OnPolicy(model, teacher, section, steps), batch_of, section, steps, checkpoints, bar, accelerator=…)

Its whole distribution is at hand, so every divergence of `distill.losses` can be computed, mse too. On-policy: GKD,
arXiv 2306.13649, algorithm 1; no gradient goes through the choice of tokens. Mutual: deep mutual learning, arXiv
1706.00384, with both networks moved by one step of one optimizer (the paper takes turns).
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

from distill import losses
from distill.data import NO_ROWS, Example, in_words, rows
from distill.output_layer import Head, completion_states, logits_of, output_head
from distill.targets.stored import FromCompletions, Rows, TargetOf, batch_loss
from synthgen import corpus
from synthgen.errors import CorpusError, UserError
from synthgen.lm.model import LanguageModel
from synthgen.lm.tokens import Tokens
from synthgen.logits import LogitsMeta
from synthgen.recipe import OnlineSection, TrainSection


@dataclass(frozen=True, kw_only=True)
class Text(Example):
    """A row without a stored distribution; the teacher reads its completion after `teacher_prompt`, or `prompt`.

    `written`: by the student. Then `ended` says whether it came to its end, and no cross-entropy is taken on it.
    """

    written: bool = False
    ended: bool = False


class LiveTeacher(FromCompletions[Text]):
    """A causal language model on the live distributions of a frozen teacher over the rows' completions."""

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
    """In some steps the completions are the student's own: λ · E_student + (1 − λ) · E_corpus of the divergence.

    Whether the student writes is drawn from (seed, step); each token that it writes from (seed, step, row). It ends
    where the teacher would: at the teacher's end-of-text tokens.
    """

    def __init__(self, model: PreTrainedModel, teacher: LanguageModel, section: TrainSection, steps: int) -> None:
        super().__init__(model, teacher, section)
        self.writer = LanguageModel.of(model, teacher.tokens, teacher.batch_size)
        self.steps = steps
        self.buffer: list[Text] = []

    def begin(self, step: int, rows: list[Text]) -> list[Text]:
        """The step's rows, or their prompts with what the student wrote after them, kept for `reuse` steps."""
        if step % self.online.reuse == 0:
            coin = np.random.Generator(np.random.Philox(key=int(key(self.section.seed, step), 16))).random()
            self.buffer = self._write(step, rows) if coin < share(self.online, step, self.steps) else []
        return self.buffer or rows

    def _write(self, step: int, rows: list[Text]) -> list[Text]:
        training = self.model.training
        self.model.eval()
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.section.dtype == "bfloat16"):
            replies = self.writer.complete(
                [row.prompt for row in rows],
                [key(self.section.seed, step, number) for number in range(len(rows))],
                self.online.temperature,
                self.online.max_new_tokens,
            )
        self.model.train(training)
        return [
            replace(row, completion=reply.tokens, kept=False, written=True, ended=reply.ended)
            for row, reply in zip(rows, replies, strict=True)
        ]

    def forward(self, rows: Sequence[Text], step: Sequence[Text]) -> tuple[Tensor, dict[str, float]]:
        """Also the mean length of the written completions (with their end), the share that ended, and at once."""
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
        """The written texts that further steps will learn from."""
        return [asdict(row) for row in self.buffer]

    def restore(self, state: object) -> None:
        """See `Objective.restore`."""
        assert isinstance(state, list)
        self.buffer = [Text(**{**row, "also": (), "parts": ()}) for row in state]


class Mutual(LiveTeacher):
    """Student and teacher learn from each other and from the corpus at once; neither's gradient reaches the other.

    The student's loss is that of `LiveTeacher`. The teacher's is the same with student and teacher exchanged, and with
    `teacher_kd_weight`. The gradients of both are clipped as one.
    """

    def __init__(self, model: PreTrainedModel, teacher: LanguageModel, section: TrainSection) -> None:
        super().__init__(model, teacher, section)
        self.teacher = copy.deepcopy(teacher.weights.model).float().requires_grad_()
        self.teacher_head = output_head(self.teacher)
        self.frozen = (None, None)
        self.teacher_section = section.model_copy(update={"kd_weight": self.online.teacher_kd_weight})

    def forward(self, rows: Sequence[Text], step: Sequence[Text]) -> tuple[Tensor, dict[str, float]]:
        """Both losses; the names of the parts of the teacher's begin with `teacher_`."""
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
    """λ at a step: how likely the student writes."""
    if not isinstance(online.lmbda, tuple):
        return online.lmbda
    first, last = online.lmbda
    return first + (last - first) * step / max(1, steps - 1)


def key(*numbers: int) -> str:
    """32 hexadecimal digits that are a function of the numbers, for random numbers that belong to them."""
    return hashlib.blake2b(repr(numbers).encode(), digest_size=16).hexdigest()


def _states(model: PreTrainedModel, head: Head | None, rows: Sequence[Text]) -> Tensor:
    return completion_states(model, head, [row.prompt for row in rows], [row.completion for row in rows])


def _states_after_teacher_prompt(model: PreTrainedModel, head: Head | None, rows: Sequence[Text]) -> Tensor:
    prompts = [row.teacher_prompt or row.prompt for row in rows]
    return completion_states(model, head, prompts, [row.completion for row in rows])


def _targets_of(states_ND: Tensor, head: Head | None) -> TargetOf:
    """Targets from another model's states; no gradient reaches it."""
    states_ND = states_ND.detach()

    def target(chunk: tuple[int, int]) -> losses.Target:
        here_ND = states_ND[slice(*chunk)]
        with torch.no_grad():
            return losses.Dense(here_ND if head is None else logits_of(here_ND.to(head.weight_VD.dtype), head))

    return target


def check_teacher(source: Path, teacher: LanguageModel) -> None:
    """Raises CorpusError for a teacher that wrote none of the corpus: the audit would not know of it."""
    written_by = corpus.manifest(source)["teachers"].values()
    if not any(one.get("revision") == teacher.weights.revision for one in written_by):
        raise CorpusError(
            f"{source}: the teacher's revision {teacher.weights.revision} wrote no row of it",
            "name a teacher that wrote the corpus in the recipe, or generate again",
        )
    if not any(one.get("tokenizer") == teacher.tokens.hash for one in written_by):
        raise CorpusError(f"{source}: its tokens do not come from the teacher's tokenizer", "generate again")


def texts(
    folder: Path, tokens: Tokens, context: int, section: TrainSection, split: str = "train"
) -> tuple[list[Text], dict[str, int]]:
    """Rows of a split of a curated corpus, and how many were left out, by reason; `context` is the teacher's.

    Raises CorpusError, UserError.
    """
    online = section.online
    assert online is not None
    new = online.max_new_tokens if online.mode == "on_policy" else 0
    left_out = {"too_long": 0, "no_room_to_write": 0}
    examples = []
    for record, kept in rows(folder, split, section.share):
        completion = list(record.token_ids or ())
        if not completion:
            raise CorpusError(f"record {record.id} of {folder} has no tokens", "generate with a local teacher")
        prompt = tokens.render(record.prompt)
        asked = list(record.prompt_token_ids or ()) or tokens.render(record.teacher_prompt or record.prompt)
        if len(prompt) + len(completion) > section.max_length:
            left_out["too_long"] += 1
        elif new and max(len(prompt), len(asked)) + new > context:
            left_out["no_room_to_write"] += 1
        else:
            examples.append(Text(record.id, prompt, completion, None, kept, teacher_prompt=asked))
    if not examples:
        where = f"{folder} {NO_ROWS} in split '{split}'"
        if any(left_out.values()):
            raise UserError(f"{where}: {in_words(left_out)}", "raise train.max_length, or lower online.max_new_tokens")
        raise CorpusError(where, "see the rejected rows: `synthgen show --rejected`; or set the split in the recipe")
    return examples, left_out
