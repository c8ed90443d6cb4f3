"""Section `train`: how the student learns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from synthgen.recipe.across import Across
from synthgen.recipe.canaries import Canaries
from synthgen.recipe.ensemble import Ensemble
from synthgen.recipe.hidden import Hidden
from synthgen.recipe.online import OnlineSection
from synthgen.recipe.rationale import RationaleSection
from synthgen.recipe.relations import Relations
from synthgen.tables.divergences import Divergence
from synthgen.tables.section import Count, Name, Rule, Section, Share, chosen_by
from synthgen.tables.students import KINDS, DecoderStudent, Student

TRAIN_MAY_CHANGE = ("save_steps", "save_total_limit", "report_to")
"""Keys of the section `train` that do not affect the student. Their values may change when an interrupted training is
resumed.
"""


class TrainSection(Section):
    """How the student learns. The student's loss is kd_weight · divergence from the teacher's distribution
    + (1 − kd_weight) · cross-entropy on the teacher's tokens."""

    student: Annotated[Student, chosen_by(KINDS, "kind", "decoder")] = DecoderStudent()
    """The kind of student, and the model or settings from which it starts."""
    rationale: RationaleSection | None = None
    """How the student learns from the reasoning before each answer."""
    kd_weight: Share = 0.9
    """Weight of the divergence. Cross-entropy has the weight 1 − kd_weight. If kd_weight is 0, no distributions are
    needed.
    """
    loss: Divergence = "forward_kl"
    """The divergence. With `logits.kind: sampled`, only forward_kl and cross_entropy are possible, and both have the
    same result.
    """
    beta: Share | None = None
    """For loss jsd: 0 is forward KL, and 1 is reverse KL. 0.5 when left out."""
    alpha: Annotated[float, Field(ge=0, lt=1)] | None = None
    """For loss skew_kl: share of the teacher's distribution that is mixed into the student's. For skew_reverse_kl:
    share of the student's distribution that is mixed into the teacher's. 0.1 when left out.
    """
    online: OnlineSection | None = None
    """Learn from the live teacher instead of stored distributions."""
    teacher: Name | None = None
    """Name of the teacher whose stored distributions are used, when distributions of several teachers are stored
    (`logits.score_by`). The student is still initialized from the first teacher and compared with that teacher.
    """
    mask_divergence: Name | None = None
    """Name of another teacher whose distributions are stored (`logits.score_by`). The student learns nothing at tokens
    where the most likely tokens of the two teachers differ. This can reduce the hidden traits that the student gets
    from its teacher.
    """
    ensemble: Ensemble | None = None
    """Learn from the merged distributions of several teachers."""
    across: Across | None = None
    """Learn from a teacher with another tokenizer."""
    hidden: Hidden | None = None
    """An additional loss on hidden states. Unless the states are stored, this loss needs a forward pass of the live
    teacher in each step.
    """
    relations: Relations | None = None
    """An additional loss on attention relations. It needs a forward pass of the live teacher in each step."""
    canaries: Canaries | None = None
    """Made-up secrets that the student learns beside its rows, so that the audit of privacy can measure what the
    student remembers. `canaries: {}` uses the default values. Do not release a student that learned canaries.
    """
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training seeds to learn from. A hash of each seed decides whether the seed is used. `distill curve`
    sets this key.
    """
    num_train_epochs: Count = 1
    """Number of epochs: how often every training row is used."""
    max_steps: Count | None = None
    """Maximum number of optimizer steps; when left out, `num_train_epochs` sets the length."""
    batch_size: Count = 16
    """Number of rows in each optimizer step."""
    micro_batch_size: Count | None = None
    """Number of rows in each forward pass; the whole batch when left out. Gradients are summed over the batch, so the
    result is the same."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """Highest learning rate of the schedule."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of AdamW."""
    warmup_steps: Annotated[float, Field(ge=0)] = 0.1
    """Number of steps over which the learning rate rises. A number below 1 is a share of all steps."""
    max_length: Count = 512
    """Maximum number of tokens of prompt and completion together. Longer rows are left out, and their number is
    reported."""
    seed: int = 0
    """Random seed of the order of rows, of random weights and of dropout."""
    save_steps: Count = 50
    """Number of steps between two checkpoints."""
    save_total_limit: Count = 1
    """Number of checkpoints to keep; older checkpoints are deleted. All checkpoints are deleted when the student is
    finished.
    """
    eval_steps: Count | None = None
    """Number of steps between two measurements of the loss on the validation split. When left out, this loss is not
    measured.
    """
    early_stopping_patience: Count | None = None
    """Stop when this many consecutive measurements of the validation loss show no improvement, and use the best
    weights.
    """
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Also report each step to these trackers, through accelerate. The files of these trackers are in the student's
    folder.
    """
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass, instead of storing them. This needs less memory, but about a
    third more time. The gradients are the same.
    """
    baseline: bool = True
    """Also train the same student with cross-entropy alone, on the same batches, to compare the two."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number type of the student's weights."""

    def rules(self) -> Iterator[Rule]:
        if self.early_stopping_patience and not self.eval_steps:
            yield "early_stopping_patience", "early stopping needs the validation loss: set 'eval_steps' too"
        for key, users in (("beta", ("jsd",)), ("alpha", ("skew_kl", "skew_reverse_kl"))):
            if getattr(self, key) is not None and self.loss not in users:
                yield key, f"'{key}' is only used by loss {' and '.join(users)}, but loss is '{self.loss}'"
        if self.teacher and self.ensemble:
            yield "ensemble", "give 'teacher' to learn from one teacher, or 'ensemble' to learn from several, not both"
        yield from self._rules_of_online()
        yield from self._rules_of_across()
        yield from self._rules_of_layers()
        for key in ("rationale", "online", "ensemble", "across", "hidden", "relations", "mask_divergence"):
            if self.canaries and getattr(self, key):
                yield "canaries", f"canaries cannot be used with '{key}': train without '{key}' to measure leaks"
        yield from self._rules_of_mask()

    def _rules_of_online(self) -> Iterator[Rule]:
        if not self.online:
            return
        if self.kd_weight == 0:
            yield "online", "with kd_weight 0 the teacher is never used: leave 'online' out"
        for key in ("teacher", "ensemble", "across", "hidden", "relations"):
            if getattr(self, key):
                yield key, f"'{key}' needs stored distributions, and 'online' reads none"
        if self.rationale and self.rationale.mode != "then_answer":
            yield "rationale", "'online' learns whole completions: rationale.mode must be then_answer"

    def _rules_of_across(self) -> Iterator[Rule]:
        if self.across and self.rationale:
            yield "across", "'across' aligns whole completions: leave out 'rationale'"
        if self.across and self.share < 1:
            yield "across", "'across' uses every row: leave out 'share'"
        if self.across and (self.teacher or self.ensemble):
            yield "across", "'across' learns from one teacher: leave out 'teacher' and 'ensemble'"
        for key in ("teacher", "ensemble", "across"):
            if getattr(self, key) and self.kd_weight == 0:
                yield key, f"'{key}' needs stored distributions, and with kd_weight 0 the student learns from none"

    def _rules_of_mask(self) -> Iterator[Rule]:
        if not self.mask_divergence:
            return
        for key in ("online", "ensemble", "across", "rationale", "hidden", "relations"):
            if getattr(self, key):
                yield key, f"'mask_divergence' masks only tokens of stored distributions: leave out '{key}'"
        if self.kd_weight == 0:
            yield "kd_weight", "'mask_divergence' compares stored distributions, but with kd_weight 0 none are read"
        if self.mask_divergence == self.teacher:
            yield "mask_divergence", "the teacher would be compared with itself: name another teacher"

    def _rules_of_layers(self) -> Iterator[Rule]:
        if self.relations and self.hidden and self.hidden.stored:
            yield "relations", "'relations' asks the live teacher in each step: leave out hidden.stored"
        for key in ("hidden", "relations"):
            if getattr(self, key) and self.rationale and self.rationale.mode == "step_by_step":
                yield (
                    key,
                    f"'{key}' cannot be used with step_by_step: the teacher does only one of the two tasks",
                )
