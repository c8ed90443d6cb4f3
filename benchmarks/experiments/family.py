"""Experiment: a teacher of another family and tokenizer solves sums. Which part of its texts does a student need?

    python benchmarks/experiments/family.py         # then run tables.py for the tables

The student is SmolLM2-135M-Instruct with low-rank adapters. All trained arms learn from the same problems, which the
teacher solved, and are asked with the same prompt.

- `text`: the teacher's rationale and then the answer, by cross-entropy.
- `text-aligned`: the same text, and the teacher's stored distributions, aligned to the student's tokens. As in a recipe
  with `across: {}`, cross-entropy has a tenth of the weight.
- `text-aligned-half`: like `text-aligned`, but cross-entropy and the distributions have half of the weight each
  (`kd_weight: 0.5`). This arm was added after the first seed of `text-aligned`.
- `answers`: the answer alone.
- `after`: the answer, and then the rationale. When the student is tested, it writes only the answer.
- `shuffled`: the rationale of another problem, and then the problem's own answer.
- `base`: the student before training. `teacher`: the recorded answers of the teacher.

Measures, one number for each held-out problem:

- `right`: 1 if the greedy answer is right according to the task's scorer.
- `text`: −log q of the teacher's text (rationale, then answer) after the prompt, in nats a byte. This measure and the
  next two are computed only for the first 40 problems that the teacher solved.
- `answer`: −log q of the answer's tokens in "Answer: N" after the prompt, in nats.
- `answer_reasoned`: −log q of the same tokens after the prompt and the teacher's rationale, in nats.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import adapters
import numpy as np
from adapters import surprise, tokens
from harness import run, sized
from sums import MARKER, Lesson, corpus, recipe, score

from distill.data import Choice, Example, TrainingSet
from distill.targets.across import facts, load_across
from synthgen.lm.model import LanguageModel

ALIGNED = {"text-aligned": 0.9, "text-aligned-half": 0.5}  # arm → kd_weight
ARMS = ("text", "base", "teacher", "text-aligned", "answers", "after", "shuffled")
NEW_TOKENS = {"answers": 12, "after": 12}  # 12 tokens suffice for an answer; other arms may write RATIONALE_TOKENS
RATIONALE_TOKENS = sized(48, 4)
STEPS = sized(30, 1)
LIKELIHOODS = 40  # held-out problems whose likelihoods are computed


@functools.cache
def aligned() -> TrainingSet:
    """The teacher's texts for the problems that it solved, in the student's tokens, with the aligned distributions."""
    section = recipe().train
    assert section is not None
    assert section.across is not None
    data = load_across(corpus().folder, tokens(), section.across, Choice(section.max_length))
    return TrainingSet([example for example in data.examples if example.kept], data.meta, data.left_out)


def texts_of(arm: str, lessons: Sequence[Lesson], seed: int) -> list[str]:
    """The text that a student of the arm learns for each problem."""
    answers = [f"{MARKER} {lesson.answer}" for lesson in lessons]
    why = [lesson.rationale for lesson in lessons]
    if arm == "answers":
        return answers
    if arm == "after":
        return [f"{a}\n{w}" for a, w in zip(answers, why, strict=True)]
    if arm == "shuffled":  # each problem gets the rationale of the next problem in a random cycle
        order = np.random.default_rng(seed).permutation(len(lessons))
        why = [why[i] for i in np.roll(order, -1)[np.argsort(order)]]
    return [f"{w}\n{a}" for w, a in zip(why, answers, strict=True)]


def rows_of(arm: str, seed: int) -> list[Example]:
    """The training rows of an arm."""
    if arm in ALIGNED:
        return aligned().examples
    lessons = corpus().train
    assert [lesson.id for lesson in lessons] == [example.id for example in aligned().examples], "the arms' rows differ"
    rows = []
    for lesson, text in zip(lessons, texts_of(arm, lessons, seed), strict=True):
        completion = tokens().answer(lesson.prompt, [{"role": "assistant", "content": text}])
        rows.append(Example(lesson.id, tokens().render(lesson.prompt), completion, None, True))
    return rows


def trained(arm: str, seed: int) -> tuple[Any, dict[str, Any]]:
    """The trained student of an arm with its adapters merged, and the facts of its training."""
    section = recipe().train
    assert section is not None
    changed = {"seed": seed, "max_steps": STEPS, "save_steps": STEPS + 1, "kd_weight": ALIGNED.get(arm, 0.0)}
    meta = aligned().meta if arm in ALIGNED else None
    model, found = adapters.trained(section.model_copy(update=changed), rows_of(arm, seed), meta)
    if meta is not None and section.across is not None:
        found["across"] = vars(facts(aligned(), section.across))
    return model, found


def arm_of(arm: str, seed: int) -> dict[str, Any]:
    if arm == "teacher":
        held_out = corpus().held_out
        right = [score(str(row.completion[-1]["content"]), row.reference[0]) for row in held_out if row.reference]
        return {"items": {"right": right}}
    if arm == "base":
        return {"items": untrained()}
    model, training = trained(arm, seed)
    return {"items": measures(model, NEW_TOKENS.get(arm, RATIONALE_TOKENS)), "training": training}


@functools.cache
def untrained() -> dict[str, list[float]]:
    """The measures of the student before training, which are the same for every seed."""
    section = recipe().train
    assert section is not None
    return measures(adapters.untrained(section), RATIONALE_TOKENS)


def measures(model: Any, new_tokens: int) -> dict[str, list[float]]:
    """See the docstring of the module."""
    held_out, solved = corpus().held_out, corpus().solved[:LIKELIHOODS]
    writer = LanguageModel.of(model, tokens(), 128)
    prompts = [tokens().render(row.prompt) for row in held_out]
    written = writer.complete(prompts, ["0"] * len(prompts), 0.0, new_tokens)
    right = [
        score(tokens().decode(w.tokens), row.reference[0])
        for w, row in zip(written, held_out, strict=True)
        if row.reference
    ]
    given = [[{"role": "assistant", "content": text}] for text in texts_of("text", solved, 0)]
    whole = [tokens().answer(one.prompt, text) for one, text in zip(solved, given, strict=True)]
    asked = [tokens().render(one.prompt) for one in solved]
    nats = surprise(model, asked, whole)
    marker, digits = tokens().ids(MARKER), [tokens().ids(f" {one.answer}") for one in solved]
    ends = [end_of_answer(ids, answer) for ids, answer in zip(whole, digits, strict=True)]
    alone = surprise(model, [[*ids, *marker] for ids in asked], digits)
    return {
        "right": right,
        "text": [sum(n) / len(t[0]["content"].encode()) for n, t in zip(nats, given, strict=True)],
        "answer": [sum(n) for n in alone],
        "answer_reasoned": [sum(n[end - len(answer) : end]) for n, end, answer in zip(nats, ends, digits, strict=True)],
    }


def end_of_answer(ids: Sequence[int], answer: Sequence[int]) -> int:
    """The index after the answer's last token in the tokens of a text. The text ends with the answer and an end of the
    turn.
    """
    ends = [end for end in range(len(answer), len(ids) + 1) if list(ids[end - len(answer) : end]) == list(answer)]
    assert ends, "the tokens of the answer are not those of the text"
    return ends[-1]


if __name__ == "__main__":
    run("family", ARMS, arm_of)
    run("family", ("text-aligned-half",), arm_of)
