"""Section `train.online`: the live teacher gives the distributions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from synthgen.tables.section import Count, Rule, Section, Share


class OnlineSection(Section):
    """Learn from the live teacher's full distributions, computed in each step. No stored distributions are read."""

    mode: Literal["teacher", "on_policy", "mutual"] = "teacher"
    """teacher: the teacher scores the corpus's completions. on_policy: it also scores completions that the student
    writes (GKD, arXiv 2306.13649). mutual: the teacher also learns from the student (arXiv 1706.00384); it is saved in
    student/teacher."""
    loss_temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of both distributions in the divergence."""
    lmbda: Share | tuple[Share, Share] = 0.5
    """on_policy: probability that a step learns from completions of the student; two numbers go from the first step to
    the last."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """on_policy: temperature at which the student generates; 0 takes the most probable token each time."""
    max_new_tokens: Count = 128
    """on_policy: longest completion that the student writes, in tokens."""
    reuse: Count = 1
    """on_policy: number of steps that learn from the same completions of the student."""
    teacher_kd_weight: Share = 0.5
    """mutual: `kd_weight` of the teacher's own loss."""

    def rules(self) -> Iterator[Rule]:
        users = dict.fromkeys(("lmbda", "temperature", "max_new_tokens", "reuse"), "on_policy")
        for key, mode in {**users, "teacher_kd_weight": "mutual"}.items():
            if self.mode != mode and getattr(self, key) != type(self).model_fields[key].default:
                yield key, f"'{key}' is only used in mode {mode}, but mode is '{self.mode}'"
