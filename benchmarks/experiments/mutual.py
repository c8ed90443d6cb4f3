"""Experiment: does it help to train the teacher together with the student?

    python benchmarks/experiments/mutual.py            # then run tables.py for the tables

In the arm `mutual` the teacher learns from the student and from the text. In the arm `frozen` the teacher is not
trained. In both arms, half of the student's loss is cross-entropy on the text. Student, windows and number of steps are
those of the experiment in logits.py. In the arm `hard` of logits.py, the student learns without a teacher.
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
    training = train(objective, batches(texts(windows()["student"]), seed), section)
    result = scores(model)
    teacher_model = objective.teacher if isinstance(objective, Mutual) else teacher(0).model
    result["items"]["teacher loss"] = scores(teacher_model)["items"]["loss"]
    return {**result, "training": training}


if __name__ == "__main__":
    run("mutual", ARMS, arm_of)
