"""Parts of section `train` that say what the student learns from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from synthgen.tables.section import Count, Name, Section, Share


class RationaleSection(Section):
    """How the rationales of a corpus teach (their answers are taken apart by `generate.answer_marker`)."""

    mode: Literal["then_answer", "step_by_step", "dropped"] = "then_answer"
    """Before the answer; as a task of their own beside the answers (Hsieh et al. 2023); not at all, as a control."""
    weight: Share = 0.5
    """step_by_step: share of the answers' loss."""
    explain: str = "Explain: "
    """step_by_step: goes before a prompt that asks for the rationale."""


class OnlineSection(Section):
    """The teacher is in the loop: its whole distribution is made as it is needed, no stored one is read.

    `teacher` scores the corpus's completions; `on_policy` also those that the student writes itself (GKD, arXiv
    2306.13649); with `mutual` the teacher is trained too, from the student (arXiv 1706.00384), into student/teacher.
    """

    mode: Literal["teacher", "on_policy", "mutual"] = "teacher"
    loss_temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of both distributions in the divergence."""
    lmbda: Share | tuple[Share, Share] = 0.5
    """on_policy: how likely the student writes a step's completions; two numbers go from first to last step."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """on_policy: of what the student writes; 0 is greedy."""
    max_new_tokens: Count = 128
    """on_policy: the longest completion that the student may write."""
    reuse: Count = 1
    """on_policy: steps that learn from the same written completions."""
    teacher_kd_weight: Share = 0.5
    """mutual: the teacher's own kd_weight."""

    @model_validator(mode="after")
    def _of_its_mode(self) -> OnlineSection:
        users = dict.fromkeys(("lmbda", "temperature", "max_new_tokens", "reuse"), "on_policy")
        for key, mode in {**users, "teacher_kd_weight": "mutual"}.items():
            if self.mode != mode and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"'{key}' belongs to mode {mode}, and mode is '{self.mode}'")
        return self


class Ensemble(Section):
    """Distributions of several teachers on the same tokens (logits.score_by), merged into one."""

    teachers: dict[Name, Annotated[float, Field(gt=0)]] | tuple[Name, ...] = ()
    """Names, or names with weights; all that have logits when left out."""
    merge: Literal["mean", "pool"] = "mean"
    """mean: Σ w p. pool: Π p^w, normalized; what averaging the logits gives."""
    by: Literal["uniform", "validation", "agreement"] | None = None
    """Where weights come from: all the same; the highest likelihood of the validation rows; or, row by row, agreement
    with the other teachers. uniform unless weights are given."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.teachers)

    @property
    def weights(self) -> tuple[float, ...] | None:
        return tuple(self.teachers.values()) if isinstance(self.teachers, dict) else None

    @model_validator(mode="after")
    def _meant(self) -> Ensemble:
        if self.weights is not None and self.by is not None:
            raise ValueError(f"teachers have weights already; leave out by: {self.by}, or give their names alone")
        if len(set(self.names)) < len(self.names):
            raise ValueError("a teacher is named twice")
        return self


class Across(Section):
    """A teacher with another tokenizer, which scored these rows' text in a run of its own (strategy score, seeds from
    this corpus with id: id)."""

    run: str
    tokenizer: str | None = None
    """Its tokenizer, a hub id or folder; the scoring model's own when left out."""
    uld_weight: Annotated[float, Field(ge=0)] = 1.0
    """Of the distance where the two cut the text in different places."""


class Hidden(Section):
    """Hidden states after some layers are to be the teacher's, token by token, through a learned projection."""

    weight: Annotated[float, Field(gt=0)] = 1.0
    loss: Literal["mse", "cosine"] = "mse"
    """mse: of layer-normalized states. cosine: 1 − cos."""
    layers: Literal["uniform"] | dict[int, int] = "uniform"
    """Student layer → teacher layer, from 0; uniform: every student layer, and the teacher's as deep in proportion."""
    projection: bool = True
    """false: none, where student and teacher are equally wide."""
    stored: bool = False
    """The teacher reads the rows once, before training, and its states are read from RUN/hidden from then on, by other
    students too; 2 bytes a number."""


class Relations(Section):
    """MiniLMv2: how like each other the queries of two tokens are is to be as in the teacher; keys and values too."""

    weight: Annotated[float, Field(gt=0)] = 1.0
    heads: Count | None = None
    """Relation heads that each is cut into, in both models; the teacher's key-value heads when left out."""
    layer: Annotated[int, Field(ge=0)] | None = None
    """The teacher's layer, from 0; the last when left out. The student's is its last."""
