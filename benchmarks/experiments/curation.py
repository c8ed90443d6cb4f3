"""Experiment: does curation of the corpus make a student better, and which part of curation does this?

    python benchmarks/experiments/curation.py          # then run tables.py for the tables

The task and the teacher are those of sums.py. The teacher answers each of 80 sums four times at temperature 1. So the
raw corpus has four rows for each question. Some answers are wrong, some rows are copies, and some answers were cut off.
Each arm chooses rows from this corpus, and a student with low-rank adapters learns from these rows by cross-entropy.
Every student takes the same number of optimizer steps (STEPS), which is one epoch of the raw corpus. So a student that
learns from fewer rows sees each row more often.

- `raw`: all rows.
- `curated`: the rows that are left after the rules that are on by default. One of these rules compares the answers with
  the known answers.
- `deduplicated`: only the rule `duplicates` is on. `verified`: only the rule `answer` is on.
- `random`: as many rows as `curated` has, drawn at random from the raw rows.
- `score`: as many rows as `curated` has. They are the raw rows with the highest mean log-probability under the teacher
  (`teacher_logprob`). The known answers are not used.
- `untrained`: the student before training.

The random seed decides the rows of `random`, the order of rows with equal scores, the order of the rows in training,
and the first weights of the adapters.

Measures, one number for each of the 140 held-out sums, which are not in the corpus:

- `right`: 1 if the greedy answer is right according to the task's scorer.
- `gold`: −log q of the gold answer after the prompt, in nats. The gold answer has the form of the few-shot
  examples, with the steps and the answer ("14 - 6 = 8. 8 + 31 = 39.\\nAnswer: 39"). A program computes it.
- `numbers`: the part of `gold` for the tokens of the three numbers after "=" and after "Answer:". The student must
  compute these numbers.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from adapters import surprise, tokens, trained, untrained
from harness import CACHE, read, run, sized
from sums import MARKER, PATH, recipe, score

from distill.data import Example
from synthgen import corpus, generate
from synthgen.curation import curate
from synthgen.lm.model import LanguageModel
from synthgen.recipe import Recipe
from synthgen.recipe.curate import rules
from synthgen.records import Message, Record
from synthgen.ui import UI

NAME = "curation"
RUN = CACHE / NAME / "run"
SEEDED, HELD_OUT = sized(80, 4), sized(140, 2)  # number of seeds, and number of the held-out problems after them
SAMPLES, NEW_TOKENS = sized(4, 2), 48
STEPS, BATCH = sized(40, 1), 8  # 320 rows: one epoch of the raw corpus
ARMS = ("raw", "curated", "random", "deduplicated", "verified", "score", "untrained")
DEFAULTS = [name for name, rule in rules().items() if rule.on]
KEEPS: dict[str, dict[str, object]] = {
    "raw": {},
    "curated": dict.fromkeys(DEFAULTS, True),
    "deduplicated": {"duplicates": True},
    "verified": {"answer": True},
    "random": {"select": {"by": "random"}},
    "score": {"confidence": True, "select": {"by": "score", "score": "teacher_logprob"}},
}
"""For each arm: the settings of the rules that are on. All other rules are off. The rule `select` also gets the number
of rows of `curated`, and the seed.
"""


def recipe_of(arm: str, seed: int) -> Recipe:
    """The recipe of sums/ for this experiment, with the rules of the arm and the random seed."""
    curated: dict[str, Any] = {**dict.fromkeys(DEFAULTS, False), **KEEPS[arm]}
    if "select" in curated:
        curated["select"] = {**curated["select"], "rows": len(rows_of("curated", 0)), "seed": seed}
    keys = {
        "seeds.0.limit": SEEDED,
        "split.test": 0,
        "generate.temperature": 1,
        "generate.num_generations": SAMPLES,
        "generate.max_new_tokens": NEW_TOKENS,
        "curate": curated,
        "train.kd_weight": 0,
        "train.across": None,
        "train.batch_size": BATCH,
        "train.max_steps": STEPS,
        "train.save_steps": STEPS + 1,
        "train.seed": seed,
    }
    return recipe([f"{key}={json.dumps(value)}" for key, value in keys.items()])


@functools.cache
def rows_of(arm: str, seed: int) -> list[Record]:
    """The rows that the arm chooses from the raw corpus."""
    folder = RUN / f"{arm}-{seed}"
    curate(recipe_of(arm, seed), RUN, folder, workers=1)
    return [row for _, rows in corpus.records(folder, split="train") for row in rows]


def question_of(row: Record) -> str:
    return str(row.prompt[-1]["content"])


def is_right(row: Record) -> bool:
    """Whether the row's answer is right according to the task's scorer."""
    assert row.reference
    return score(row.text, row.reference[0]) == 1


def facts_of(rows: Sequence[Record]) -> dict[str, float]:
    """Facts about rows: the numbers of rows, of distinct questions, and of distinct pairs of a question and a text.
    Also the share of rows with a right answer, and the share of rows that were cut off at the maximum number of tokens.
    """
    return {
        "rows": len(rows),
        "questions": len({question_of(row) for row in rows}),
        "texts": len({(question_of(row), row.text) for row in rows}),
        "right": sum(map(is_right, rows)) / len(rows),
        "cut": sum(row.finish_reason == "length" for row in rows) / len(rows),
    }


def worked(question: str) -> str:
    """The gold answer of a sum, such as "14 - 6 = 8. 8 + 31 = 39.\\nAnswer: 39". Raises ValueError for a text that is
    not a sum of whole numbers with + and -.
    """
    first, *rest = question.split()
    total, steps = int(first), []
    for sign, number in zip(rest[::2], rest[1::2], strict=True):
        if sign not in "+-":
            raise ValueError(f"{question!r} is not a sum")
        after = total + int(f"{sign}{number}")
        steps.append(f"{total} {sign} {number} = {after}.")
        total = after
    return f"{' '.join(steps)}\n{MARKER} {total}"


def computed(text: str, ids: Sequence[int]) -> list[bool]:
    """For each token of a gold answer, whether the token is part of a number after "=" or after "Answer:"."""
    ends = [len(tokens().decode(ids[: n + 1])) for n in range(len(ids))]
    spans = [found.span(1) for found in re.finditer(rf"(?:=|{MARKER}) (-?\d+)", text)]
    starts = [0, *ends[:-1]]
    return [any(a < stop and b > start for start, stop in spans) for a, b in zip(starts, ends, strict=True)]


@functools.cache
def held_out() -> list[tuple[list[Message], str]]:
    """(prompt, known answer) of each held-out problem. A prompt is a prompt of the corpus in which the question is
    replaced.
    """
    problems = [json.loads(line) for line in PATH.read_text().splitlines()][SEEDED : SEEDED + HELD_OUT]
    like = rows_of("raw", 0)[0].prompt
    learned = {question_of(row) for row in rows_of("raw", 0)}
    assert len(problems) == HELD_OUT, "there are fewer problems than the experiment needs"
    assert not learned & {one["question"] for one in problems}, "a held-out problem is in the corpus"
    assert all(worked(one["question"]).endswith(f" {one['answer']}") for one in problems), "a gold answer is wrong"
    return [([*like[:-1], {**like[-1], "content": one["question"]}], one["answer"]) for one in problems]


def measures(model: Any) -> dict[str, list[float]]:
    """See the docstring of the module."""
    prompts = [tokens().render(prompt) for prompt, _ in held_out()]
    written = LanguageModel.of(model, tokens(), 128).complete(prompts, ["0"] * len(prompts), 0.0, NEW_TOKENS)
    right = [score(tokens().decode(w.tokens), answer) for w, (_, answer) in zip(written, held_out(), strict=True)]
    texts = [worked(str(prompt[-1]["content"])) for prompt, _ in held_out()]
    gold = [
        tokens().answer(prompt, [{"role": "assistant", "content": text}])
        for (prompt, _), text in zip(held_out(), texts, strict=True)
    ]
    nats = surprise(model, prompts, gold)
    counted = [computed(text, ids) for text, ids in zip(texts, gold, strict=True)]
    numbers = [sum(itertools.compress(one, which)) for one, which in zip(nats, counted, strict=True)]
    return {"right": right, "gold": [sum(one) for one in nats], "numbers": numbers}


def arm_of(arm: str, seed: int) -> dict[str, Any]:
    if arm == "untrained":  # its result does not depend on the random seed
        if seed:
            return {"items": read(NAME, arm, 0)["items"]}
        section = recipe_of("raw", 0).train
        assert section is not None
        return {"items": measures(untrained(section))}
    section, rows = recipe_of(arm, seed).train, rows_of(arm, seed)
    assert section is not None
    examples = [
        Example(row.id, tokens().render(row.prompt), tokens().answer(row.prompt, row.completion), None, True)
        for row in rows
    ]
    model, training = trained(section, examples)
    began = cpu_s()
    items = measures(model)
    return {"items": items, "corpus": facts_of(rows), "training": training, "answering": {"cpu_s": cpu_s() - began}}


def make_corpus(_: str, seed: int) -> dict[str, Any]:
    """Ask the teacher, and return facts about the corpus and its cost. If the corpus already exists, its cost is not
    measured.
    """
    made = recipe_of("raw", seed)
    known = (RUN / "generated" / "manifest.json").exists()
    began = cpu_s()
    generate(made, RUN, ui=UI())
    spent = {"generation": None if known else cpu_s() - began}
    known, began = (RUN / "curated-0").exists(), cpu_s()
    curated = rows_of("curated", 0)
    spent["curation"] = None if known else cpu_s() - began
    rows = rows_of("raw", seed)
    rejected = Counter(
        reason["check"]
        for _, some in corpus.records(RUN / "curated-0", "rejected")
        for row in some
        for reason in row.verdicts
    )
    return {
        "items": {"right": [float(is_right(row)) for row in rows]},
        "corpus": facts_of(rows),
        "curated": facts_of(curated),
        "rejected": dict(rejected),
        "tokens": sum(len(row.token_ids or ()) for row in rows),
        "cpu_s": spent,
    }


def cpu_s() -> float:
    """Seconds of CPU time that this process and its finished children have used."""
    return round(sum(os.times()[:4]), 1)


if __name__ == "__main__":
    run(NAME, ("corpus",), make_corpus, seeds=(0,))
    run(NAME, ARMS, arm_of)
