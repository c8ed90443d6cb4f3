"""Experiment: should a student learn on the teacher's texts or on its own texts? The task: running parity of 20 bits.

    python benchmarks/experiments/online.py            # then run tables.py for the tables

With the same seed, all arms start from the same weak student, which has just begun to do better than guessing.

- `weak`: the weak student without further training.
- `sft`: the student learns the teacher's texts by cross-entropy.
- `offline`: the student learns the live teacher's distributions on the same texts.
- `on-policy-…`: the student learns the live teacher's distributions on texts that the student wrote (λ = 1).
- `sft-long`, `offline-long`: `sft` and `offline` with as many updates as fit into the processor time of
  `on-policy-forward`.

All arms except `weak` and the two `-long` arms take the same number of updates. In every arm, an update takes the same
number of rows. The experiment `online-again` repeats all arms with ten new seeds. All settings were chosen on the first
three seeds, before `online-again` was run.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

from harness import as_teacher, cached, parameters, read, run, section_of, sized, train
from parity import ASK, END, BitTokenizer, answer, model, rationale, right, strings

from distill.streaming.batches import Order
from distill.targets.live import LiveTeacher, OnPolicy, Text, key
from distill.targets.stored import FromStored
from synthgen.teachers.transformers import LocalModel

ON_POLICY = ("on-policy-forward", "on-policy-reverse", "on-policy-jsd")
ARMS = ("weak", "sft", "offline", *ON_POLICY, "sft-long", "offline-long")
BITS, TRAIN, TEST, NEW = 20, sized(2000, 64), sized(500, 8), 24
STEPS, BATCH, RATE = sized(90, 2), 32, 1e-3
AGAIN = range(3, sized(13, 4))
ROUND, ROUNDS, ENOUGH, TEACHER_STEPS = sized(20, 2), sized(40, 1), 0.5, sized(300, 2)
LOSSES = {"on-policy-reverse": "reverse_kl", "on-policy-jsd": "jsd"}


def gold() -> list[Text]:
    """Every training string, with its true running parities and its answer as the completion."""
    rows = []
    for n, b in enumerate(strings(BITS, TRAIN, TEST)[0]):
        prompt = [*b, ASK]
        rows.append(Text(str(n), prompt, [*rationale(b), answer(b), END], None, True, prompt))
    return rows


@functools.cache
def teacher() -> LocalModel:
    """A model that is larger than the student, trained on the true texts."""

    def make() -> Any:
        larger = model(64, 4, seed=100)
        section = section_of(TEACHER_STEPS, 48, 100, learning_rate=2e-3)
        print("teacher", train(FromStored(larger, section), batches(gold(), 100, 48), section))
        return larger

    trained = as_teacher(cached("parity-teacher-300", make), BitTokenizer(), 512)
    print("teacher", {name: sum(v) / len(v) for name, v in held_out(trained).items()})
    return trained


@functools.cache
def written() -> list[Text]:
    """The training strings with the teacher's own completions."""
    rows = gold()
    replies = teacher().complete([r.prompt for r in rows], [key(n) for n in range(len(rows))], 1.0, NEW)
    return [Text(r.id, r.prompt, list(y.tokens), None, True, r.prompt) for r, y in zip(rows, replies, strict=True)]


def batches(rows: list[Any], seed: int, batch: int = BATCH) -> Any:
    """Returns a function that takes the number of a training step and returns the rows of this step, in the order of
    the package's training.
    """
    return lambda step: [rows[i] for i in Order(len(rows), batch, seed).rows(step)]


def held_out(writer: LocalModel) -> dict[str, list[float]]:
    """The measures that `parity.right` computes for the completions of `writer` on the held-out strings."""
    bits = strings(BITS, TRAIN, TEST)[1]
    return right(writer, [[*b, ASK] for b in bits], bits, NEW)


@functools.cache
def weak(seed: int) -> Any:
    """The student from which all arms start, trained by cross-entropy until it does better than guessing."""
    student, loss = model(48, 2, seed), 1.0
    for number in range(ROUNDS):
        if loss < ENOUGH:
            break
        section = section_of(ROUND, BATCH, 100 * seed + number, learning_rate=2e-3)
        objective = FromStored(student, section)
        loss = train(objective, batches(written(), 100 * seed + number), section)["last"]["loss"]
    return student


def arm_of(arm: str, seed: int, experiment: str = "online") -> dict[str, Any]:
    student, steps, rows = copy.deepcopy(weak(seed)).train(), STEPS, written()
    if arm.endswith("-long"):
        spent = [read(experiment, name, seed)["training"]["cpu_s"] for name in ("on-policy-forward", arm[:-5])]
        steps = max(1, round(STEPS * spent[0] / max(spent[1], 0.1)))  # a quick run may take 0.0 s
    online = {"mode": "teacher"}
    if arm in ON_POLICY:
        online = {"mode": "on_policy", "lmbda": 1.0, "max_new_tokens": NEW}
    section = section_of(steps, BATCH, seed, learning_rate=RATE, loss=LOSSES.get(arm, "forward_kl"), online=online)
    objective: Any
    if arm.startswith("sft"):
        objective = FromStored(student, section)
    elif arm in ON_POLICY:
        objective = OnPolicy(student, teacher(), section, steps)
    else:
        objective = LiveTeacher(student, teacher(), section)
    training = {} if arm == "weak" else train(objective, batches(rows, seed), section)
    items = held_out(as_teacher(student, BitTokenizer(), 512))
    return {"items": items, "parameters": parameters(student), "training": training}


if __name__ == "__main__":
    run("online", ARMS, arm_of)
    run("online-again", ARMS, functools.partial(arm_of, experiment="online-again"), AGAIN)
