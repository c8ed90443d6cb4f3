"""Evaluates students that write text, with their live teacher or with its recorded answers.

A live teacher must run on this machine, must be the teacher that made the rows, and must have the student's tokenizer.
Other teachers cannot be compared with the student token by token: a server, recorded replies, a model with another
tokenizer, or an unknown author. The student is then compared with the recorded answers of such a teacher.
"""

from __future__ import annotations

from collections.abc import Mapping

from distill.evaluation.answers import ASK_SEQ2SEQ, ASK_TEACHER
from distill.evaluation.fidelity import evaluate_live
from distill.evaluation.recorded import evaluate_recorded
from distill.evaluation.subject import Subject
from synthgen import corpus
from synthgen.lm.model import LanguageModel
from synthgen.recipe import has_local_teacher
from synthgen.results.evaluation import Evaluation
from synthgen.tables.engines import ENGINES


def evaluate_decoder(subject: Subject) -> Evaluation:
    """Evaluate a causal language model."""
    return _evaluate(subject, ASK_TEACHER)


def evaluate_seq2seq(subject: Subject) -> Evaluation:
    """Evaluate an encoder-decoder model."""
    return _evaluate(subject, ASK_SEQ2SEQ)


def _evaluate(subject: Subject, ask: str) -> Evaluation:
    """Evaluate a student. `ask` names the function that asks the student in a separate process."""
    return evaluate_live(subject, ask) if has_live_teacher(subject) else evaluate_recorded(subject, ask)


def has_live_teacher(subject: Subject) -> bool:
    """Whether the recipe's teacher can be compared with the student at every token of the held-out rows.

    The teacher must run on this machine, and the manifest of the rows must name it with the same revision. Student and
    teacher must have the same tokenizer and chat template. Every held-out row must have the teacher's tokens.
    """
    section = subject.recipe.teacher
    if section is None or not ENGINES[section.engine].in_process or not has_local_teacher(subject.recipe):
        return False
    job = subject.job()
    if job.tokens.hash != job.teacher.tokens.hash:
        return False
    if not any(_is(teacher, job.teacher) for teacher in corpus.manifest(subject.source)["teachers"].values()):
        return False
    return all(row.token_ids and row.prompt_token_ids for row in subject.held_out(subject.recipe.evaluate.max_rows))


def _is(stated: Mapping[str, object], teacher: LanguageModel) -> bool:
    """Whether the manifest's entry of a teacher names this model. The revisions are compared, or the names when a
    revision is unknown.
    """
    if stated["tokenizer"] != teacher.tokens.hash:
        return False
    weights = teacher.weights
    own = weights.revision if weights.are_there else ""
    unknown = ("", "unknown")
    return (
        stated["model"] == weights.name
        if own in unknown or stated["revision"] in unknown
        else own == stated["revision"]
    )
