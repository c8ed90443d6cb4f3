"""Section `train.online`: the student learns from the live teacher's distributions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from synthgen.tables.section import Count, Rule, Section, Share


class OnlineSection(Section):
    """Learn from the live teacher's full distributions, which are computed in each training step. Stored distributions
    are not read. The teacher must be local; `synthgen/recipe/check_train.py` refuses other teachers.
    """

    mode: Literal["teacher", "on_policy", "mutual"] = "teacher"
    """teacher: the teacher scores the corpus's completions. on_policy: the teacher also scores completions that the
    student writes (GKD, arXiv 2306.13649). mutual: the teacher also learns from the student (arXiv 1706.00384), and the
    trained teacher is saved in student/teacher."""
    loss_temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of both distributions in the divergence."""
    lmbda: Share | tuple[Share, Share] = 0.5
    """For mode on_policy: probability that a training step uses completions of the student. With two numbers, the
    probability changes linearly from the first number at the first step to the second number at the last step.
    """
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """For mode on_policy: temperature at which the student generates; 0 takes the most probable token each time."""
    max_new_tokens: Count = 128
    """For mode on_policy: maximum number of tokens of a completion that the student writes."""
    reuse: Count = 1
    """For mode on_policy: number of training steps that use the same completions of the student."""
    teacher_kd_weight: Share = 0.5
    """For mode mutual: weight of the divergence in the teacher's own loss."""

    def rules(self) -> Iterator[Rule]:
        users = dict.fromkeys(("lmbda", "temperature", "max_new_tokens", "reuse"), "on_policy")
        for key, mode in {**users, "teacher_kd_weight": "mutual"}.items():
            if self.mode != mode and getattr(self, key) != type(self).model_fields[key].default:
                yield key, f"'{key}' is only used in mode {mode}, but mode is '{self.mode}'"
