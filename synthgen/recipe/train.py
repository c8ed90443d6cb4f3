"""Section `train`: how the student learns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from synthgen.recipe.targets import Across, Ensemble, Hidden, OnlineSection, RationaleSection, Relations
from synthgen.tables.divergences import Divergence
from synthgen.tables.section import Count, Name, Section, Share
from synthgen.tables.students import DecoderStudent, Student

HOW = ("save_steps", "save_total_limit", "report_to")


class TrainSection(Section):
    """How the student learns: kd_weight · divergence from the stored distribution + (1 − kd_weight) · cross-entropy."""

    student: Annotated[Student, Field(discriminator="kind")] = DecoderStudent()
    rationale: RationaleSection | None = None
    kd_weight: Share = 0.9
    """0: the tokens alone teach, and no stored distributions are needed."""
    loss: Divergence = "forward_kl"
    """The divergence; with logits of kind 'sampled', forward_kl alone is defined (and the same as cross_entropy)."""
    beta: Share | None = None
    """jsd: 0 is forward, 1 reverse KL; 0.5 when left out."""
    alpha: Annotated[float, Field(ge=0, lt=1)] | None = None
    """skew_kl, skew_reverse_kl: share of the other distribution mixed in; 0.1 when left out."""
    online: OnlineSection | None = None
    """Learn from the live teacher; no `logits` are needed then."""
    teacher: Name | None = None
    """Whose distributions are learned from, where several have been stored (logits.score_by). The student is made from
    the recipe's first teacher and compared with it all the same."""
    ensemble: Ensemble | None = None
    across: Across | None = None
    hidden: Hidden | None = None
    """Added to the loss; needs the live teacher, and so costs a pass of it a step."""
    relations: Relations | None = None
    """Likewise."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of the training seeds, by a hash of each: how much data is worth (`distill curve`)."""
    num_train_epochs: Count = 1
    max_steps: Count | None = None
    batch_size: Count = 16
    """Rows an optimizer step."""
    micro_batch_size: Count | None = None
    """Rows at once in memory; a step is summed over them, with the same result. All of them when left out."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_steps: Annotated[float, Field(ge=0)] = 0.1
    """Steps over which the learning rate rises; a number below 1 is a share of all steps."""
    max_length: Count = 512
    """Rows with more tokens than this (prompt and completion) are left out, and counted."""
    seed: int = 0
    save_steps: Count = 50
    """Steps."""
    save_total_limit: Count = 1
    """The newest so many; all go when the student is there."""
    eval_steps: Count | None = None
    """Steps between measurements of the loss on the validation split."""
    early_stopping_patience: Count | None = None
    """Stop when so many measurements in a row brought nothing better, and take the best weights."""
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Also report each step to these, through accelerate; what they write lies in the student's folder."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more time, the same gradients."""
    baseline: bool = True
    """Also train the same student on cross-entropy alone, on the same batches."""
    dtype: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _meant(self) -> TrainSection:
        if self.early_stopping_patience and not self.eval_steps:
            raise ValueError("'early_stopping_patience' counts measurements: set 'eval_steps' too")
        if self.online and self.student.kind != "decoder":
            raise ValueError("'online' is for decoders: a classifier learns from the corpus's label probabilities")
        if self.online and self.kd_weight == 0:
            raise ValueError("'online' with kd_weight 0 would never ask the teacher: leave it out")
        for key, users in (("beta", ("jsd",)), ("alpha", ("skew_kl", "skew_reverse_kl"))):
            if getattr(self, key) is not None and self.loss not in users:
                raise ValueError(f"'{key}' belongs to loss {' and '.join(users)}, and loss is '{self.loss}'")
        if self.teacher and self.ensemble:
            raise ValueError("give 'teacher', whose distributions alone are learned from, or 'ensemble', not both")
        return self

    @model_validator(mode="after")
    def _targets_meant(self) -> TrainSection:
        step_by_step = self.rationale is not None and self.rationale.mode == "step_by_step"
        for key in ("hidden", "relations"):
            if getattr(self, key) and self.student.kind != "decoder":
                raise ValueError(f"'{key}' is about the layers of a decoder")
            if key == "relations" and self.relations and self.hidden and self.hidden.stored:
                raise ValueError("'relations' asks the live teacher in every step: leave out hidden.stored")
            if getattr(self, key) and step_by_step:
                raise ValueError(
                    f"'{key}' and rationale.mode step_by_step do not go together: the teacher does one task"
                )
        for key in ("teacher", "ensemble", "across", "hidden", "relations"):
            if getattr(self, key) and self.online:
                raise ValueError(f"'{key}' goes with stored distributions, and 'online' reads none")
        if self.online and self.rationale and self.rationale.mode != "then_answer":
            raise ValueError("'online' is about whole completions: rationale.mode must be then_answer")
        if self.across and self.rationale:
            raise ValueError("'across' aligns whole completions; leave out 'rationale'")
        if self.across and self.share < 1:
            raise ValueError("'across' takes every row: leave out 'share'")
        if self.across and (self.teacher or self.ensemble):
            raise ValueError("'across' learns from another run's teacher; leave out 'teacher' and 'ensemble'")
        for key in ("teacher", "ensemble", "across"):
            if getattr(self, key) and (self.student.kind not in ("decoder", "seq2seq") or self.kd_weight == 0):
                raise ValueError(f"'{key}' is about stored distributions, and this student learns from none")
        return self
