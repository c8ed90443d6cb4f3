"""May the teacher learn too? A frozen teacher against one that is trained beside its student, from it and the text.

    python benchmarks/experiments/mutual.py            # and tables.py for the tables

The set-up of logits.py; in all arms half of the student's loss is cross-entropy on the text (but `alone`: all of it).
"""

from __future__ import annotations

from typing import Any

from harness import as_teacher, run, section_of, train
from python_code import BATCH, STEPS, batches, scores, student, teacher, texts, tokenizer, windows

from distill.objective import FromShards
from distill.online import LiveTeacher, Mutual

ARMS = ("frozen", "mutual", "alone")


def arm_of(arm: str, seed: int) -> dict[str, Any]:
    online = {"mode": "mutual" if arm == "mutual" else "teacher"}
    model, section = student(seed), section_of(STEPS, BATCH, seed, kd_weight=0.5, online=online)
    objective: Any
    if arm == "alone":
        objective = FromShards(model, {}, section, labels_alone=True)
    else:
        objective = (Mutual if arm == "mutual" else LiveTeacher)(model, teacher(0), section)
    found = train(objective, batches(texts(windows()["student"]), seed), section)
    result = scores(model)
    if arm == "mutual":
        trained = scores(as_teacher(objective.teacher, tokenizer()).model)
        result["items"]["teacher loss"] = trained["items"]["loss"]
    elif arm == "frozen":
        result["items"]["teacher loss"] = scores(teacher(0).model)["items"]["loss"]
    return {**result, "training": found}


if __name__ == "__main__":
    run("mutual", ARMS, arm_of)
