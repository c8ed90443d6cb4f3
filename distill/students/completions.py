"""Trains students that write text. Such students learn completions from stored distributions, or from the tokens
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import nn
from transformers import PreTrainedModel

from distill.arms import BASELINE, DISTILLED, Arms, StudentModel, steps_of, train_arms
from distill.data import Choice, Example, TrainingSet, validation_rows
from distill.job import Job
from distill.loop import Objective
from distill.streaming.batches import Joined, Order
from distill.streaming.canaries import batches_with, planted
from distill.streaming.conversations import reader_of
from distill.streaming.mapped import Completions
from distill.streaming.stream import Stream, cache_folder, open_stream
from distill.targets import across, ensemble
from distill.targets.hidden import LayerTerms
from distill.targets.hidden_states import States, store
from distill.targets.masking import Masking, first
from distill.targets.rationale import StepByStep, shape
from distill.targets.stored import FromStored
from distill.tokenizer import tokenizer_of_teacher
from synthgen import corpus
from synthgen.errors import CorpusError
from synthgen.lm.weights import Weights
from synthgen.logits import LogitsMeta
from synthgen.recipe import TrainSection, has_local_teacher
from synthgen.results.training import Across, Ensemble, Masked, Targets, Training
from synthgen.tables.divergences import refusal

Make = Callable[[int], StudentModel]
"""Makes the untrained student, with the same weights at every call. The argument is the length, in tokens, of the
longest prompt or completion in the training rows.
"""


NO_END = "the tokenizer has no end token, so the student does not learn where an answer ends"


@dataclass(frozen=True)
class Lesson:
    """The data of a job: the training rows, the validation rows, how the teachers' distributions are used, and the
    canaries.
    """

    data: Stream | TrainingSet
    validation: Sequence[Example]
    teacher: str | None
    ensemble: Ensemble | None
    across: Across | None
    canaries: Sequence[Example] = ()
    masked: Masked | None = None

    @property
    def rows(self) -> Sequence[Example]:
        """The training rows, and after them the canaries."""
        rows = self.data if isinstance(self.data, Stream) else self.data.examples
        return Joined(rows, self.canaries) if self.canaries else rows

    @property
    def batch(self) -> Callable[[Sequence[int], int, int], list[Example]] | None:
        """The function that reads the rows of one step; see `Arms.batch`."""
        if not isinstance(self.data, Stream):
            return None
        return batches_with(self.data, self.canaries) if self.canaries else self.data.batch

    @property
    def rows_kept(self) -> int:
        """The number of training rows that count as kept."""
        return self.data.kept_count if isinstance(self.data, Stream) else sum(e.kept for e in self.data.examples)

    @property
    def longest(self) -> int:
        """The length, in tokens, of the longest prompt or completion in the training rows."""
        if isinstance(self.data, Stream):
            return max([self.data.longest, *(max(len(e.prompt), len(e.completion)) for e in self.canaries)])
        return max(max(len(e.prompt), len(e.completion)) for e in self.data.examples)

    @property
    def texts(self) -> Sequence[Example]:
        """The training rows. Rows that come from a stream have no distributions here."""
        return self.data.without_targets() if isinstance(self.data, Stream) else self.data.examples

    def tokens(self, section: TrainSection) -> int:
        """The number of completion tokens in all steps."""
        order, steps = Order(len(self.rows), section.batch_size, section.seed), steps_of(len(self.rows), section)
        if isinstance(self.data, Stream):
            return self.data.completion_tokens(order, steps, [len(e.completion) for e in self.canaries])
        return sum(len(self.data.examples[n].completion) for step in range(steps) for n in order.rows(step))

    def in_words(self, layer_terms: str | None) -> str:
        """Say in words what the student learned from, for the model card."""
        ending = f", and {layer_terms}" if layer_terms else ""
        if self.masked:
            share = self.masked.masked / self.masked.tokens
            ending = f" without the {share:.1%} of the tokens at which {self.masked.against} differs{ending}"
        if self.data.meta is None:
            return f"the completions' tokens alone{ending}"
        if self.across:
            by = {"divergence": self.across.tokens_by_divergence, "ULD and cross-entropy": self.across.tokens_by_uld}
            total = max(1, sum(by.values()) + self.across.tokens_without_target)
            shares = ", ".join(f"{count / total:.1%} of the tokens by {how}" for how, count in by.items())
            name = self.across.teacher
            return f"the stored distributions of {name}, which has another tokenizer ({shares}){ending}"
        if self.ensemble:
            return f"{ensemble.in_words(self.ensemble)}{ending}"
        name = self.teacher or self.data.meta["teacher"].rpartition("@")[0]
        return f"the stored distributions of {name}{ending}"


def train(job: Job, make: Make, origin: str) -> Training:
    """Train the student that `make` returns, and its baseline, on the same batches.

    `origin` is a description of what the student is made from.
    """
    lesson = read_lesson(job)
    if job.tokens.end is None:
        job.ui.note(f"train: {NO_END}")
    terms = _Terms.of(job)
    described = terms.prepare(make, lesson) if terms else None
    curves = train_arms(
        Arms(
            lambda: _begin(job, make, lesson, terms),
            objectives(job.section, lesson.data.meta, terms),
            lesson.rows,
            lesson.validation,
            job.tokens.tokenizer,
            job.device,
            ends=job.tokens.eos,
            batch=lesson.batch,
        ),
        job,
    )
    return Training(
        student=origin,
        learns_by=learns_by(job.section, lesson.data.meta) + ("" if job.tokens.end is not None else f"; {NO_END}"),
        learned_from=lesson.in_words(described),
        steps=steps_of(len(lesson.rows), job.section),
        rows=len(lesson.rows) - len(lesson.canaries),
        rows_kept=lesson.rows_kept,
        left_out=lesson.data.left_out,
        tokens=lesson.tokens(job.section),
        targets=targets_of(lesson.data.meta) if lesson.data.meta else None,
        teacher=lesson.teacher,
        ensemble=lesson.ensemble,
        across=lesson.across,
        masked=lesson.masked,
        layer_terms=described,
        metrics=curves,
    )


def _begin(job: Job, make: Make, lesson: Lesson, terms: _Terms | None) -> StudentModel:
    """Make the student. Unloads the teacher's weights if training does not need them."""
    student = make(lesson.longest)
    if terms is None or terms.stored:
        job.unload_teacher()
    return student


def read_lesson(job: Job) -> Lesson:
    """Read the rows of a job. No other function reads rows for students that write text and learn offline.

    Raises CorpusError when the corpus does not fit the recipe, and UserError when validation rows are missing.
    """
    section, source, tokens, own = job.section, job.source, job.tokens, job.own_teachers
    alone = _learns_alone(section)
    cache, marker = cache_folder(source, job.folder), job.recipe.generate.answer_marker
    plain = partial(open_stream, source, reader_of(tokens, own), cache)
    names, merge = ((), None) if alone else ensemble.sources(job.recipe, source, plain)
    mask = Masking((str(section.teacher), section.mask_divergence)) if section.mask_divergence else None
    how = shape(section, tokens, marker)
    identity = [section.rationale.model_dump(mode="json"), marker] if how and section.rationale else None
    reader = reader_of(tokens, own, how, identity, reasoning=how is None)

    def read(split: str) -> Stream | TrainingSet:
        choice = Choice(section.max_length, split, section.share, alone, teachers=names, merge=merge)
        if mask:
            choice = replace(choice, teachers=mask.names, merge=first, mask=mask)
        if section.across:
            return across.load_across(source, tokens, section.across, choice, tokenizer_of_teacher(job.recipe))
        return open_stream(source, reader, cache, choice)

    data = read("train")
    if data.meta is not None:
        check_teacher(job, data.meta, _own_weights(job, names))
        reason = refusal(section.loss, data.meta["kind"])
        if reason:  # the recipe's own check misses this problem if the corpus was made with another `logits` section
            raise CorpusError(f"{source}: {reason}", "change train.loss, or generate with another logits.kind")
    merged = merge.facts(map(data.unmerged, range(len(data)))) if merge and isinstance(data, Stream) else None
    validation = validation_rows(section, source, lambda: _lazily(read("validation")))
    aligned = across.facts(data, section.across) if section.across and isinstance(data, TrainingSet) else None
    canaries = planted(section.canaries, tokens, data.meta)
    masked = mask.facts(map(data.unmerged, range(len(data)))) if mask and isinstance(data, Stream) else None
    teacher = None if alone else section.teacher
    return Lesson(data, validation, teacher, merged, aligned, canaries=canaries, masked=masked)


def _lazily(data: Stream | TrainingSet) -> Sequence[Example]:
    """Return a sequence that reads each row from the stream when it is needed."""
    return Completions(data) if isinstance(data, Stream) else data.examples


def _learns_alone(section: TrainSection) -> bool:
    """Whether the student learns from the tokens alone, without distributions."""
    return section.kd_weight == 0 or (section.rationale is not None and section.rationale.mode == "dropped")


def _own_weights(job: Job, names: Sequence[str]) -> Weights | None:
    """The weights of the recipe's first teacher; None when the student does not learn from the distributions of a
    teacher in this process.
    """
    if job.section.across or not has_local_teacher(job.recipe):
        return None
    itself = not names or next(iter(job.recipe.teachers)) in names
    return job.teacher.weights if itself else None


def check_teacher(job: Job, meta: LogitsMeta, weights: Weights | None) -> None:
    """Raise CorpusError when the logits were made with another tokenizer than the student's, or by another revision
    than that of `weights`.

    Without `weights`, the revision is not checked. When the files of the weights are not on this machine, the revision
    cannot be checked, and a note says so.
    """
    teachers = corpus.manifest(job.source)["teachers"]
    own = {job.tokens.hash, *(str(teachers[name].get("tokenizer")) for name in job.own_teachers)}
    made_by: dict[str, tuple[Sequence[str], Collection[str]]] = {"tokenizer": ([meta["tokenizer"]], own)}
    if weights is not None and weights.are_there:
        revisions = [by.rpartition("@")[2] for by in meta.get("teachers", [meta["teacher"]])]
        made_by["revision"] = (revisions, [weights.revision])
    elif weights is not None:
        job.ui.note(
            f"train: the weights of {weights.name} are not on this machine, so it is not checked "
            "whether they made the logits"
        )
    for what, (values, own_values) in made_by.items():
        if not set(own_values) & set(values):
            raise CorpusError(
                f"{job.source}: its logits were made with {what} {' and '.join(values)}, but the student needs "
                f"{' or '.join(sorted(own_values))}",
                "name in the recipe the teacher that made the logits, or set train.across: {} for a student with "
                "another tokenizer",
            )


def objectives(
    section: TrainSection, meta: LogitsMeta | None, terms: _Terms | None
) -> dict[str, Callable[[nn.Module], Objective[Example]]]:
    """The objectives of the student and its baseline. Without distributions, student and baseline would be the same, so
    there is no baseline.
    """

    def by(meta: LogitsMeta | None, terms: _Terms | None) -> Callable[[nn.Module], Objective[Example]]:
        def objective(model: PreTrainedModel) -> Objective[Example]:
            if section.rationale and section.rationale.mode == "step_by_step":
                return StepByStep(model, section, meta)
            return FromStored(model, section, meta, terms.for_student(model) if terms else None)

        return objective

    arms = {DISTILLED: by(meta, terms)}
    if section.baseline and meta is not None:
        arms[BASELINE] = by(None, None)
    return arms


def targets_of(meta: LogitsMeta) -> Targets:
    """The facts about the distributions for training.json."""
    return Targets(
        kind=meta["kind"],
        temperature=meta["temperature"],
        vocab_size=meta["vocab_size"],
        draws=meta.get("draws"),
        k=meta.get("k"),
        teacher=meta.get("teacher"),
    )


def learns_by(section: TrainSection, meta: LogitsMeta | None) -> str:
    """Describe the objective in one line, for the model card."""
    if meta is None:
        line = "cross-entropy on the completions' tokens"
    else:
        size = f"{meta['draws']} draws" if meta["kind"] == "sampled" else f"the top {meta['k']} tokens"
        line = f"{section.kd_weight:g} · {section.loss} from {size} a token (temperature {meta['temperature']:g})"
        line += f" + {1 - section.kd_weight:g} · cross-entropy" if section.kd_weight < 1 else ""
    if section.rationale:
        weight = section.rationale.weight
        line += {
            "then_answer": "; rationale, then answer",
            "step_by_step": f"; step by step: answers {weight:g}, rationales {1 - weight:g}, asked for by "
            f"'{section.rationale.explain.strip()}'",
            "dropped": "; answers alone, rationales dropped",
        }[section.rationale.mode]
    return line


@dataclass(frozen=True)
class _Terms:
    """Loss terms on the teacher's layers, computed from the live teacher or from its `stored` hidden states."""

    job: Job
    stored: States | None

    @classmethod
    def of(cls, job: Job) -> _Terms | None:
        """The terms that the recipe requests. None when the recipe requests no terms."""
        section = job.section
        if not (section.hidden or section.relations):
            return None
        kept = section.hidden is not None and section.hidden.stored
        return cls(job, States(job.source.parent / "hidden", job.teacher.weights) if kept else None)

    def for_student(self, model: PreTrainedModel) -> LayerTerms:
        """The loss terms for one student. Raises RecipeError when layers, widths or heads do not fit the student."""
        return LayerTerms(model, self.stored or self.job.teacher.weights.model, self.job.section)

    def prepare(self, make: Make, lesson: Lesson) -> str:
        """Check that the terms fit the student, and compute the states to store. Returns a description of the terms.

        The check is made before training, so that a wrong recipe fails early. Raises RecipeError.
        """
        first = self.for_student(make(lesson.longest).model)
        if self.stored:
            layers, rows = [t for _, t in first.pairs], Joined(lesson.texts, lesson.validation)
            teacher = self.job.teacher
            store(self.stored, teacher.weights, layers, rows, teacher.batch_size, self.job.ui)
        return first.describe()
