"""Experiment: do hidden states or attention relations of the teacher improve a student that learns from fifty draws?

    python benchmarks/experiments/hidden.py            # then run tables.py for the tables

Student, windows and number of steps are those of the experiment in logits.py. In the arm `sampled` of logits.py, the
student learns from the draws alone. Each arm of this experiment adds one loss term with weight 1, which is the recipe's
default.
"""

from __future__ import annotations

from typing import Any

from harness import run, section_of, train
from logits import DRAWS, stored
from python_code import BATCH, STEPS, batches, examples, scores, student, teacher

from distill.targets.hidden import LayerTerms
from distill.targets.stored import FromStored

TERMS: dict[str, dict[str, Any]] = {"hidden": {"hidden": {}}, "relations": {"relations": {"heads": 4}}}
ARMS = tuple(TERMS)


def arm_of(arm: str, seed: int) -> dict[str, Any]:
    targets, meta, _ = stored("sampled", DRAWS)
    model, section = student(seed), section_of(STEPS, BATCH, seed, **TERMS[arm])
    terms = LayerTerms(model, teacher(0).model, section)
    training = train(FromStored(model, section, meta, terms), batches(examples(targets), seed), section)
    return {**scores(model), "training": training}


if __name__ == "__main__":
    run("hidden", ARMS, arm_of)
