"""Evaluates students that write text against the teacher's recorded answers, where no live teacher can be asked.

    −log q    how likely the teacher's held-out answers are under the student, before and after training
    answers   whether the student's own greedy answers are right, and whether they say what the teacher said
    judge     on request: whether another model prefers the student's answer to the teacher's recorded one

The teacher itself is not run or measured here; all facts about it are read from the rows. The bootstrap for the
intervals draws whole groups of rows that share a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from distill.evaluation import judged
from distill.evaluation.answers import OF_ANSWERS, Writer, answer_in, apart, marker_of, right, writers
from distill.evaluation.asking import question, student_section
from distill.evaluation.grouped import DIFFERENCE, Scale
from distill.evaluation.likelihood import Recorded, Surprise, recorded_rows, surprise
from distill.evaluation.lost import AGREEMENT, BASE, NLL, NO_REFERENCE, OF_ITSELF, RIGHT, ROLES, by_role, calibrated
from distill.evaluation.lost import compared as entry_of
from distill.evaluation.said import begun, said
from distill.evaluation.slices import slices
from distill.evaluation.subject import Subject
from distill.held_out import HeldOut, groups
from distill.intervals import RESAMPLES, Array
from synthgen import corpus
from synthgen.recipe import Recipe
from synthgen.results.evaluation import Comparison, Evaluation, Part, Sample
from synthgen.results.measures import Bootstrap, Figure, Interval, Measure, Row, Table, Value, middle, shown
from synthgen.results.statement import Statement
from synthgen.verify import matches

_SAMPLES = 4  # number of prompts whose answers are stored as samples
_SHORT = 8  # an answer of at most this many words is compared with other answers even if the row has no reference
TEACHER = "teacher, recorded"

MEASURES = {
    "nll": Measure(
        "−log q of the recorded answers, nats a token",
        lower_is_better=True,
        caption="−log q of the teacher's recorded answers: mean and 95% interval. Further left, the model is more "
        "likely to write them.",
    ),
    "bits_per_byte": Measure("bits a byte", lower_is_better=True),
    "perplexity": Measure("perplexity", "significant", True),
    "accuracy": Measure("answers right", "percent", False),
    "same_answer": Measure("says what the teacher said", "percent", False),
    **judged.MEASURES,
    **OF_ANSWERS,
    "answer_tokens": Measure("tokens of an answer, as recorded", "rate", True, "cost"),
    "answer_usd": Measure("US dollars an answer, as recorded", "significant", True, "cost"),
}

_MODELS = {
    "untrained": "the student before its first step",
    "cross-entropy": "the same student, trained on the same batches without the teacher's distributions",
    "distilled": "the student",
    "teacher, trained too": "the teacher after it learned from the student",
}


@dataclass(frozen=True)
class Answers:
    """Greedy answers to the held-out prompts: the row of each prompt, the text that each model wrote, and the costs of
    the models that were measured in a separate process.
    """

    rows: list[HeldOut]
    texts: dict[str, list[str]]
    costs: Table


def evaluate_recorded(subject: Subject, ask: str) -> Evaluation:
    """Compare a student with its teacher's recorded answers. `ask` names the function that asks the student in a
    separate process.
    """
    section, job = subject.recipe.evaluate, subject.job()
    recorded = recorded_rows(subject, job, section.max_rows)
    prompts = recorded.rows if section.max_rows is None else recorded_rows(subject, job, None).rows
    made = writers(job, job.runs.batch_size, job.device)
    subject.ui.note(f"evaluate: {len(recorded.rows)} recorded answers")
    found, answers = _measured(subject, recorded, prompts, made, ask)
    nll = {name: one.nats for name, one in found.items()}
    scale = Scale(recorded.groups, section.seed)
    table: Table = {TEACHER: spent(answers.rows), **_likelihoods(nll, recorded, scale)}
    asked = Scale(groups(answers.rows), section.seed)
    points = points_of(subject.recipe, answers)
    for name, values in points.items():
        table[name].update({key: asked.known(values_P) for key, values_P in values.items()})
    for name, row in answers.costs.items():
        table[name].update(row)
    verdicts = judged.judge(subject, answers.rows, answers.texts["distilled"])
    if verdicts is not None:
        table["distilled"].update({key: asked.known(values_P) for key, values_P in verdicts.shares().items()})
    comparisons = _comparisons(nll, recorded, scale, points, asked)
    authors = _authors(subject, recorded.rows)
    table = {name: row for name, row in table.items() if any(value is not None for value in row.values())}
    return Evaluation(
        kind=subject.training.kind,
        rows=len(recorded.rows),
        unit="recorded answers",
        headline=headline_of(len(recorded.rows), authors, table, comparisons),
        measures=MEASURES,
        table=table,
        notes=[*_notes(recorded, len(answers.rows), authors), *(verdicts.notes() if verdicts else ())],
        models={name: {**_MODELS, TEACHER: f"the recorded answers of {authors}"}[name] for name in table},
        figures=_figures(table),
        comparisons=comparisons,
        parts=_parts(nll, recorded, section.seed),
        samples=_samples(answers),
        bootstrap=Bootstrap(RESAMPLES, section.seed, "group of held-out seeds"),
        counts={
            "tokens": int(recorded.tokens_R.sum()),
            "groups": len(set(recorded.groups)),
            "prompts_answered": len(answers.rows),
            **({"judged": len(verdicts.first)} if verdicts else {}),
        },
        learned_from=subject.training.learned_from,
        statement=_statement(subject, found, recorded, answers, points),
    )


def _statement(
    subject: Subject,
    found: dict[str, Surprise],
    recorded: Recorded,
    answers: Answers,
    points: dict[str, dict[str, Array]],
) -> Statement:
    """The loss statement, from the values that the evaluation has computed."""
    section = subject.recipe.evaluate
    scale, asked = Scale(recorded.groups, section.seed), Scale(groups(answers.rows), section.seed)
    nats = by_role({name: one.nats for name, one in found.items()})
    bins = by_role({name: one.bins for name, one in found.items()})
    most = section.max_new_tokens
    texts = {"teacher": begun([recorded_text(row) for row in answers.rows], subject.job().tokens, most)}
    texts |= {ROLES[name]: some for name, some in answers.texts.items() if name in ROLES}
    roles = {TEACHER: "teacher", **ROLES}
    by_measure = {
        key: {roles[name]: values[key] for name, values in points.items() if name in roles and key in values}
        for key in ("accuracy", "same_answer")
    }
    right = replace(RIGHT, note=f"{RIGHT.note} {_CUT.format(most=most)}")
    same = replace(AGREEMENT, measure=MEASURES["same_answer"].title, unit="prompts", note=_SAME)
    entries = [
        entry_of(right, by_measure["accuracy"], asked, nothing=NO_REFERENCE),
        entry_of(same, by_measure["same_answer"], asked, missing=OF_ITSELF, nothing=_FREE),
        entry_of(NLL, nats, scale, weights=recorded.tokens_R.astype(float), missing=_NOT_ASKED),
        *calibrated(
            bins,
            scale,
            what="token",
            hit="the next token of the recorded answer",
            unit="completions",
            missing=_NOT_ASKED,
        ),
        *said(answers.rows, texts, asked, most=most),
    ]
    authors = _authors(subject, recorded.rows)
    return Statement(entries, models={"teacher": _WRITTEN.format(authors=authors), "base": BASE})


_NOT_ASKED = {"teacher": "the teacher was not asked, and the rows hold only its words"}
_SAME = "the share of answers that agree with the answer which the teacher gave in the row."
_CUT = "The recorded answers are whole, and those of the student and its base end at {most:,} tokens."
_FREE = "the teacher's answers are free texts, which cannot be compared as right or wrong"
_WRITTEN = (
    "represented by the recorded answers of {authors}, as curation left them: refusals and wrong answers may have been "
    "removed"
)


def _measured(
    subject: Subject,
    recorded: Recorded,
    prompts: Sequence[HeldOut],
    made: dict[str, Callable[[], Writer]],
    ask: str,
) -> tuple[dict[str, Surprise], Answers]:
    """Open the models one after the other, and measure each model. Returns two things: for each model, how it predicts
    the rows of `recorded`; and the answers to the distinct prompts of the rows `prompts`.

    The distilled student answers in a separate process, because peak memory is known only for a whole process. The
    other students have the same architecture, so their cost is not measured.
    """
    section = subject.recipe.evaluate
    first: dict[str, HeldOut] = {}
    for row in prompts:
        first.setdefault(repr(row.prompt), row)
    rows = list(first.values())[: section.max_prompts]
    questions = [question(row, as_teacher=False, max_new_tokens=section.max_new_tokens) for row in rows]
    subject.ui.note(f"evaluate: {len(rows)} prompts; each student answers greedily")
    found: dict[str, Surprise] = {}
    answers = Answers(rows, {}, {})
    for name, make in made.items():
        writer = make()
        found[name] = surprise(writer.model, recorded, name, subject.ui)
        if name == "distilled":
            del writer  # frees the model's memory before the other process begins
            student = student_section(subject.folder, subject.job().runs)
            answers.costs[name], answers.texts[name] = apart(ask, student, questions)
        else:
            answers.texts[name] = [reply.text for reply in writer.sample([q.request() for q in questions], None)]
    return found, answers


def _likelihoods(nll: dict[str, Array], recorded: Recorded, scale: Scale) -> Table:
    """The measures of likelihood of every model. Bits a byte are left out when some text is unknown to the tokenizer,
    because the likelihood of such text is not known.
    """
    table: Table = {}
    for name, nats_R in nll.items():
        mean = scale.of(nats_R, recorded.tokens_R)
        nats = middle(mean)
        bits = None if recorded.unknown else scale.of(nats_R / np.log(2), recorded.bytes_R)
        table[name] = {"nll": mean, "bits_per_byte": bits, "perplexity": None if nats is None else float(np.exp(nats))}
    return table


def recorded_answer(row: HeldOut, marker: str | None) -> str | None:
    """The teacher's answer in a row: its column `answer`, or the text after the marker. None when the row has no
    answer, or when the answer is free text, with which no other answer can be compared.

    Without a marker, the column `answer` can hold the whole text. The whole text counts as free text if it has many
    words and the row has no reference.
    """
    text = recorded_text(row)
    if marker:
        return row.answer or answer_in(text, marker) or None
    answer = row.answer or text
    stands = answer.strip() != text.strip() or bool(row.reference) or len(answer.split()) <= _SHORT
    return answer if stands and answer.strip() else None


def recorded_text(row: HeldOut) -> str:
    """The text that the teacher wrote last."""
    return str(row.completion[-1].get("content") or "") if row.completion else ""


def points_of(recipe: Recipe, answers: Answers) -> dict[str, dict[str, Array]]:
    """For each model and measure, (P,): 1 for each prompt whose answer is right or equals the teacher's answer, 0 for
    other answers, and NaN where there is nothing to compare with.
    """
    theirs = marker_of(recipe, as_teacher=True)
    marker = marker_of(recipe, as_teacher=False)
    said = [recorded_answer(row, theirs) for row in answers.rows]
    found: dict[str, dict[str, Array]] = {TEACHER: {"accuracy": right(said, answers.rows)}}
    for name, texts in answers.texts.items():
        given = [answer_in(text, marker) for text in texts]
        pairs = zip(given, said, strict=True)
        same = [np.nan if known is None else float(matches(answer, known)) for answer, known in pairs]
        found[name] = {"accuracy": right(given, answers.rows), "same_answer": np.array(same, float)}
    return found


def spent(rows: Sequence[HeldOut]) -> Row:
    """What the teacher's answers cost when they were made. A cost is left out when a row does not record it."""
    tokens = [(row.usage or {}).get("completion_tokens") for row in rows]
    usd = [row.cost_usd for row in rows]
    found: Row = {}
    if counted := [n for n in tokens if n]:
        found |= {"answer_tokens": float(np.mean(counted))} if len(counted) == len(rows) else {}
    if priced := [cost for cost in usd if cost is not None]:  # the cost of a local teacher is 0, not None
        found |= {"answer_usd": float(np.mean(priced))} if len(priced) == len(rows) and any(priced) else {}
    return found


def _comparisons(
    nll: dict[str, Array],
    recorded: Recorded,
    scale: Scale,
    points: dict[str, dict[str, Array]],
    asked: Scale,
) -> list[Comparison]:
    """The paired differences of the student from the other models. Differences without an interval are left out."""
    own = nll["distilled"]
    found: list[tuple[str, str, Value]] = []
    for other in ("untrained", "cross-entropy"):
        if other in nll:
            name, apart_R = f"distilled − {other}", own - nll[other]
            found.append((name, "nll", scale.of(apart_R, recorded.tokens_R)))
            bits = None if recorded.unknown else scale.of(apart_R / np.log(2), recorded.bytes_R)
            found.append((name, "bits_per_byte", bits))
    for other in ("untrained", "cross-entropy", TEACHER):
        for measure in ("accuracy", "same_answer"):
            if measure in points.get(other, {}):
                values = points["distilled"][measure] - points[other][measure]
                found.append((f"distilled − {other}", measure, asked.known(values, DIFFERENCE)))
    return [Comparison(name, measure, value) for name, measure, value in found if isinstance(value, Interval)]


def _parts(nll: dict[str, Array], recorded: Recorded, seed: int) -> list[Part]:
    """−log q of the untrained and the trained student in each slice of the rows."""
    parts = []
    for name, places in slices(recorded.rows).items():
        scale = Scale([recorded.groups[n] for n in places], seed)
        tokens_R = recorded.tokens_R[places]
        table: Table = {
            model: {"nll": scale.of(nll[model][places], tokens_R)}
            for model in ("untrained", "distilled")
            if model in nll
        }
        parts.append(Part(name, len(places), table, {"tokens": int(tokens_R.sum())}))
    return parts


def _samples(answers: Answers) -> list[Sample]:
    """The first prompts with the teacher's recorded text and the text of each model."""
    order = ["distilled", *(name for name in answers.texts if name != "distilled")]
    return [
        Sample(
            str(row.prompt[-1]["content"]),
            {TEACHER: recorded_text(row), **{name: answers.texts[name][n] for name in order}},
        )
        for n, row in enumerate(answers.rows[:_SAMPLES])
    ]


def _authors(subject: Subject, rows: Sequence[HeldOut]) -> str:
    """The names of the teachers that wrote the recorded answers, in words. The names come from the manifest, or from
    the rows if the manifest names no teacher.
    """
    stated = corpus.manifest(subject.source)["teachers"]
    wrote = {row.teacher for row in rows}
    named = [str(teacher["model"]) for key, teacher in stated.items() if key in wrote]
    named = named or [str(teacher["model"]) for teacher in stated.values()]
    named = named or sorted({name for row in rows if (name := row.served_model or row.teacher)})
    return " and ".join(dict.fromkeys(named)) or "a teacher that is not stated"


def headline_of(rows: int, authors: str, table: Table, comparisons: Sequence[Comparison]) -> str:
    """The result in one sentence: the paired difference in −log q, and the shares of right answers."""
    before, after = (middle(table[name]["nll"]) for name in ("untrained", "distilled"))
    assert before is not None
    assert after is not None
    change = next((c.difference for c in comparisons if (c.name, c.measure) == ("distilled − untrained", "nll")), None)
    said = f"On {rows} held-out answers of {authors}, training changed the student's −log q from {before:.3f} to "
    said += f"{after:.3f} nats a token"
    if change is None:
        said += " (the rows are of one group, so there is no interval)"
    else:
        doubt = "" if change.low * change.high > 0 else "; the interval includes zero"
        said += f" (paired difference {shown(change, 'number')}{doubt})"
    shares = [(name, middle(table.get(name, {}).get("accuracy"))) for name in ("untrained", "distilled", TEACHER)]
    untrained, distilled, teacher = (value for _, value in shares)
    if untrained is not None and distilled is not None and teacher is not None:
        said += (
            f", and its right answers from {shown(untrained, 'percent')} to {shown(distilled, 'percent')}; of the "
            f"recorded answers {shown(teacher, 'percent')} are right"
        )
    return f"{said}."


def _figures(table: Table) -> list[Figure]:
    """The key figures at the top of the report page."""
    found = [
        ("−log q of the recorded answers, nats a token", "nll", "number"),
        ("answers right", "accuracy", "percent"),
    ]
    values = [(label, middle(table["distilled"].get(key)), how) for label, key, how in found]
    return [Figure(f"student: {label}", value, how) for label, value, how in values if value is not None]


def _notes(recorded: Recorded, prompts: int, authors: str) -> list[str]:
    """Notes on how the numbers were measured."""
    tokens, count = int(recorded.tokens_R.sum()), len(set(recorded.groups))
    found = [
        f"No teacher was asked. The answers of {authors} were recorded when the rows were made. They have {tokens:,} "
        f"tokens of the student's tokenizer and come from {count:,} groups of seeds.",
        "Bits a byte divide −log q by the bytes of the text, so they can be compared between tokenizers. All students "
        "have the same architecture.",
        f"Each student answered {prompts:,} prompts greedily. Speed and peak memory were measured in a separate "
        "process on batches of all prompts. The time of one answer is the median over prompts asked one at a time.",
    ]
    if count == 1:
        found.append("All rows are of one group, so there are no intervals.")
    if recorded.too_long:
        found.append(f"{recorded.too_long:,} rows were left out, because they are longer than the student's context.")
    if recorded.left_out:
        found.append(f"{recorded.left_out:,} rows were left out, because they hold nothing that the student learns.")
    if recorded.unknown:
        found.append(
            f"The student's tokenizer does not know {recorded.unknown:,} parts of the text, so bits a byte are not "
            "given."
        )
    return found
