"""Whose texts should the student learn from? Running parity of 20 bits.

    python benchmarks/experiments/online.py            # and tables.py for the tables

The student begins weak (its cross-entropy has just left the plateau of guessing), the same in every arm of a seed.
`sft`: cross-entropy on the teacher's texts. `offline`: the live teacher's distributions on the same texts.
`on-policy-*`: on the student's own texts, λ = 1. All of these take as many updates of as many rows; the `-long` arms
take as many more as fill the processor time of `on-policy-forward`. `online-again` is the same with new seeds, after
all numbers had been chosen on the first three.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

from harness import as_teacher, cached, parameters, read, run, section_of, train
from parity import ASK, END, Nothing, answer, model, rationale, right, strings

from distill.data import batch_rows
from distill.targets.live import LiveTeacher, OnPolicy, Text, key
from distill.targets.stored import FromShards
from synthgen.teachers.transformers import LocalModel

ON_POLICY = ("on-policy-forward", "on-policy-reverse", "on-policy-jsd")
ARMS = ("weak", "sft", "offline", *ON_POLICY, "sft-long", "offline-long")
BITS, TRAIN, TEST, NEW = 20, 2000, 500, 24
STEPS, BATCH, RATE = 90, 32, 1e-3
AGAIN = range(3, 13)
ROUND, ENOUGH, TEACHER_STEPS = 20, 0.5, 300
LOSSES = {"on-policy-reverse": "reverse_kl", "on-policy-jsd": "jsd"}


def gold() -> list[Text]:
    """Every training string with its true running parities and answer."""
    found = []
    for n, b in enumerate(strings(BITS, TRAIN, TEST)[0]):
        prompt = [*b, ASK]
        found.append(Text(str(n), prompt, [*rationale(b), answer(b), END], None, True, prompt))
    return found


@functools.cache
def teacher() -> LocalModel:
    """A larger model that has learned the true texts."""

    def make() -> Any:
        made = model(64, 4, seed=100)
        section = section_of(TEACHER_STEPS, 48, 100, learning_rate=2e-3)
        print("teacher", train(FromShards(made, {}, section, labels_alone=True), batches(gold(), 100, 48), section))
        return made

    found = as_teacher(cached("parity-teacher-300", make), Nothing(), 512)
    print("teacher", {name: sum(v) / len(v) for name, v in held_out(found).items()})
    return found


@functools.cache
def written() -> list[Text]:
    """The training strings with the teacher's own completions."""
    rows = gold()
    replies = teacher().complete([r.prompt for r in rows], [key(n) for n in range(len(rows))], 1.0, NEW)
    return [Text(r.id, r.prompt, list(y.token_ids), None, True, r.prompt) for r, y in zip(rows, replies, strict=True)]


def batches(rows: list[Any], seed: int, batch: int = BATCH) -> Any:
    """A function of the step, as in the product."""
    return lambda step: [rows[i] for i in batch_rows(step, len(rows), batch, seed)]


def held_out(writer: LocalModel) -> dict[str, list[float]]:
    bits = strings(BITS, TRAIN, TEST)[1]
    return right(writer, [[*b, ASK] for b in bits], bits, NEW)


@functools.cache
def weak(seed: int) -> Any:
    """The student that all arms begin with: rounds of cross-entropy until its loss leaves the plateau of guessing."""
    made, loss = model(48, 2, seed), 1.0
    for number in range(40):
        if loss < ENOUGH:
            break
        section = section_of(ROUND, BATCH, 100 * seed + number, learning_rate=2e-3)
        objective = FromShards(made, {}, section, labels_alone=True)
        loss = train(objective, batches(written(), 100 * seed + number), section)["last"]["loss"]
    return made


def arm_of(arm: str, seed: int, experiment: str = "online") -> dict[str, Any]:
    student, steps, rows = copy.deepcopy(weak(seed)).train(), STEPS, written()
    if arm.endswith("-long"):
        spent = [read(experiment, name, seed)["training"]["cpu_s"] for name in ("on-policy-forward", arm[:-5])]
        steps = round(STEPS * spent[0] / spent[1])
    online = {"mode": "teacher"}
    if arm in ON_POLICY:
        online = {"mode": "on_policy", "lmbda": 1.0, "max_new_tokens": NEW}
    section = section_of(steps, BATCH, seed, learning_rate=RATE, loss=LOSSES.get(arm, "forward_kl"), online=online)
    objective: Any
    if arm.startswith("sft"):
        objective = FromShards(student, {}, section, labels_alone=True)
    elif arm in ON_POLICY:
        objective = OnPolicy(student, teacher(), section, steps)
    else:
        objective = LiveTeacher(student, teacher(), section)
    found = {} if arm == "weak" else train(objective, batches(rows, seed), section)
    items = held_out(as_teacher(student, Nothing(), 512))
    return {"items": items, "parameters": parameters(student), "training": found}


if __name__ == "__main__":
    run("online", ARMS, arm_of)
    run("online-again", ARMS, functools.partial(arm_of, experiment="online-again"), AGAIN)
