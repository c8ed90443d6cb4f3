"""Tests of what a student reveals about the rows that it learned from.

Each test is done with the student, the untrained student and the teacher. The untrained student and the teacher did not
learn the rows, so they are controls. If a test finds a leak in a control, then the rows differ by themselves, or the
finding is due to chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from synthgen.auditing.models.job import open_model
from synthgen.auditing.privacy import exposure, extraction, membership
from synthgen.auditing.privacy.asking import code_scores, continuations, token_scores
from synthgen.auditing.privacy.canaries import Canary, make
from synthgen.auditing.privacy.learned import Text, texts, unfinished, why_not
from synthgen.auditing.privacy.onesided import OneSided, judged
from synthgen.auditing.result import AuditResult, Finding, Measurement, Subject
from synthgen.auditing.statistics import Estimate, Numbers
from synthgen.auditing.subjects import as_trained
from synthgen.errors import UserError
from synthgen.lm.model import LanguageModel
from synthgen.recipe import has_local_teacher, local_teacher
from synthgen.recipe.privacy import PrivacySection
from synthgen.results.training import FILE, Training, read_training
from synthgen.tables.reference import resolve
from synthgen.tables.students import UNTRAINED

STUDENT, BEFORE, TEACHER = "student", "untrained student", "teacher"
_BATCH = 16
_ATTACKS = {
    "loss": "the mean log-probability of a token",
    "min-k%": "the mean of the lowest fifth of the log-probabilities",
    "zlib": "the log-probability for each compressed byte",
    "ratio": "the log-probability minus that of the untrained student",
}


@dataclass(frozen=True)
class Plan:
    """What the tests need: settings, canaries and rows. `rows(model, most)` returns learned rows and held-out rows as
    token ids of the model. `refused` maps the name of a test that cannot be done to the reason.
    """

    section: PrivacySection
    canaries: Sequence[Canary]
    rows: Callable[[LanguageModel, int], tuple[list[Text], list[Text]]]
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Answers:
    """What was computed with one model. `ranks` (m,) has the rank of each canary. `scores` maps the name of an attack
    to the scores of the learned rows and of the held-out rows. `asked` has the ids of these rows. `rates` maps a kind
    of extraction to its rates. `refused` maps a test that was not done to the reason.
    """

    ranks: npt.NDArray[np.int64] | None = None
    scores: dict[str, tuple[Numbers, Numbers]] = field(default_factory=dict)
    asked: tuple[list[str], ...] = ()
    rates: dict[str, extraction.Rates] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def audit_student(subject: Subject, section: PrivacySection) -> AuditResult:
    """The measurements of the student in `subject`, of the untrained student and of the teacher. `subject.student` is
    None when no student was trained on the corpus. `subject.known` is false when the corpus of the student is not
    known. A measurement names its model as its `subject`: "student", "untrained student" or "teacher".
    """
    if subject.student is None:
        return _nothing("no student was trained on these rows yet: train one, then run `synthgen audit STUDENT`")
    student, reason = open_model(str(subject.student))
    if student is None:
        return _nothing(reason)
    if not (subject.student / FILE).is_file():
        return _nothing("this model was not trained by `distill train`, so the rows that it learned are not known")
    plan = _plan(subject, section, read_training(subject.student / FILE))
    answers: dict[str, Answers] = {}
    for role, opened in _models(subject, section, student):
        model = opened()
        answers[role] = ask(model, plan, answers.get(BEFORE)) if isinstance(model, LanguageModel) else _refused(model)
        if isinstance(model, LanguageModel):
            model.weights.unload()
    tests = {role: measured(role, answers, plan) for role in (STUDENT, BEFORE, TEACHER)}
    findings = _findings(subject.student, tests[STUDENT])
    return AuditResult(
        "CONTESTED" if findings else "ALLOW",
        tuple(findings),
        figures(answers, plan),
        tuple(one for found in tests.values() for one in found),
        notes=tuple(_alarms([*tests[BEFORE], *tests[TEACHER]])),
    )


def _findings(student: Path, tests: Sequence[Measurement]) -> list[Finding]:
    """A finding for each test that found a leak."""
    return [
        Finding(f"{student.name}: {one.subject}", "privacy", one.name, "CONTESTED", (_sentence(one),))
        for one in tests
        if one.outcome == "found"
    ]


def _sentence(one: Measurement) -> str:
    """A result in words, such as "the AUC by which …: 0.71 AUC [0.66, 0.76], and 0.50 without a leak"."""
    values = (one.estimate, one.low, one.high, one.null)
    mid, low, high, null = ("?" if value is None else f"{value:.2f}" for value in values)
    return f"{one.about}: {mid} {one.unit} [{low}, {high}], and {null} without a leak"


def _alarms(controls: Sequence[Measurement]) -> Iterator[str]:
    """A note for each test that finds a leak in a model that did not learn the rows."""
    for one in controls:
        if one.outcome == "found":
            yield (
                f"privacy: the {one.subject} did not learn the rows, but '{one.name}' finds a leak in it too, by "
                "chance or because the rows differ"
            )


def _nothing(why: str) -> AuditResult:
    return AuditResult("ALLOW", measurements=(_not_measurable("leaks of a student", STUDENT, why),))


def _not_measurable(name: str, subject: str, why: str) -> Measurement:
    return Measurement(
        name=name,
        subject=subject,
        about="what a model reveals about the rows that it learned",
        unit="",
        outcome="not measurable",
        family=f"{name} of the {subject}",
        note=why,
    )


def _plan(subject: Subject, section: PrivacySection, trained: Training) -> Plan:
    planted = trained.train.get("canaries")
    canaries = make(**planted) if isinstance(planted, dict) else []
    refused = {}
    if not canaries:
        refused["exposure"] = "no canaries were planted: set train.canaries and train again"
    elif why := unfinished(trained):
        refused["exposure"] = why
    rows = why_not(trained) if subject.known else "the corpus that this model was trained on is not known"
    for name, most in (("extraction", section.extraction_rows), ("membership", section.membership_rows)):
        if rows or not most:
            refused[name] = rows or f"audit.privacy.{name}_rows is 0"
    return Plan(section, canaries, partial(_rows, subject.corpus, trained, section.seed), refused)


Opened = Callable[[], LanguageModel | str]
"""Opens a model, or returns the reason why there is none."""


def _models(subject: Subject, section: PrivacySection, student: LanguageModel) -> Iterator[tuple[str, Opened]]:
    """The models with their roles. The untrained student comes first, because the score "ratio" of the trained student
    is computed from the scores of the untrained student.
    """
    yield BEFORE, lambda: _untrained(subject, section)
    yield STUDENT, lambda: LanguageModel(student.tokens, student.weights, _BATCH)
    yield TEACHER, lambda: _teacher(subject, section)


def _untrained(subject: Subject, section: PrivacySection) -> LanguageModel | str:
    """The student before its first training step: the model that the recipe names, or the same model that training
    began with, built again.
    """
    if section.untrained:
        return _named(section.untrained)
    if subject.recipe is None or subject.student is None:
        return "the recipe of the training is not known: name the student before training in audit.privacy.untrained"
    try:
        recipe = as_trained(subject.recipe, subject.student)
        built: LanguageModel = resolve(UNTRAINED)(recipe, subject.corpus, subject.student)
    except UserError as error:
        return f"the untrained student cannot be built: {error.message}"
    return built


def _teacher(subject: Subject, section: PrivacySection) -> LanguageModel | str:
    if section.teacher:
        return _named(section.teacher)
    if subject.recipe is None or not has_local_teacher(subject.recipe):
        return "the recipe has no teacher whose likelihoods can be computed here"
    try:
        return LanguageModel.open(local_teacher(subject.recipe), lazy=True)
    except UserError as error:
        return f"the teacher cannot be opened: {error.message}"


def _named(name: str) -> LanguageModel | str:
    model, reason = open_model(name)
    return reason if model is None else LanguageModel(model.tokens, model.weights, _BATCH)


def _refused(why: str) -> Answers:
    return Answers(refused=dict.fromkeys(("exposure", "extraction", "membership"), why))


def ask(model: LanguageModel, plan: Plan, before: Answers | None = None) -> Answers:
    """Compute with one model everything that `plan` asks for. `before` has the answers of the untrained student. If a
    test cannot be done with this model, `Answers.refused` has the reason.
    """
    answers = Answers(refused=dict(plan.refused))
    for name, act in (("exposure", _ask_codes), ("membership", _ask_tokens), ("extraction", _ask_continuations)):
        if name not in answers.refused:
            try:
                act(model, plan, answers)
            except UserError as error:  # for example, the tokenizer of a teacher has no chat template
                answers.refused[name] = f"{error.message}{f': {error.hint}' if error.hint else ''}"
    if before is not None and answers.asked and answers.asked == before.asked:  # unequal if the tokenizers differ
        now, then = answers.scores["loss"], before.scores["loss"]
        answers.scores["ratio"] = (now[0] - then[0], now[1] - then[1])
    return answers


def _ask_codes(model: LanguageModel, plan: Plan, answers: Answers) -> None:
    scores = code_scores(model, plan.canaries, plan.section.references)
    answers.ranks = exposure.ranks(scores, plan.section.seed)


def _ask_tokens(model: LanguageModel, plan: Plan, answers: Answers) -> None:
    members, others = plan.rows(model, plan.section.membership_rows)
    answers.asked = tuple([one.id for one in side] for side in (members, others))
    scored = [(side, token_scores(model, side)) for side in (members, others)]
    attacks: dict[str, Callable[[Sequence[Text], Sequence[Numbers]], Numbers]] = {
        "loss": lambda rows, tokens: membership.loss(tokens),
        "min-k%": lambda rows, tokens: membership.min_k(tokens),
        "zlib": lambda rows, tokens: membership.by_zlib(tokens, [one.text for one in rows]),
    }
    for name, attack in attacks.items():
        first, second = (attack(rows, tokens) for rows, tokens in scored)
        answers.scores[name] = (first, second)


def _ask_continuations(model: LanguageModel, plan: Plan, answers: Answers) -> None:
    length = plan.section.prefix_tokens
    hits: dict[str, list[int]] = {"exact": [], "near": []}
    sizes = []
    for rows in plan.rows(model, plan.section.extraction_rows):
        long = [one for one in rows if len(one.completion) >= 2 * length]
        written = continuations(model, long, length, length) if long else []
        true = [one.completion[length : 2 * length] for one in long]
        sizes.append(len(long))
        hits["exact"].append(sum(a == b for a, b in zip(written, true, strict=True)))
        hits["near"].append(
            sum(extraction.rouge_l(a, b) >= extraction.NEAR for a, b in zip(written, true, strict=True))
        )
    if not all(sizes):
        sides = f"{sizes[0]} learned and {sizes[1]} held-out rows"
        raise UserError(f"only {sides} have the {2 * length} tokens that this test needs", "lower prefix_tokens")
    for name, (first, second) in hits.items():
        answers.rates[name] = extraction.Rates(first, sizes[0], second, sizes[1])


def _rows(source: Path, trained: Training, seed: int, model: LanguageModel, most: int) -> tuple[list[Text], list[Text]]:
    """At most `most` learned rows, and at most `most` held-out rows."""
    longest = min(int(trained.train.get("max_length", 1 << 30)), model.context)
    sides = [texts(source, split, model.tokens, longest, most, seed) for split in ("train", "test")]
    if min(map(len, sides)) < 2:
        raise UserError(
            f"there are {len(sides[0])} learned and {len(sides[1])} held-out rows of different seeds, and the test "
            "needs two of each",
            "set split.test in the recipe",
        )
    return sides[0], sides[1]


def measured(role: str, answers: Mapping[str, Answers], plan: Plan) -> list[Measurement]:
    """The measurements of one model, in three families: exposure, extraction and membership."""
    given = answers[role]
    found: list[Measurement] = []
    for name, make_tests in (("exposure", _exposures), ("extraction", _extractions), ("membership", _memberships)):
        if name in given.refused:
            found.append(_not_measurable(name, role, given.refused[name]))
        else:
            found += judged(make_tests(role, answers, plan), f"{name} of the {role}")
    return found


def _exposures(role: str, answers: Mapping[str, Answers], plan: Plan) -> list[OneSided]:
    ranked = answers[role].ranks
    assert ranked is not None
    return exposure.tests(plan.canaries, ranked, plan.section.references, role)


def _extractions(role: str, answers: Mapping[str, Answers], plan: Plan) -> list[OneSided]:
    length = plan.section.prefix_tokens
    return [
        extraction.difference(f"extraction, {name}", role, rates, length, length)
        for name, rates in answers[role].rates.items()
    ]


def _memberships(role: str, answers: Mapping[str, Answers], plan: Plan) -> list[OneSided]:
    found = []
    for name, (members, others) in answers[role].scores.items():
        if name == "ratio" and role == BEFORE:
            continue  # this score is zero for every row
        void = "" if role == BEFORE else void_because(name, answers[BEFORE])
        found.append(
            OneSided.of(
                f"membership by {name}",
                role,
                f"the AUC by which {_ATTACKS[name]} tells learned rows from held-out rows",
                membership.auc(members, others),
                unit="AUC",
                null=membership.NULL,
                margin=membership.MARGIN,
                note=f"{len(members):,} learned and {len(others):,} held-out rows",
                why_not=void,
                span=(0.0, 1.0),
            )
        )
    return found


def void_because(attack: str, before: Answers) -> str:
    """The reason why membership cannot be tested by this attack, or "" if it can be. The untrained student did not
    learn the rows. If its scores still tell learned rows from held-out rows, the rows differ by themselves. Then the
    student's AUC does not show what the student remembers.
    """
    if "membership" in before.refused:
        return f"there is no untrained student for comparison: {before.refused['membership']}"
    effect: Estimate = membership.auc(*before.scores["loss" if attack == "ratio" else attack])
    low, high = effect.interval()
    if not effect.measurable:
        return "the AUC of the untrained student cannot be computed: too few rows, or values that are not numbers"
    if low <= membership.NULL <= high:
        return ""
    return (
        "learned and held-out rows differ by themselves: the untrained student tells them apart with an AUC of "
        f"{effect.value:.3f} [{low:.3f}, {high:.3f}]"
    )


def figures(answers: Mapping[str, Answers], plan: Plan) -> dict[str, dict[str, float]]:
    """Numbers for the report: how many canaries have rank 1, and how many are identified one by one, for each model.
    With too few references for the number of canaries, no canary can be identified, and the report has no such number.
    """
    counts: dict[str, dict[str, float]] = {}
    references = plan.section.references
    for role, given in answers.items():
        if given.ranks is not None:
            found = counts[f"canaries of the {role}"] = {
                "canaries": float(len(given.ranks)),
                "ranked first": float((given.ranks == 1).sum()),
                "references": float(references),
            }
            if exposure.identifiable(len(given.ranks), references):  # else 0 would say that none can be identified
                found["identified one by one"] = float(exposure.identified(given.ranks, references))
    return counts
