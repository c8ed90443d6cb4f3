"""How near is the student to its teacher, on seeds that neither training nor tuning saw?

    evaluate(recipe, "runs/demo")         # → runs/demo/student/evaluation.json

Decoders: KL(teacher ‖ model) over the full vocabulary against the live teacher, on the teacher's own held-out
completions; agreement of the likeliest token; accuracy of greedy answers; parameters, peak memory, speed.
Intervals are paired bootstraps over held-out seeds: completions of one seed are not independent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.card import write_model_card
from distill.evaluation.cost import measure
from distill.intervals import RESAMPLES, Array, interval
from synthgen import corpus, durable
from synthgen.errors import CorpusError, UserError
from synthgen.recipe import Recipe
from synthgen.records import Record
from synthgen.requests import Request
from synthgen.ui import UI

if TYPE_CHECKING:
    from synthgen.teachers.transformers import LocalModel


def evaluate(
    recipe: Recipe,
    run: str | Path,
    student: str | Path | None = None,
    *,
    fresh: bool = False,
    teacher: LocalModel | None = None,
    ui: UI | None = None,
) -> dict[str, Any]:
    """Measure `run`/student (or `student`) on the held-out split; returns and writes evaluation.json, and the card."""
    ui = ui or UI(quiet=True)
    if student and (Path(student) / "corpus" / "manifest.json").exists():  # trained on a dataset's rows
        source = Path(student) / "corpus"
    else:
        source = corpus.resolve(Path(run), prefer=("curated",))
    folder = Path(student) if student else source.parent / "student"
    if not (folder / "training.json").exists():
        raise CorpusError(f"there is no trained student at {folder}", f"train one: `distill train {run}`")
    training = (folder / "training.json").read_bytes()
    made = corpus.verify(source)
    inputs = {
        "training_sha256": durable.digest(training.decode()),
        "curated_sha256": durable.digest(made["files"]),
        "evaluate": recipe.evaluate.model_dump(mode="json"),
    }
    path = folder / "evaluation.json"
    if path.exists() and not fresh:
        old = json.loads(path.read_text())
        if old["inputs"] == inputs:
            ui.note(f"{folder} is evaluated; nothing to do")
            return dict(old)
    from distill.data import rows  # loads torch: not for a student that is evaluated already

    facts = json.loads(training)
    held_out = [record for record, _ in rows(source, "test")]
    if not held_out:
        raise UserError(f"{source} has no held-out rows", "set split.test in the recipe")
    if facts["kind"] in ("classifier", "encoder"):
        found = _evaluate_classifier(recipe, facts["kind"], folder, held_out, ui)
    elif facts["kind"] == "sentence":
        from distill.evaluation.similarity import evaluate_sentence

        found = evaluate_sentence(recipe, folder, held_out, ui)
    else:
        from distill.evaluation.fidelity import evaluate_decoder

        found = evaluate_decoder(recipe, facts, source, folder, held_out, teacher, ui)
    result = {"inputs": inputs, "kind": facts["kind"], **found}
    if facts["curated_sha256"] == inputs["curated_sha256"]:  # else the card tells of another corpus than this one
        write_model_card(folder, recipe, made, evaluation=result)
    durable.write_json(path, result)  # last: it says that the student is evaluated
    return result


def _evaluate_classifier(recipe: Recipe, kind: str, folder: Path, held_out: list[Record], ui: UI) -> dict[str, Any]:
    from distill.students.classifier import open_classifier, prompt_text

    texts = [prompt_text(r) for r in held_out]
    clusters, ones, seed = [r.seed_id for r in held_out], np.ones(len(held_out)), recipe.evaluate.seed
    teacher_RL = np.array([r.label_probs for r in held_out], np.float64)
    choice = teacher_RL.argmax(-1)
    student = open_classifier(kind, folder)
    labels = student.labels
    references = np.array(
        [labels.index(r.reference[0]) if r.reference and r.reference[0] in labels else -1 for r in held_out]
    )
    table: dict[str, dict[str, Any]] = {"teacher": _agreement(teacher_RL, teacher_RL, references, clusters, seed)}
    majority = np.zeros_like(teacher_RL)
    majority[:, np.bincount(choice).argmax()] = 1
    table["majority class"] = _agreement(majority, teacher_RL, references, clusters, seed)
    for name, path in (("cross-entropy", folder / "baseline"), ("distilled", folder)):
        if (path / "model.safetensors").exists():
            probs_RL = open_classifier(kind, path).predict(texts)
            table[name] = _agreement(probs_RL, teacher_RL, references, clusters, seed)
    if kind == "encoder":
        from distill.students.encoder import untrained

        probs_RL = untrained(recipe, labels).predict(texts)
        table["untrained"] = _agreement(probs_RL, teacher_RL, references, clusters, seed)
    ui.note("evaluate: speed and memory of teacher and student, each in a process of its own")
    asked = [_labeled(r, labels)._asdict() for r in held_out[: recipe.evaluate.max_prompts]]
    job = {"what": "classify", "teacher": recipe.teacher.model_dump(mode="json"), "requests": asked}
    measured = measure(job)
    measured.pop("texts")
    table["teacher"] |= measured
    table["distilled"] |= measure({"what": "student", "kind": kind, "folder": str(folder.resolve()), "texts": texts})
    margin = (table["distilled"]["_agree"] - table["majority class"]["_agree"]).astype(float)
    result = {
        "rows": len(held_out),
        "labels": labels,
        "bootstrap": {"resamples": RESAMPLES, "seed": seed, "unit": "held-out seed", "interval": 0.95},
        "agreement above majority": interval(margin, ones, clusters, seed),
        "speed-up": table["distilled"]["rows_per_second"] / table["teacher"]["rows_per_second"],
        "confusion": np.histogram2d(
            choice, student.predict(texts).argmax(-1), bins=[np.arange(len(labels) + 1) - 0.5] * 2
        )[0]
        .astype(int)
        .tolist(),
    }
    for entry in table.values():
        entry.pop("_agree", None)
    return {**result, "table": table}


def _agreement(
    probs_RL: Array, teacher_RL: Array, references: Array, clusters: Sequence[str], seed: int
) -> dict[str, Any]:
    """Agreement with the teacher's choice, accuracy against the reference, KL(teacher ‖ model)."""
    ones = np.ones(len(probs_RL))
    choice = probs_RL.argmax(-1)
    agree = (choice == teacher_RL.argmax(-1)).astype(float)
    known = references >= 0
    floor = 1e-9
    kl = (teacher_RL * (np.log(teacher_RL.clip(floor)) - np.log(probs_RL.clip(floor)))).sum(-1)
    return {
        "agreement": interval(agree, ones, clusters, seed),
        "accuracy": interval(
            (choice == references)[known].astype(float), ones[known], list(np.array(clusters)[known]), seed
        )
        if known.any()
        else None,
        "kl": interval(kl, ones, clusters, seed),
        "_agree": agree,
    }


def _labeled(record: Record, labels: list[str]) -> Request:
    question = str(record.prompt[-1]["content"])
    messages = record.teacher_prompt or record.prompt
    return Request("classify", messages, labels=tuple(labels), text=question, id=record.id)
