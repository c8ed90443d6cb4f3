"""The teacher in the loop: it scores the corpus's texts, or the student's own, or is trained beside the student.

    fit(OnPolicy(model, teacher, section, steps), batch_of, section, steps, checkpoints, bar, accelerator=…)

Its whole distribution is there, so every divergence of `distill.losses` can be taken, mse too. On-policy: GKD,
arXiv 2306.13649, algorithm 1; no gradient goes through the choice of tokens. Mutual: deep mutual learning, arXiv
1706.00384, with both networks moved by one step of one optimizer (the paper takes turns).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill import losses
from distill.data import Example, batch_rows, rows
from distill.loop import Objective
from distill.output_layer import Head, completion_states, logits_of, output_head
from distill.students.build import describe, student_of
from distill.students.decoder import steps_of, train_arms
from distill.targets.stored import FromShards, batch_loss
from synthgen import corpus
from synthgen.errors import CorpusError, UserError
from synthgen.recipe import OnlineSection, Recipe, TrainSection, local_teacher
from synthgen.tables.students import DecoderStudent
from synthgen.teachers.transformers import LocalModel
from synthgen.ui import UI

LEARNED = {
    "teacher": "the live teacher's distributions",
    "on_policy": "the live teacher's distributions, on texts of its own too",
    "mutual": "a teacher that learned from it at the same time and is saved in teacher/",
}  # for cards


@dataclass(frozen=True, kw_only=True)
class Text(Example):
    """A row without a stored distribution; the teacher reads its completion after `teacher_prompt`, or `prompt`.

    `written`: by the student. Then `ended` says whether it came to its end, and no cross-entropy is taken on it.
    """

    written: bool = False
    ended: bool = False


class LiveTeacher(Objective):
    """A causal language model on the live distributions of a frozen teacher over the rows' completions."""

    def __init__(self, model: Any, teacher: LocalModel, section: TrainSection) -> None:
        super().__init__()
        assert section.online is not None
        self.model, self.section, self.online = model, section, section.online
        self.meta = {"temperature": section.online.loss_temperature, "vocab_size": teacher.identity["vocab_size"]}
        self.frozen = (teacher.model, output_head(teacher.model))
        self.head = output_head(model)

    def forward(self, rows: Sequence[Text], step: Sequence[Text]) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.forward` and `batch_loss`."""
        teacher, head = self.frozen
        with torch.no_grad(), torch.autocast(teacher.device.type, enabled=False):
            teacher_ND = _states(teacher, head, rows, "teacher_prompt")
        states_ND = _states(self.model, self.head, rows, "prompt")
        return batch_loss(states_ND, self.head, rows, self.meta, self.section, step=step, live=_live(teacher_ND, head))


class OnPolicy(LiveTeacher):
    """Of some steps, the completions are the student's own: λ · E_student + (1 − λ) · E_corpus of the divergence.

    Whether the student writes is drawn a step, from (seed, step); each token it writes from (seed, step, row). It
    ends where the teacher would: by the teacher's end-of-text tokens.
    """

    def __init__(self, model: Any, teacher: LocalModel, section: TrainSection, steps: int) -> None:
        super().__init__(model, teacher, section)
        self.writer = LocalModel(model, teacher.tokenizer, teacher.identity, teacher.batch_size)
        self.writer.eos = teacher.eos
        self.steps = steps
        self.buffer: list[Text] = []

    def begin(self, step: int, rows: list[Text]) -> list[Text]:
        """The step's rows, or their prompts with what the student wrote to them, kept for `reuse` steps."""
        if step % self.online.reuse == 0:
            coin = np.random.Generator(np.random.Philox(key=int(key(self.section.seed, step), 16))).random()
            self.buffer = self._write(step, rows) if coin < share(self.online, step, self.steps) else []
        return self.buffer or rows

    def _write(self, step: int, rows: list[Text]) -> list[Text]:
        training = self.model.training
        self.model.eval()
        with torch.autocast(self.writer.model.device.type, torch.bfloat16, enabled=self.section.dtype == "bfloat16"):
            replies = self.writer.complete(
                [row.prompt for row in rows],
                [key(self.section.seed, step, number) for number in range(len(rows))],
                self.online.temperature,
                self.online.max_new_tokens,
            )
        self.model.train(training)
        return [
            replace(
                row, completion=list(reply.token_ids), kept=False, written=True, ended=reply.finish_reason == "stop"
            )
            for row, reply in zip(rows, replies, strict=True)
        ]

    def forward(self, rows: Sequence[Text], step: Sequence[Text]) -> tuple[Tensor, dict[str, float]]:
        """Also how long the written completions are (with their end), how many of them ended, and ended at once."""
        loss, parts = super().forward(rows, step)
        if step[0].written:
            ended = [row.ended for row in rows]
            parts |= {
                "length": sum(len(row.completion) for row in rows) / len(step),
                "ended": sum(ended) / len(step),
                "empty": sum(row.ended and len(row.completion) == 1 for row in rows) / len(step),
            }
        return loss, parts

    def state(self) -> Any:
        """The written texts that further steps will learn from."""
        return [asdict(row) for row in self.buffer]

    def restore(self, state: Any) -> None:
        """See `Objective.restore`."""
        self.buffer = [Text(**{**row, "also": (), "parts": ()}) for row in state]


class Mutual(LiveTeacher):
    """Student and teacher learn from each other and from the corpus at once; neither's gradient reaches the other.

    The student's loss is that of `LiveTeacher`; the teacher's is the same with student and teacher changed about,
    and `teacher_kd_weight`. Both are clipped as one.
    """

    def __init__(self, model: Any, teacher: LocalModel, section: TrainSection) -> None:
        super().__init__(model, teacher, section)
        self.teacher = copy.deepcopy(teacher.model).float().requires_grad_()
        self.teacher_head = output_head(self.teacher)
        self.frozen = (None, None)
        self.its_section = section.model_copy(update={"kd_weight": self.online.teacher_kd_weight})

    def forward(self, rows: Sequence[Text], step: Sequence[Text]) -> tuple[Tensor, dict[str, float]]:
        """Both losses; the parts of the teacher's are named so."""
        student_ND = _states(self.model, self.head, rows, "prompt")
        teacher_ND = _states(self.teacher, self.teacher_head, rows, "teacher_prompt")
        live = _live(teacher_ND, self.teacher_head)
        loss, parts = batch_loss(student_ND, self.head, rows, self.meta, self.section, step=step, live=live)
        live = _live(student_ND, self.head)
        its, found = batch_loss(teacher_ND, self.teacher_head, rows, self.meta, self.its_section, step=step, live=live)
        parts |= {f"teacher {name}": value for name, value in found.items()}
        return loss + its, {**parts, "loss": parts["loss"] + found["loss"], "student loss": parts["loss"]}

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
    """32 hexadecimal digits that are a function of the numbers: whose random numbers these are."""
    return hashlib.blake2b(repr(numbers).encode(), digest_size=16).hexdigest()


def _states(model: Any, head: Head | None, rows: Sequence[Text], prompt: str) -> Tensor:
    return completion_states(
        model, head, [getattr(row, prompt) or row.prompt for row in rows], [row.completion for row in rows]
    )


def _live(states_ND: Tensor, head: Head | None) -> Callable[[tuple[int, int]], losses.Target]:
    """Targets from the other model's states; no gradient reaches it."""
    states_ND = states_ND.detach()

    def target(chunk: tuple[int, int]) -> losses.Target:
        some = states_ND[slice(*chunk)]
        with torch.no_grad():
            return losses.Dense(some if head is None else logits_of(some.to(head.weight_VD.dtype), head))

    return target


def train_online(
    recipe: Recipe, student: DecoderStudent, source: Path, folder: Path, teacher: LocalModel | None, ui: UI
) -> dict[str, Any]:
    """Student and baseline on the same batches; returns what training.json says."""
    section = recipe.train
    assert section is not None
    assert section.online is not None
    online = section.online
    teacher = teacher or LocalModel.open(local_teacher(recipe), lazy=True)
    check_teacher(source, teacher)
    data, left_out = texts(source, teacher, section)
    validation = texts(source, teacher, section, "validation")[0] if section.eval_steps else []
    steps = steps_of(len(data), section)
    arms: dict[str, Callable[[Any], Objective]] = {
        "distilled": {
            "teacher": lambda model: LiveTeacher(model, teacher, section),
            "on_policy": lambda model: OnPolicy(model, teacher, section, steps),
            "mutual": lambda model: Mutual(model, teacher, section),
        }[online.mode]
    }
    if section.baseline:
        arms["cross-entropy"] = lambda model: FromShards(model, {}, section, labels_alone=True)
    curves = train_arms(
        arms,
        lambda: student_of(student, teacher, section.seed),
        lambda step: [data[i] for i in batch_rows(step, len(data), section.batch_size, section.seed)],
        section,
        steps,
        folder,
        teacher.device,
        teacher.tokenizer,
        ui,
        validation,
    )
    return {
        "kind": "decoder",
        "student": describe(student, teacher.config.num_hidden_layers),
        "steps": steps,
        "rows": len(data),
        "rows kept by curation": sum(row.kept for row in data),
        "rows left out": left_out,
        "completion tokens trained on": int(sum(row["tokens"] for row in curves["distilled"])),
        "learns by": f"{section.kd_weight:g} · {section.loss} from the live teacher"
        + (f" + {1 - section.kd_weight:g} · cross-entropy" if section.kd_weight < 1 else ""),
        "learned from": LEARNED[online.mode],
        "targets": {"kind": "dense", "temperature": online.loss_temperature, "online": online.mode},
        "metrics": curves,
    }


def check_teacher(source: Path, teacher: LocalModel) -> None:
    """Raises CorpusError for a teacher that is none of the corpus's: the audit would not know of it."""
    made_by = corpus.manifest(source)["teachers"].values()
    if not any(one.get("revision") == teacher.identity["revision"] for one in made_by):
        raise CorpusError(
            f"{source}: revision {teacher.identity['revision']}, the teacher's, wrote none of it",
            "name a teacher that wrote the corpus in the recipe, or generate again",
        )
    if not any(one.get("tokenizer") == teacher.identity["tokenizer"] for one in made_by):
        raise CorpusError(f"{source}: its tokens are of another tokenizer than the teacher's", "generate again")


def texts(
    folder: Path, teacher: LocalModel, section: TrainSection, split: str = "train"
) -> tuple[list[Text], dict[str, int]]:
    """Rows of a split of a curated corpus, and how many were left out, by reason. Raises CorpusError, UserError."""
    online = section.online
    assert online is not None
    new = online.max_new_tokens if online.mode == "on_policy" else 0
    left_out = {"longer than max_length": 0, "no room to write": 0}
    found = []
    for record, kept in rows(folder, split, section.share):
        completion = list(record.token_ids or ())
        if not completion:
            raise CorpusError(f"record {record.id} of {folder} has no tokens", "generate with a teacher in process")
        prompt = teacher.render(record.prompt)
        asked = list(record.prompt_token_ids or ()) or teacher.render(record.teacher_prompt or record.prompt)
        if len(prompt) + len(completion) > section.max_length:
            left_out["longer than max_length"] += 1
        elif new and max(len(prompt), len(asked)) + new > teacher.context:
            left_out["no room to write"] += 1
        else:
            found.append(Text(record.id, prompt, completion, None, kept, teacher_prompt=asked))
    if not found:
        where = f"{folder} has no rows to train on in split '{split}'"
        if any(left_out.values()):
            raise UserError(f"{where}: {left_out}", "raise train.max_length, or lower online.max_new_tokens")
        raise CorpusError(where, "look at the rejects: `synthgen show --rejected`; or set the split in the recipe")
    return found, left_out
