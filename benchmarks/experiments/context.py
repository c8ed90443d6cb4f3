"""Experiment: what share of the teacher's right answers does the demo's student reach on 540 new questions?

    python benchmarks/experiments/context.py           # then run tables.py for the tables

The recipe is that of the demo (prompts/reasoning), so the task is context distillation. Teacher and student are the
same model. The teacher reads six examples before each question, and the student has low-rank adapters and reads only
the question. The held-out questions are those of questions.py. Every answer is greedy.

- `teacher`: the model with the examples.
- `untrained`: the model without the examples. These two arms have no randomness, so they have one result file.
- `student`: the seed of the training determines the first weights of the adapters and the order of the rows. All
  students learn from the same texts of the teacher, which the demo uses too.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from harness import CACHE, TINY, run, sized
from questions import FILLED, questions

from distill.evaluation.answers import answer_in
from distill.students.decoder import open_student
from distill.training import train
from synthgen.auditing import audit
from synthgen.curation import curate
from synthgen.generation.driver import generate
from synthgen.lm.load import pick_device
from synthgen.prompts import load_prompt
from synthgen.recipe import Recipe, load_recipe, local_teacher
from synthgen.requests import Request
from synthgen.seeds.groups import mask
from synthgen.seeds.load import load_seeds
from synthgen.teachers.transformers import LocalModel
from synthgen.verify import matches

ARMS = ("teacher", "untrained", "student")
ASKED = sized(540, 1)  # number of held-out questions
# Keys of the recipe in a quick run
FEW = ["seeds.0.limit=4", "train.max_steps=1", "evaluate.max_new_tokens=4"] if TINY else []


def demo(seed: int) -> Recipe:
    """The demo's recipe, with `seed` as the seed of the training."""
    return load_recipe("reasoning", [f"train.seed={seed}", *FEW])


def check_apart(recipe: Recipe) -> None:
    """Raises ValueError when a held-out question is in the same group as a question in the recipe's seeds."""
    prompt = load_prompt(recipe.prompts, recipe.task)
    seeds = load_seeds(recipe.seeds, recipe.split, prompt.question)
    known = {mask(prompt.question(seed.fields)) for seed in seeds}
    both = [asked.text for asked in questions() if mask(asked.text) in known]
    if both:
        raise ValueError(f"these held-out questions are in groups of the demo's questions: {both}")


def student(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Trains the student in `folder` on the corpus beside this folder, and first makes the corpus if it is missing. A
    repeated call continues. Returns steps, tokens and CPU seconds of the training; the CPU seconds are left out when an
    earlier call did a part of the training.
    """
    corpus, first = folder.parent / "corpus", demo(0)
    generate(first, corpus)
    curate(first, corpus)
    audit(first, corpus)
    anew, began = not folder.exists(), time.process_time()
    training = train(recipe, corpus, folder).training
    spent = {"cpu_s": round(time.process_time() - began, 1)} if anew else {}
    return {"steps": training.steps, "tokens": training.tokens, **spent}


def answers(model: LocalModel, recipe: Recipe, *, as_teacher: bool) -> dict[str, Any]:
    """The greedy answers of a model to all held-out questions, and the CPU seconds that they took.

    An answer is `right` when the text after the marker agrees with the known answer. For `right without marker`, the
    package looks for an answer in the whole text, so a right answer counts even if the model does not write it in the
    required form.
    """
    prompt, most = load_prompt(recipe.prompts, recipe.task), recipe.evaluate.max_new_tokens
    of = prompt.teacher if as_teacher else prompt.student
    asked, marker = questions()[:ASKED], recipe.generate.answer_marker
    greedy = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": most}
    requests = [Request("sample", of({"question": q.text}), greedy, id=f"{n:032x}") for n, q in enumerate(asked)]
    began = time.process_time()
    replies = model.sample(requests, None)
    spent = round(time.process_time() - began, 1)
    given = [answer_in(reply.text, marker) for reply in replies]
    items = {
        "right": [float(matches(answer, q.answer)) for answer, q in zip(given, asked, strict=True)],
        "answered": [float(answer is not None) for answer in given],
        "right without marker": [float(matches(reply.text, q.answer)) for reply, q in zip(replies, asked, strict=True)],
        "prompt_tokens": [len(reply.prompt_token_ids) for reply in replies],
    }
    return {"items": items, "together": FILLED, "answering": {"cpu_s": spent}}


def arm_of(arm: str, seed: int) -> dict[str, Any]:
    recipe = demo(seed)
    check_apart(recipe)
    section, training = local_teacher(recipe), {}
    if arm == "student":
        folder = CACHE / "context" / f"student-{seed}"
        training = {"training": student(recipe, folder)}
        model = open_student(folder, section.batch_size, pick_device(section.device))
    else:
        model = LocalModel.open(section)
    return {**answers(model, recipe, as_teacher=arm == "teacher"), **training}


if __name__ == "__main__":
    run("context", ARMS[:2], arm_of, seeds=(0,))
    run("context", ARMS[2:], arm_of)
