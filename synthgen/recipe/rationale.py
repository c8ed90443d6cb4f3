"""Section `train.rationale`: how the reasoning in a corpus teaches."""

from __future__ import annotations

from typing import Literal

from synthgen.tables.section import Section, Share


class RationaleSection(Section):
    """How the student learns from the reasoning before each answer. `generate.answer_marker` separates the two."""

    mode: Literal["then_answer", "step_by_step", "dropped"] = "then_answer"
    """then_answer: the reasoning is learned before the answer, as the teacher wrote it. step_by_step: it is a second
    task beside the answers (Hsieh et al., arXiv 2305.02301). dropped: only answers are learned, as a control."""
    weight: Share = 0.5
    """step_by_step: share of the answers' loss; the rest is the reasoning's."""
    explain: str = "Explain: "
    """step_by_step: text before a prompt that asks for the reasoning."""
