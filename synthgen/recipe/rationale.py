"""Section `train.rationale`: how the student learns from the reasoning before an answer."""

from __future__ import annotations

from typing import Literal

from synthgen.tables.section import Section, Share


class RationaleSection(Section):
    """How the student learns from the reasoning before each answer. `generate.answer_marker` separates reasoning and
    answer.
    """

    mode: Literal["then_answer", "step_by_step", "dropped"] = "then_answer"
    """then_answer: the student writes the reasoning and then the answer, as the teacher did. step_by_step: the student
    answers without reasoning, and writes the reasoning as a second task (Hsieh et al., arXiv 2305.02301). dropped: the
    student learns only the answers, as a control."""
    weight: Share = 0.5
    """For mode step_by_step: weight of the loss on answers; the loss on the reasoning has the weight 1 − `weight`."""
    explain: str = "Explain: "
    """For mode step_by_step: text that is put before a prompt to ask for the reasoning."""
