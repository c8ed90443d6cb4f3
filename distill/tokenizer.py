"""Finds the tokenizer of a student that reads and writes text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from synthgen import corpus
from synthgen.errors import RecipeError, TeacherError
from synthgen.files import read_text
from synthgen.lm.load import load_tokenizer
from synthgen.lm.tokens import Tokens
from synthgen.lm.turns import call_end, turn_end
from synthgen.recipe import Recipe, TrainSection, has_local_teacher, local_teacher
from synthgen.records import Message
from synthgen.tables.students import KINDS


def tokens_of(recipe: Recipe, section: TrainSection, teacher: Callable[[], Tokens]) -> Tokens:
    """The tokenizer, chat template and end tokens of a recipe's student. `teacher` returns all three for the local
    teacher.

    A student that starts as a checkpoint uses the tokenizer, chat template and end tokens of the checkpoint if the
    student learns text, if `train.across` aligns the corpus's distributions with the student's tokens, or if there is
    no local teacher. If the checkpoint needs a chat template and has none, the student uses the tokenizer, chat
    template and end tokens of a local teacher with the same vocabulary. All other students also use those of the
    teacher, because they learn from distributions over the teacher's tokens, or keep the teacher's layers.

    Raises RecipeError when the checkpoint has no chat template and there is no local teacher, or when the student would
    use the teacher's tokenizer but the checkpoint has another vocabulary. Raises TeacherError when a tokenizer cannot
    be loaded.
    """
    name = getattr(section.student, "model", None)
    if name is None:
        return teacher()
    own = _own_tokens(name, getattr(section.student, "chat_template_path", None))
    if own.tokenizer.chat_template is None and KINDS[section.student.kind].reads_plain_text:
        own.tokenizer.chat_template = PLAIN
    aligned = section.across is not None and section.across.run is None
    if own.tokenizer.chat_template is not None and (learns_text(section) or aligned or not has_local_teacher(recipe)):
        return own
    if not has_local_teacher(recipe):
        raise RecipeError(
            f"the tokenizer of train.student.model '{name}' has no chat template",
            "name an instruction-tuned model, or a template in train.student.chat_template_path",
        )
    check_vocabulary(own.tokenizer, teacher().tokenizer, name)
    return teacher()


def _own_tokens(model: str, template: str | None) -> Tokens:
    """The tokenizer of a checkpoint. If `template` is given, the chat template is replaced by the text of the file
    `template`, or by the chat template of the model `template`.
    """
    own = Tokens.open(model, any_template=True)
    if template is None:
        return own
    path = Path(template)
    own.tokenizer.chat_template = read_text(path, "") if path.is_file() else load_tokenizer(template).chat_template
    if own.tokenizer.chat_template is None:
        raise RecipeError(f"train.student.chat_template_path: '{template}' has no chat template", "name another model")
    return Tokens(
        own.tokenizer, own.eos | {end for end in (turn_end(own.tokenizer), call_end(own.tokenizer)) if end is not None}
    )


PLAIN = (
    "{% for message in messages %}{{ message['content'] }}{% if not loop.last %}\n\n{% endif %}{% endfor %}"
    "{{ eos_token }}"
)
"""The chat template of an encoder-decoder checkpoint that has none: the texts of the messages, and the end token."""


def learns_text(section: TrainSection) -> bool:
    """Whether a student that writes text learns from the tokens of completions alone, without distributions and without
    the teacher's layers.
    """
    dropped = section.rationale is not None and section.rationale.mode == "dropped"
    alone = section.kd_weight == 0 or dropped
    return alone and not (section.online or section.hidden or section.relations)


def check_vocabulary(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, name: str) -> None:
    """Raise RecipeError unless the vocabularies of student and teacher are equal. `name` is the student's model."""
    own, taught = student.get_vocab(), teacher.get_vocab()
    if own != taught:
        other = sum(taught.get(token) != place for token, place in own.items())
        raise RecipeError(
            f"the tokenizer of train.student.model '{name}' gives {other:,} of its {len(own):,} tokens other "
            "ids than the teacher's tokenizer does, so the stored distributions do not fit the student",
            "set train.kd_weight: 0 to learn the text, or train.across: {} to align the distributions, or name a model "
            "with the teacher's tokenizer",
        )


def written_with(source: Path, tokens: Tokens) -> frozenset[str]:
    """The names of the teachers of a corpus whose tokenizer and chat template are those of `tokens`."""
    teachers = corpus.manifest(source)["teachers"]
    return frozenset(name for name, teacher in teachers.items() if teacher.get("tokenizer") == tokens.hash)


def same_vocabulary(recipe: Recipe, source: Path, tokens: Tokens) -> frozenset[str]:
    """The names of those teachers of a corpus whose `tokenizer` in the recipe has the vocabulary of `tokens`. Only
    teachers behind a server have the key `tokenizer`. Raises TeacherError when such a tokenizer cannot be loaded.
    """
    names = corpus.manifest(source)["teachers"]
    sections = dict(recipe.teachers) or dict.fromkeys(names, recipe.teacher)
    vocabulary = tokens.tokenizer.get_vocab()
    return frozenset(
        name
        for name, section in sections.items()
        if name in names and (other := getattr(section, "tokenizer", None))
        if load_tokenizer(other).get_vocab() == vocabulary
    )


def tokenizer_of_teacher(recipe: Recipe) -> str | None:
    """The name of the tokenizer of a teacher behind a server. None when the recipe names no such tokenizer."""
    return getattr(recipe.teacher, "tokenizer", None)


def check_student(recipe: Recipe, prompt: Sequence[Message]) -> None:
    """Raise RecipeError when the student of a recipe cannot read `prompt`, or cannot learn from the recipe's teacher
    because the teacher has another tokenizer. No weights are loaded. See `Kind.check`.
    """
    section = recipe.train
    assert section is not None
    if has_local_teacher(recipe) and not _opens(local_teacher(recipe).model):
        return  # the error is reported when the teacher is opened
    try:
        tokens = tokens_of(recipe, section, lambda: Tokens.open(local_teacher(recipe).model))
        tokens.render(prompt)
    except TeacherError as error:
        raise RecipeError(f"train.student: {error.message}", error.hint) from None
    theirs = tokenizer_of_teacher(recipe)
    if theirs is None or learns_text(section) or section.across:
        return
    if load_tokenizer(theirs).get_vocab() != tokens.tokenizer.get_vocab():
        raise RecipeError(
            f"the student's tokenizer has another vocabulary than teacher.tokenizer '{theirs}', so the distributions "
            "do not fit the student",
            "set train.across: {} to align them, or train.kd_weight: 0 to learn the text alone",
        )


def _opens(model: str) -> bool:
    """Whether the tokenizer of a local teacher can be opened."""
    try:
        return Tokens.open(model) is not None
    except TeacherError:
        return False
