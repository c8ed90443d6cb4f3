"""Compares students that choose a label with the teacher's recorded probabilities: agreement, accuracy, KL and cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from distill.cost import MEASURES as COSTS
from distill.cost import measure, row_of
from distill.evaluation import timing
from distill.evaluation.asking import question
from distill.evaluation.grouped import DIFFERENCE, SHARE, Scale, widened
from distill.evaluation.lost import AGREEMENT, BASE, NO_REFERENCE, OF_ITSELF, RIGHT, by_role, calibrated, compared
from distill.evaluation.slices import binned
from distill.evaluation.subject import Subject
from distill.held_out import HeldOut
from distill.intervals import RESAMPLES, Array, interval
from distill.students.classifier import Classifier
from distill.students.labels import Predicts
from synthgen import corpus
from synthgen.errors import CorpusError
from synthgen.recipe import Recipe, has_local_teacher, local_teacher
from synthgen.results.evaluation import Comparison, Evaluation, Matrix
from synthgen.results.measures import Bootstrap, Figure, Interval, Measure, Row, Table
from synthgen.results.statement import Entry, Statement

_FLOOR = 1e-9  # smaller probabilities are raised to this value before taking the logarithm

MEASURES = {
    "agreement": Measure(
        "agrees with the teacher", "percent", False, caption="Agreement with the teacher: mean and 95% interval."
    ),
    "accuracy": Measure("right", "percent", False),
    "kl": Measure("KL to the teacher, nats", lower_is_better=True),
    **COSTS,
    "tokens_per_second": Measure("tokens a second", "rate", False, "detail"),
    "answer_ms": Measure("one text, ms", "milliseconds", True, "detail"),
}

MODELS = {
    "teacher": "the teacher's most likely label",
    "majority class": "always the label that the teacher chose most often",
    "cross-entropy": "the same student, trained on the teacher's labels without their probabilities",
    "distilled": "the student",
    "untrained": "the student before its first step",
}


def evaluate_mlp(subject: Subject) -> Evaluation:
    """Compare an MLP on hashed n-grams with its teacher."""
    return _evaluate(subject, Classifier.load, timing.MLP, {})


def evaluate_encoder(subject: Subject) -> Evaluation:
    """Compare a transformers encoder that has a classification head with its teacher."""
    from distill.students.encoder import Encoder, untrained

    before = {"untrained": lambda labels: untrained(subject.job(labels))}
    return _evaluate(subject, Encoder.load, timing.ENCODER, before)


def _evaluate(
    subject: Subject,
    load: Callable[[Path], Predicts],
    run: str,
    before: Mapping[str, Callable[[list[str]], Predicts]],
) -> Evaluation:
    """Compare a student and simple baselines with the teacher.

    `load` opens a trained student. `run` names the function that times a student. `before` maps names to functions that
    take the labels and make an untrained student.
    """
    recipe, folder = subject.recipe, subject.folder
    held_out = subject.held_out()
    if not all(row.label_probs for row in held_out):
        raise CorpusError(
            f"{subject.source} has held-out rows without the teacher's probabilities", "generate the corpus again"
        )
    texts, clusters = [row.text for row in held_out], [row.seed_id for row in held_out]
    student = load(folder)
    labels = student.labels
    teacher_RL = np.array([row.label_probs for row in held_out], np.float64)[:, _places(subject.source, labels)]
    majority_RL = np.zeros_like(teacher_RL)
    majority_RL[:, np.bincount(teacher_RL.argmax(-1)).argmax()] = 1
    probs_RL = {"teacher": teacher_RL, "majority class": majority_RL}
    if (folder / "baseline" / "model.safetensors").exists():
        probs_RL["cross-entropy"] = load(folder / "baseline").predict(texts)
    probs_RL["distilled"] = student.predict(texts)
    probs_RL |= {name: make(labels).predict(texts) for name, make in before.items()}
    references = _references(held_out, labels)
    seed = recipe.evaluate.seed
    table: Table = {name: _quality(p, teacher_RL, references, clusters, seed) for name, p in probs_RL.items()}
    subject.ui.note("evaluate: speed and memory, each model in a separate process")
    if has_local_teacher(recipe):
        table["teacher"] |= _teacher_cost(recipe, held_out, labels)
    table["distilled"] |= row_of(measure(run, {"folder": str(folder.resolve()), "texts": texts}))
    agrees = {name: p.argmax(-1) == teacher_RL.argmax(-1) for name, p in probs_RL.items()}
    margin = agrees["distilled"].astype(float) - agrees["majority class"]
    above = _share(margin, clusters, seed, DIFFERENCE)
    faster = _rate(table["distilled"]) / _rate(table["teacher"]) if has_local_teacher(recipe) else None
    return Evaluation(
        kind=subject.training.kind,
        rows=len(held_out),
        unit="texts",
        headline=_headline(len(held_out), above, faster),
        measures=MEASURES,
        table=table,
        notes=_notes(),
        models={name: MODELS[name] for name in table},
        figures=[
            Figure("agrees with the teacher", float(agrees["distilled"].mean()), "percent"),
            *([] if faster is None else [Figure("times the teacher's speed", faster, "rate")]),
        ],
        comparisons=[Comparison("distilled − majority class", "agreement", above)],
        matrix=_matrix(teacher_RL, probs_RL["distilled"], labels),
        bootstrap=Bootstrap(RESAMPLES, seed, "held-out seed"),
        counts={} if faster is None else {"speed_up": faster},
        learned_from=subject.training.learned_from,
        statement=_statement(by_role(probs_RL), references, Scale(clusters, seed)),
    )


_LOG_LOSS = Entry(
    dimension="likelihood",
    measure="−log q of the right label, nats",
    better="lower",
    unit="texts",
    note="the mean of −log q of the label in the seeds, where q is the probability that the model gives to it. "
    f"Probabilities below {_FLOOR:g} count as {_FLOOR:g}.",
)
_NO_BASE = {"base": "the evaluation of this kind of student does not measure the untrained student"}


def _statement(probs: Mapping[str, Array], references_R: Array, scale: Scale) -> Statement:
    """What the student lost or gained. `probs` has the label probabilities (R, L) of each model that is compared."""
    known = references_R >= 0
    places = np.flatnonzero(known)
    choices = {role: probs_RL.argmax(-1) for role, probs_RL in probs.items()}
    right, likelihood, bins = {}, {}, {}
    for role, probs_RL in probs.items():
        hits = (choices[role] == references_R).astype(float)
        right[role] = np.where(known, hits, np.nan)
        logs = -np.log(probs_RL[np.arange(len(probs_RL)), references_R.clip(0)].clip(_FLOOR))
        likelihood[role] = np.where(known, logs, np.nan)
        bins[role] = binned(probs_RL.max(-1), hits)[places]
    same = {role: (choice == choices["teacher"]).astype(float) for role, choice in choices.items() if role != "teacher"}
    missing = {} if "base" in probs else _NO_BASE
    of_known = Scale([scale.groups[int(n)] for n in places], scale.seed)
    entries = [
        compared(replace(RIGHT, unit="texts", note=_RIGHT), right, scale, missing=missing, nothing=NO_REFERENCE),
        compared(
            replace(AGREEMENT, measure="same label as the teacher", unit="texts", note=_SAME),
            same,
            scale,
            missing={**OF_ITSELF, **missing},
        ),
        compared(_LOG_LOSS, likelihood, scale, missing=missing, nothing=NO_REFERENCE),
        *calibrated(bins, of_known, what="label", hit="the label in the seeds", unit="texts", missing=missing),
    ]
    return Statement(entries, models={"teacher": "the model whose label probabilities the rows hold", "base": BASE})


_RIGHT = "the share of texts whose most likely label is the label in the seeds."
_SAME = "the share of texts to which the model gives the label that the teacher finds most likely."


def _places(source: Path, labels: list[str]) -> list[int]:
    """The place of each of the student's labels among the labels of a corpus. Raises CorpusError when the corpus has
    other labels.
    """
    of_corpus = list(corpus.manifest(source)["labels"])
    if sorted(of_corpus) != sorted(labels):
        raise CorpusError(
            f"{source} has the labels {', '.join(of_corpus)}, and the student was trained on {', '.join(labels)}",
            "evaluate the student with rows that have its labels",
        )
    return [of_corpus.index(name) for name in labels]


def _references(held_out: Sequence[HeldOut], labels: list[str]) -> Array:
    """Return (R,): the index of each row's reference in `labels`, or −1 when it is missing or not a label."""
    first = [row.reference[0] if row.reference else None for row in held_out]
    return np.array([labels.index(name) if name in labels else -1 for name in first])


def _quality(probs_RL: Array, teacher_RL: Array, references_R: Array, clusters: Sequence[str], seed: int) -> Row:
    """Compute agreement with the teacher's choice, accuracy against the reference, and KL(teacher ‖ model)."""
    choice = probs_RL.argmax(-1)
    agree = (choice == teacher_RL.argmax(-1)).astype(float)
    known = references_R >= 0
    right = (choice == references_R)[known].astype(float)
    kl = (teacher_RL * (np.log(teacher_RL.clip(_FLOOR)) - np.log(probs_RL.clip(_FLOOR)))).sum(-1)
    return {
        # the teacher agrees with itself on every text, not only on these
        "agreement": Interval(1.0, 1.0, 1.0) if probs_RL is teacher_RL else _share(agree, clusters, seed),
        "accuracy": _share(right, list(np.array(clusters)[known]), seed) if known.any() else None,
        "kl": interval(kl, np.ones(len(kl)), clusters, seed),
    }


def _share(values_R: Array, clusters: Sequence[str], seed: int, bounds: tuple[float, float] = SHARE) -> Interval:
    """The mean of the values, with its interval. If all values are equal, the interval is not a point; see
    `distill.evaluation.grouped.widened`.
    """
    found = interval(values_R, np.ones(len(values_R)), clusters, seed)
    value = widened(found, bounds, len(set(clusters)))
    assert isinstance(value, Interval)
    return value


def _teacher_cost(recipe: Recipe, held_out: Sequence[HeldOut], labels: list[str]) -> Row:
    rows = held_out[: recipe.evaluate.max_prompts]
    questions = [asdict(question(row, as_teacher=True, labels=labels)) for row in rows]
    section = local_teacher(recipe).model_dump(mode="json")
    measured = measure("distill.evaluation.asking:ask_teacher", {"teacher": section, "questions": questions})
    measured.pop("texts")
    return row_of(measured)


def _rate(row: Row) -> float:
    value = row["rows_per_second"]
    assert isinstance(value, float)
    return value


def _matrix(teacher_RL: Array, student_RL: Array, labels: list[str]) -> Matrix:
    counts_LL = np.zeros((len(labels), len(labels)), int)
    np.add.at(counts_LL, (teacher_RL.argmax(-1), student_RL.argmax(-1)), 1)
    caption = "Labels of teacher and student on held-out texts."
    return Matrix(labels, counts_LL.tolist(), "teacher says", "student says", caption)


def _headline(rows: int, above: Interval, faster: float | None) -> str:
    """The result in one sentence. `faster` is None when the speed of the teacher is not known, because it runs
    elsewhere.
    """
    line = (
        f"On {rows} held-out texts the student agrees with the teacher {100 * above.mean:.1f} points "
        f"[{100 * above.low:.1f}, {100 * above.high:.1f}] more often than the majority class does"
    )
    if faster is None:
        return f"{line}."
    return f"{line}, at {f'{faster:,.0f}' if faster >= 100 else f'{faster:,.1f}'} times the teacher's speed."


def _notes() -> list[str]:
    return [
        "Agreement compares with the teacher's most likely label. A label is right when it is the label in the seeds.",
        "Speed and peak memory were measured in a separate process for each model.",
    ]
