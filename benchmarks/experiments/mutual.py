"""May the teacher learn too? A frozen teacher against one that is trained beside its student, from it and the text.

    python benchmarks/experiments/mutual.py            # and tables.py for the tables

The set-up of logits.py, whose `hard` has no teacher; here half of the student's loss is cross-entropy on the text.
"""

from __future__ import annotations

from typing import Any

from harness import run, section_of, train
from python_code import BATCH, STEPS, batches, scores, student, teacher, texts, windows

from distill.targets.live import LiveTeacher, Mutual

ARMS = ("frozen", "mutual")


def arm_of(arm: str, seed: int) -> dict[str, Any]:
    online = {"mode": "mutual" if arm == "mutual" else "teacher"}
    model, section = student(seed), section_of(STEPS, BATCH, seed, kd_weight=0.5, online=online)
    objective = (Mutual if arm == "mutual" else LiveTeacher)(model, teacher(0), section)
    found = train(objective, batches(texts(windows()["student"]), seed), section)
    result = scores(model)
    its = objective.teacher if isinstance(objective, Mutual) else teacher(0).model
    result["items"]["teacher loss"] = scores(its)["items"]["loss"]
    return {**result, "training": found}


if __name__ == "__main__":
    run("mutual", ARMS, arm_of)
