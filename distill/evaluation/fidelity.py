"""Compares students that write text with their live teacher: KL over the whole vocabulary, agreement, answers, cost.

Every student of a run is compared on the same held-out completions. The teacher wrote all of these completions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from distill.data import Choice
from distill.evaluation import judged
from distill.evaluation.answers import ASK_TEACHER, OF_ANSWERS, Writer, answer_in, apart, marker_of, right, writers
from distill.evaluation.asking import question, student_section
from distill.evaluation.distance import AS_STUDENT, Distances, Prompt, distances, same_model, unigram
from distill.evaluation.grouped import DIFFERENCE, Scale
from distill.evaluation.lost import (
    AGREEMENT,
    BASE,
    NLL,
    NO_REFERENCE,
    OF_ITSELF,
    RIGHT,
    ROLES,
    by_role,
    calibrated,
    compared,
)
from distill.evaluation.said import said
from distill.evaluation.slices import calibration, slices
from distill.evaluation.subject import Subject
from distill.held_out import HeldOut
from distill.intervals import RESAMPLES, Array, interval
from distill.job import Job
from distill.streaming.conversations import reader_of
from distill.streaming.stream import Stream, cache_folder, open_stream
from distill.targets.ensemble import Merge
from distill.targets.rationale import explaining
from distill.tokenizer import written_with
from synthgen.lm.model import LanguageModel
from synthgen.lm.tokens import Tokens
from synthgen.recipe import RationaleSection, local_teacher
from synthgen.results.evaluation import Comparison, Evaluation, Part, Sample
from synthgen.results.measures import Bootstrap, Figure, Interval, Measure, Table, middle, shown
from synthgen.results.statement import Entry, Statement
from synthgen.teachers.transformers import LocalModel

_SAMPLES = 4  # number of prompts whose answers are stored as samples

MEASURES = {
    "kl": Measure(
        "KL to the teacher, nats a token",
        lower_is_better=True,
        caption="Distance from the teacher: mean and 95% interval. Further left is nearer to the teacher.",
        log_scale=True,
    ),
    "from_targets": Measure("KL from the training targets, nats a token", lower_is_better=True),
    "agreement": Measure("same most likely token", "percent", False),
    "nll": Measure("−log q of the teacher's tokens, nats", lower_is_better=True, about="detail"),
    "perplexity": Measure("perplexity", "significant", True),
    "calibration": Measure("calibration error", "percent", True),
    "accuracy": Measure("answers right", "percent", False),
    **judged.MEASURES,
    "prompt_tokens": Measure("tokens of a prompt", "rate", True, "cost"),
    **OF_ANSWERS,
}

MODELS = {
    "teacher": "the teacher, under its own prompt",
    AS_STUDENT: "the teacher, under the student's prompt",
    "unigram": "each token's frequency in the training completions",
    "untrained": "the student before its first step",
    "cross-entropy": "the same student, trained on the same batches without the teacher's distributions",
    "distilled": "the student",
    "teacher, trained too": "the teacher after it learned from the student",
}


def evaluate_live(subject: Subject, ask: str) -> Evaluation:
    """Compare students with their live teacher. `ask` names the function that asks a student in a separate process."""
    recipe, section, source = subject.recipe, subject.recipe.evaluate, subject.source
    held_out = subject.held_out(section.max_rows)
    job = subject.job()
    teacher = job.teacher
    weights = teacher.weights
    models = _opened(job, teacher)
    subject.ui.note(f"evaluate: {len(held_out)} held-out completions")
    taught = _taught(subject, teacher.tokens)
    found = distances(
        teacher,
        {name: writer.model for name, writer in models.items()},
        unigram(source, weights.vocab_size),
        held_out,
        ui=subject.ui,
        taught=taught,
        prompt=_prompt(recipe.train.rationale if recipe.train else None),
    )
    tokens_R = np.array([len(r.token_ids or ()) for r in held_out])
    clusters = [r.seed_id for r in held_out]
    table = _table(found, held_out, section.seed)
    answers = _answers(subject, models, held_out if section.max_rows is None else subject.held_out(), ask)
    for name, row in answers.table.items():
        table.setdefault(name, {}).update(row)
    lengths = _prompt_tokens(held_out, teacher.tokens)
    for name, length in lengths.items():
        table[name]["prompt_tokens"] = length
    pairs = [("distilled", "cross-entropy"), ("distilled", "unigram"), ("cross-entropy", "unigram")]
    comparisons = [
        Comparison(f"{a} − {b}", "kl", interval(found.kl[a] - found.kl[b], tokens_R, clusters, section.seed))
        for a, b in pairs
        if a in found.kl and b in found.kl
    ]
    tokens, seeds = int(tokens_R.sum()), len(set(clusters))
    return Evaluation(
        kind=subject.training.kind,
        rows=len(held_out),
        unit="completions",
        headline=" ".join(filter(None, [_of_answers(answers, lengths), _headline(len(held_out), comparisons)])),
        measures=MEASURES,
        table=table,
        notes=[*_notes(tokens, seeds, answers.prompts), *answers.notes],
        models={name: MODELS[name] for name in table if name in MODELS},
        figures=_figures(table),
        comparisons=[*comparisons, *answers.comparisons],
        parts=_parts(found, held_out, section.seed),
        samples=answers.samples,
        bootstrap=Bootstrap(RESAMPLES, section.seed, "held-out seed"),
        counts={"tokens": tokens, "seeds": seeds, "prompts_answered": answers.prompts},
        learned_from=subject.training.learned_from,
        statement=_statement(found, held_out, section.seed, answers),
    )


def _statement(found: Distances, held_out: Sequence[HeldOut], seed: int, answers: _Answers) -> Statement:
    """The loss statement, from the distances and answers that the evaluation has computed."""
    tokens_R = np.array([len(r.token_ids or ()) for r in held_out], float)
    scale = Scale([r.seed_id for r in held_out], seed)
    agreement = {role: array for role, array in by_role(found.agreement).items() if role != "teacher"}
    entries = [
        compared(AGREEMENT, agreement, scale, weights=tokens_R, missing=OF_ITSELF),
        compared(NLL, by_role(found.nll), scale, weights=tokens_R),
        *calibrated(by_role(found.bins), scale, what="token", hit="the teacher's own next token", unit="completions"),
    ]
    return Statement([*answers.entries, *entries], models={"teacher": "the model that wrote the rows", "base": BASE})


def _opened(job: Job, teacher: LanguageModel) -> dict[str, Writer]:
    """The students to compare with the teacher. If the untrained student is the same model as the teacher, as in
    context distillation, the teacher takes the untrained student's place in the result, so that this model is computed
    only once.
    """
    own = teacher.weights.model
    models: dict[str, Writer] = {}
    for name, make in writers(job, teacher.batch_size, teacher.weights.device).items():
        writer = make()
        is_teacher = same_model(writer.model, own)
        models[name] = LocalModel.of(own, job.tokens, teacher.batch_size) if is_teacher else writer
    return models


def _prompt_tokens(held_out: Sequence[HeldOut], tokens: Tokens) -> dict[str, float]:
    """The mean number of tokens in the prompts of the teacher and of the student."""
    students = {repr(row.prompt): len(tokens.render(row.prompt)) for row in held_out}
    return {
        "teacher": float(np.mean([len(row.prompt_token_ids or ()) for row in held_out])),
        "distilled": float(np.mean([students[repr(row.prompt)] for row in held_out])),
    }


def _prompt(rationale: RationaleSection | None) -> Prompt:
    """Return a function that takes a row and returns the prompt for which the student's reply is the whole completion.

    In mode `step_by_step`, this prompt asks for the rationale.
    """
    if rationale is None or rationale.mode != "step_by_step":
        return lambda row: row.prompt
    return lambda row: explaining(row.prompt, rationale)


def _taught(subject: Subject, tokens: Tokens) -> Stream | None:
    """The stored targets of the held-out rows, if the student learned from a named teacher (`train.teacher`) or from an
    ensemble. For other students, the result is None.
    """
    training = subject.training
    merge = Merge.again(training.ensemble) if training.ensemble else None
    names = merge.names if merge else (training.teacher,) if training.teacher else ()
    choice = Choice(1 << 30, "test", teachers=names, merge=merge)
    if not names:
        return None
    cache = cache_folder(subject.source, subject.folder)
    return open_stream(subject.source, reader_of(tokens, written_with(subject.source, tokens)), cache, choice)


def _table(found: Distances, held_out: Sequence[HeldOut], seed: int) -> Table:
    """Compute the distance measures of every model, with their intervals."""
    tokens_R = np.array([len(r.token_ids or ()) for r in held_out])
    clusters = [r.seed_id for r in held_out]
    table: Table = {}
    for name in found.kl:
        table[name] = {
            "kl": interval(found.kl[name], tokens_R, clusters, seed),
            "agreement": interval(found.agreement[name], tokens_R, clusters, seed),
            "nll": interval(found.nll[name], tokens_R, clusters, seed),
            "perplexity": float(np.exp(found.nll[name].sum() / tokens_R.sum())),
            "calibration": calibration(found.bins[name], clusters, seed),
        }
        if name in found.from_targets:
            far_R = found.from_targets[name]
            known = np.flatnonzero(~np.isnan(far_R))  # rows that the student cannot learn from have no stored targets
            names = [clusters[n] for n in known]
            table[name]["from_targets"] = interval(far_R[known], tokens_R[known], names, seed) if names else None
    return table


def _parts(found: Distances, held_out: Sequence[HeldOut], seed: int) -> list[Part]:
    """Compute the KL of each trained student in each slice of the rows."""
    parts = []
    for name, places in slices(held_out).items():
        tokens_R = np.array([len(held_out[n].token_ids or ()) for n in places])
        clusters = [held_out[n].seed_id for n in places]
        table: Table = {
            model: {"kl": interval(found.kl[model][places], tokens_R, clusters, seed)}
            for model in ("distilled", "cross-entropy")
            if model in found.kl
        }
        parts.append(Part(name, len(places), table, {"tokens": int(tokens_R.sum())}))
    return parts


@dataclass(frozen=True)
class _Answers:
    """Greedy answers to held-out prompts: accuracy and cost by model, the paired differences in accuracy, samples,
    notes on the judge, the number of prompts, and entries of the loss statement. `checked` is the number of prompts
    with a reference.
    """

    table: Table = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    prompts: int = 0
    checked: int = 0
    entries: list[Entry] = field(default_factory=list)


def _answers(subject: Subject, models: dict[str, Writer], held_out: Sequence[HeldOut], ask: str) -> _Answers:
    """Get greedy answers to the held-out prompts.

    Teacher and distilled student answer in separate processes, because peak memory is known only for a whole process.
    The other students have the same architecture as the distilled student, so their cost is not measured.
    """
    section = subject.recipe.evaluate
    local = local_teacher(subject.recipe)
    rows = list({r.seed_id: r for r in held_out}.values())[: section.max_prompts]
    scale = Scale([row.seed_id for row in rows], section.seed)
    subject.ui.note(f"evaluate: {len(rows)} prompts; the teacher and each student answer greedily")
    elsewhere = {"teacher": (ASK_TEACHER, local), "distilled": (ask, student_section(subject.folder, local))}
    found: Table = {}
    texts: dict[str, list[str]] = {}
    points: dict[str, Array] = {}
    for name in ("teacher", *models):
        asked = [question(r, as_teacher=name == "teacher", max_new_tokens=section.max_new_tokens) for r in rows]
        if name in elsewhere:
            function, model = elsewhere[name]
            found[name], texts[name] = apart(function, model, asked)
        else:
            found[name] = {}
            texts[name] = [reply.text for reply in models[name].sample([q.request() for q in asked], None)]
        marker = marker_of(subject.recipe, as_teacher=name == "teacher")
        points[name] = right([answer_in(text, marker) for text in texts[name]], rows)
        found[name]["accuracy"] = scale.known(points[name])
    verdicts = judged.judge(subject, rows, texts["distilled"])
    if verdicts is not None:
        found["distilled"].update({key: scale.known(values_R) for key, values_R in verdicts.shares().items()})
    order = [*elsewhere, *(name for name in texts if name not in elsewhere)]
    samples = [
        Sample(str(row.prompt[-1]["content"]), {name: texts[name][n] for name in order if name in texts})
        for n, row in enumerate(rows[:_SAMPLES])
    ]
    own = points["distilled"]
    apart_by = {
        f"distilled − {name}": scale.known(own - points[name], DIFFERENCE) for name in points if name != "distilled"
    }
    comparisons = [Comparison(name, "accuracy", v) for name, v in apart_by.items() if isinstance(v, Interval)]
    written = {ROLES[name]: some for name, some in texts.items() if name in ROLES}
    entries = [
        compared(RIGHT, by_role(points), scale, nothing=NO_REFERENCE),
        *said(rows, written, scale, most=section.max_new_tokens),
    ]
    checked, notes = sum(1 for row in rows if row.reference), verdicts.notes() if verdicts else []
    return _Answers(found, comparisons, samples, notes, prompts=len(rows), checked=checked, entries=entries)


def _of_answers(answers: _Answers, prompt_tokens: Mapping[str, float]) -> str:
    """The result of the answers in one sentence. The text is empty when no prompt has a reference."""
    found = next((c.difference for c in answers.comparisons if c.name == "distilled − untrained"), None)
    teacher, student = (middle(answers.table.get(name, {}).get("accuracy")) for name in ("teacher", "distilled"))
    if found is None or teacher is None or student is None:
        return ""
    doubt = "" if found.low * found.high > 0 else "; the interval includes zero"
    points = f"{100 * found.mean:+.1f} points [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    shorter = prompt_tokens["teacher"] / prompt_tokens["distilled"]
    return (
        f"{shown(student, 'percent')} of the student's answers to {answers.checked} held-out prompts with a known "
        f"answer are right (paired difference from before training {points}{doubt}), and {shown(teacher, 'percent')} "
        f"of its teacher's{f', whose prompts are {shorter:.1f} times longer' if shorter > 1.05 else ''}."
    )


def _headline(rows: int, comparisons: Sequence[Comparison]) -> str:
    """The difference between the student and the baseline, in one sentence. The text is empty when there is no
    baseline.
    """
    found = next((c.difference for c in comparisons if c.name == "distilled − cross-entropy"), None)
    if found is None:
        return ""
    side = "nearer to" if found.mean < 0 else "farther from"
    doubt = "" if found.low * found.high > 0 else " (the interval includes zero)"
    return (
        f"On {rows} held-out completions the distilled student is {abs(found.mean):.3f} nats a token {side} the "
        "teacher than the student trained on tokens alone: paired difference "
        f"{shown(found, 'number')}{doubt}."
    )


def _figures(table: Table) -> list[Figure]:
    value = table.get("distilled", {}).get("kl")
    return [Figure("KL to the teacher, nats a token", value.mean)] if isinstance(value, Interval) else []


def _notes(tokens: int, seeds: int, prompts: int) -> list[str]:
    """Notes on how the numbers were measured."""
    return [
        f"The completions have {tokens:,} tokens and come from {seeds:,} seeds. KL is over the whole vocabulary, and "
        "the live teacher has its own prompt. Each student sees only the question. All students have the same "
        "architecture.",
        "Perplexity is measured on the teacher's completions. The calibration error is the mean difference, over 15 "
        "bins, between the probability of the most likely token and how often that token is right.",
        f"Each model answered {prompts:,} prompts greedily. Its speed and peak memory were measured in a separate "
        "process on batches of all prompts. The time of one answer is the median over prompts asked one at a time.",
    ]
