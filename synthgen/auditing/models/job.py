"""The audit of models: measures the bias of a student, and compares it with its teacher and the untrained student."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from synthgen.auditing.models.bbq import Question, read_bbq, sample
from synthgen.auditing.models.compare import compared
from synthgen.auditing.models.effects import Effect, Measured, pair_effects, question_effects
from synthgen.auditing.models.pairs import PairSet, read_winobias, read_winogender
from synthgen.auditing.models.scores import OptionScores, PairScores, TooLong, score_options, score_pairs
from synthgen.auditing.result import AuditResult, Measurement, Subject
from synthgen.errors import UserError
from synthgen.lm.model import LanguageModel
from synthgen.lm.tokens import Tokens
from synthgen.lm.weights import Weights
from synthgen.recipe.audit import ModelsSection
from synthgen.results.training import FILE, Training, read_training
from synthgen.tables.engines import TeacherSection
from synthgen.tables.students import KINDS

Scores = PairScores | OptionScores


@dataclass(frozen=True)
class TestSet:
    """A test set. `score` asks one model, and `effects` computes the effects from the scores of all seeds. `figures`
    describe the test set itself.
    """

    name: str
    score: Callable[[LanguageModel], Scores]
    effects: Callable[[Sequence[Scores]], Measured]
    figures: Mapping[str, float]


def audit_models(subject: Subject, section: ModelsSection) -> AuditResult:
    """The measurements of the student in `subject`, of the models that the section names, and of their differences.

    The result names everything that could not be measured. The status is always ALLOW, because bias does not decide the
    gate. Raises UserError when a test set is damaged, and TeacherError when a model cannot be loaded.
    """
    sets = named_sets(section)
    figures = {"test sets": {key: value for one in sets for key, value in one.figures.items()}}
    if subject.student is None:
        return AuditResult("ALLOW", figures=figures, measurements=(_refused("student", "", _NO_STUDENT),))
    trained = _training(subject.student)
    roles = {
        "student": [str(subject.student), *section.students],
        "untrained student": [name for name in [section.untrained or _checkpoint(trained)] if name],
        "teacher": [name for name in [section.teacher] if name],
    }
    effects: dict[str, list[Effect]] = {}
    refused: list[Measurement] = []
    for role, names in roles.items():
        done, refusals = measured(names, sets)
        effects[role] = [effect for one in done for effect in one.effects]
        refused += [_refused(role, *one) for one in refusals]
        if done:
            figures[role] = {key: value for one in done for key, value in one.figures.items()}
    found = compared(effects["student"], effects["untrained student"] or None, effects["teacher"] or None)
    return AuditResult("ALLOW", figures=figures, measurements=(*found, *refused))


_NO_STUDENT = "no student was trained on these rows yet: train one, then run `synthgen audit STUDENT`"


def named_sets(section: ModelsSection) -> list[TestSet]:
    """The test sets that a section names. Raises UserError when a file is missing or damaged."""
    found = []
    if section.winobias:
        found.append(_of_pairs("WinoBias", read_winobias(Path(section.winobias))))
    if section.winogender:
        found.append(_of_pairs("Winogender", read_winogender(Path(section.winogender))))
    for path in section.bbq:
        whole = read_bbq(Path(path))
        if not whole:
            raise UserError(f"{path} has no questions", "get the file again from the test set's own repository")
        found.append(
            _of_questions(sorted({one.category for one in whole})[0], sample(whole, section.items, section.seed))
        )
    return found


def _of_pairs(name: str, read: PairSet) -> TestSet:
    if not read.pairs:
        raise UserError(
            f"no sentence of {name} has a partner", "get the files again from the test set's own repository"
        )
    return TestSet(
        name,
        lambda model: score_pairs(model, read.pairs),
        lambda scores: pair_effects(read.pairs, [one for one in scores if isinstance(one, PairScores)]),
        {f"{name}: sentences without a partner": float(read.unmatched)},
    )


def _of_questions(category: str, questions: Sequence[Question]) -> TestSet:
    return TestSet(
        f"BBQ {category}",
        lambda model: score_options(model, questions),
        lambda scores: question_effects(category, questions, [one for one in scores if isinstance(one, OptionScores)]),
        {},
    )


def measured(names: Sequence[str], sets: Sequence[TestSet]) -> tuple[list[Measured], list[tuple[str, str]]]:
    """The effects of one model in each test set. `names` has the name or folder of one model for each training seed.
    Only one model at a time is in memory.

    The second result has a pair (test set, reason) for each set that cannot be measured. If the model gives texts no
    likelihood, the second result has only one pair, with the test set "".
    """
    scores: dict[str, list[Scores]] = {one.name: [] for one in sets}
    refusals: list[tuple[str, str]] = []
    for name in names:
        model, why_not = open_model(name)
        if model is None:
            return [], [("", why_not)]
        for one in sets:
            try:
                scores[one.name].append(one.score(model))
            except TooLong as error:
                refusals.append((one.name, error.message))
    done = [one.effects(scores[one.name]) for one in sets if names and len(scores[one.name]) == len(names)]
    return done, refusals


def open_model(name: str) -> tuple[LanguageModel | None, str]:
    """The model with this name, or None and the reason why this model gives texts no likelihood. Raises TeacherError
    when the model cannot be loaded.
    """
    trained = _training(Path(name))
    if trained is not None and not (trained.kind in KINDS and KINDS[trained.kind].scores_text):
        return None, f"'{name}' is a student of kind '{trained.kind}', which gives no text a likelihood"
    weights = Weights.open(TeacherSection(model=name))
    classes = getattr(weights.config, "architectures", None) or ["ForCausalLM"]
    causal = any(one.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for one in classes)
    if weights.config.is_encoder_decoder or not causal:
        return None, f"'{name}' is a {classes[0]}, which gives no text a likelihood"
    assert weights.files is not None
    tokens = Tokens.of_files(weights.files, weights.generation_config, any_template=True)
    return LanguageModel(tokens, weights, 1), ""


def _training(folder: Path) -> Training | None:
    return read_training(folder / FILE) if (folder / FILE).exists() else None


def _checkpoint(trained: Training | None) -> str | None:
    """The checkpoint whose weights a student had before training, if its settings name one."""
    student = trained.train.get("student") if trained is not None and trained.train else None
    return student.get("model") if isinstance(student, dict) else None


def _refused(subject: str, name: str, why: str) -> Measurement:
    return Measurement(
        name=name or "models",
        subject=subject,
        about="the bias of a language model",
        unit="",
        outcome="not measurable",
        family=subject,
        note=why,
    )
