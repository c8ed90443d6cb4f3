"""Experiment: does it help to choose the rows from which the demo's student learns?

    python benchmarks/experiments/selection.py         # then run tables.py for the tables

The recipe is that of the demo (prompts/reasoning) with the questions of data/reasoning.jsonl and of questions.py. The
recipe stores the 64 most probable ids at each position. The script prints two things:

- For each score of `curate.confidence`: how well it tells right answers from wrong ones (AUC: the probability that a
  right answer has a better score than a wrong one). The bootstrap of the intervals draws whole groups: the questions of
  one group differ only in names and numbers. For comparison, the number of tokens is a score too; fewer tokens are
  better.
- The likelihood of held-out texts under students that learned from 48 rows each. In the arms `random`, `logprob` (the
  highest mean log-probability) and `spread`, the rows are chosen without using the known answers. In the arm `answer`,
  the rows are drawn from the rows with a right answer. The seed is used for the draws and for the training.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from harness import CACHE, TINY, run, sized
from questions import questions

from distill.training import train
from synthgen import corpus, durable
from synthgen.auditing import audit
from synthgen.curation import curate
from synthgen.generation.driver import generate
from synthgen.lm.model import LanguageModel
from synthgen.recipe import Recipe, load_recipe, shipped
from synthgen.records import Record
from synthgen.seeds.groups import mask
from synthgen.tables.engines import TeacherSection

ROWS, RESAMPLES = sized(48, 4), sized(2000, 20)
LIMIT = 12 if TINY else "null"  # number of questions
ARMS = ("random", "logprob", "spread", "answer")
SELECTIONS = {
    "random": {"by": "random"},
    "logprob": {"by": "score", "score": "teacher_logprob"},
    "spread": {"by": "spread"},
    "answer": {"by": "random"},
}
FOLDER = CACHE / "selection"
RUN = FOLDER / "run"


def recipe_of(arm: str, seed: int) -> Recipe:
    """The demo's recipe, with the questions of this experiment and with the arm's way to select rows."""
    path = FOLDER / "questions.jsonl"
    if not path.exists():
        shorter = [json.loads(line) for line in (shipped("data") / "reasoning.jsonl").read_text().splitlines()]
        rows = [{"id": one["id"], "question": one["question"], "answer": one["answer"]} for one in shorter]
        rows += [{"id": f"q{n}", "question": q.text, "answer": q.answer} for n, q in enumerate(questions())]
        durable.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    keys = [f"seeds.0.path={path}", f"seeds.0.limit={LIMIT}", "logits={kind: topk, k: 64}", "train.num_train_epochs=1"]
    keys += ["train.batch_size=4", f"train.seed={seed}", f"curate.answer={json.dumps(arm in ('answer', 'right'))}"]
    if arm in SELECTIONS:
        keys.append(f"curate.select={json.dumps({**SELECTIONS[arm], 'rows': ROWS, 'seed': seed})}")
    else:
        keys.append("curate.confidence=true")
    return load_recipe("reasoning", keys)


def scored() -> list[Record]:
    """All rows of the teacher, with their scores. The rows are generated if they are missing, and curated twice: into
    `right`, which has only rows with a right answer, and into `all`, which has rows with a wrong answer too.
    """
    generate(recipe_of("all", 0), RUN)
    for name in ("all", "right"):
        curate(recipe_of(name, 0), RUN, RUN / name)
    return [row for part in ("data", "rejected") for _, rows in corpus.records(RUN / "right", part) for row in rows]


def auc(values: np.ndarray, right: np.ndarray) -> float:
    """The probability that a right answer has a higher value than a wrong one; ties count half (Mann and Whitney)."""
    better = values[right][:, None], values[~right][None, :]
    return float((better[0] > better[1]).mean() + 0.5 * (better[0] == better[1]).mean())


def areas(rows: list[Record]) -> Iterator[str]:
    """A line of a table for each score: the score's AUC with an interval, and the number of rows with this score."""
    known = [
        {**{one["name"]: one["value"] for one in row.scores}, "fewer tokens": -len(row.token_ids or ())} for row in rows
    ]
    groups = np.unique([mask(str(row.prompt[-1]["content"])) for row in rows], return_inverse=True)[1]
    members = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    names = ("teacher_logprob", "teacher_probability", "teacher_entropy_at_least", "teacher_margin", "fewer tokens")
    for name in names:
        sign = -1 if name == "teacher_entropy_at_least" else 1
        value = np.array([sign * one.get(name, np.nan) for one in known])
        right = np.array([one.get("answer", 0) == 1 for one in known])
        draw, found = np.random.default_rng(0), []
        for _ in range(RESAMPLES):
            drawn = np.concatenate([members[g] for g in draw.integers(0, len(members), len(members))])
            drawn = drawn[~np.isnan(value[drawn])]
            found.append(auc(value[drawn], right[drawn]))
        has = ~np.isnan(value)
        low, high = np.quantile(found, [0.025, 0.975])
        area = f"{auc(value[has], right[has]):.3f} [{low:.3f}, {high:.3f}]"
        yield f"| `{name}` | {area} | {has.sum()} | {right[has].sum()} |"


def losses(student: Path, rows: list[Record]) -> list[float]:
    """The mean of −log q over the tokens of each row's completion, in nats."""
    model = LanguageModel.open(TeacherSection(model=str(student.resolve()), device="cpu"))
    found: list[float] = []
    for begin in range(0, len(rows), 16):
        batch = rows[begin : begin + 16]
        ids = [list(row.token_ids or ()) for row in batch]
        for tokens, logq_TV in zip(
            ids, model.logprobs([model.tokens.render(row.prompt) for row in batch], ids), strict=True
        ):
            found.append(-float(logq_TV[range(len(tokens)), tokens].mean()))
    return found


def arm_of(arm: str, seed: int) -> dict[str, Any]:
    recipe, out = recipe_of(arm, seed), RUN / f"{arm}-{seed}"
    # Rows are chosen from a corpus that is curated already. This corpus has no rejected rows from which the student
    # could learn.
    curate(recipe, RUN / ("right" if arm == "answer" else "all"), out)
    chosen = [row for _, rows in corpus.records(out, split="train") for row in rows]
    audit(recipe, out)
    began = time.process_time()
    done = train(recipe, out, FOLDER / f"student-{arm}-{seed}").training
    spent = {"cpu_s": round(time.process_time() - began, 1), "steps": done.steps, "tokens": done.tokens}
    held_out = [row for _, rows in corpus.records(RUN / "right", split="test") for row in rows]
    right = {one.id for one in scored() if any(s["name"] == "answer" and s["value"] == 1 for s in one.scores)}
    items = {"loss": losses(FOLDER / f"student-{arm}-{seed}", held_out)}
    return {
        "items": items,
        "rows": len(chosen),
        "right rows": sum(row.id in right for row in chosen),
        "training": spent,
    }


if __name__ == "__main__":
    rows = scored()
    print("| score | AUC | rows | right |\n|---|---|---|---|")
    print("\n".join(areas(rows)))
    run("selection", ARMS[:2], arm_of)
    run("selection", ARMS[2:], arm_of)
