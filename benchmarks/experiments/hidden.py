"""Does a look inside the teacher help? Hidden states and attention relations beside fifty draws, against these alone.

    python benchmarks/experiments/hidden.py            # and tables.py for the tables

The set-up of logits.py, whose `sampled` has the draws alone; the weights of both terms are 1, the recipe's default.
"""

from __future__ import annotations

from typing import Any

from harness import run, section_of, train
from logits import DRAWS, stored
from python_code import BATCH, STEPS, batches, examples, scores, student, teacher

from distill.targets.hidden import Inside
from distill.targets.stored import FromShards

TERMS: dict[str, dict[str, Any]] = {"hidden": {"hidden": {}}, "relations": {"relations": {"heads": 4}}}
ARMS = tuple(TERMS)


def arm_of(arm: str, seed: int) -> dict[str, Any]:
    targets, meta, _ = stored("sampled", DRAWS)
    model, section = student(seed), section_of(STEPS, BATCH, seed, **TERMS[arm])
    inside = Inside(model, teacher(0).model, section)
    found = train(FromShards(model, meta, section, inside=inside), batches(examples(targets), seed), section)
    return {**scores(model), "training": found}


if __name__ == "__main__":
    run("hidden", ARMS, arm_of)
