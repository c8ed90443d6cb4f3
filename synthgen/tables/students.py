"""KINDS: the kinds of student. An entry holds all facts about a kind: its section of the recipe, what it can learn
from, and its functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

from synthgen.tables.reference import Reference
from synthgen.tables.section import Count, Json, ModelName, Rule, Section, Share

CARD: Reference = "distill.card:write_model_card"
"""The function that writes the card of a student of any kind."""
UNTRAINED = "distill.evaluation.untrained:open_untrained"
"""The function that opens a language model as it was before its first training step."""


class Lora(Section):
    """Low-rank adapters. Only the adapters are trained, and at the end they are merged into the weights. The keys have
    the names and meanings of peft."""

    r: Count = 16
    """Rank of the adapters."""
    lora_alpha: Count = 32
    """Scale of the adapters. The output of the adapters is multiplied by lora_alpha / r."""
    lora_dropout: Share = 0.0
    """Share of the adapters' inputs that are dropped in training."""
    target_modules: tuple[str, ...] = ()
    """Names of the modules that get an adapter; all linear layers when left out."""


class Student(Section):
    """The key that the section of every kind of student has."""

    kind: str
    """Kind of student. The kind determines the other keys of the section."""


def _at_most_one(student: Student, *keys: str) -> Iterator[Rule]:
    given = [key for key in keys if getattr(student, key) is not None]
    if len(given) > 1:
        names = " and ".join([", ".join(repr(key) for key in keys[:-1]), repr(keys[-1])])
        yield given[1], f"give at most one of {names}, not {' and '.join(given)}"


def _template(student: DecoderStudent | Seq2SeqStudent) -> Iterator[Rule]:
    if student.chat_template_path is not None and student.model is None:
        yield "chat_template_path", "'chat_template_path' is the template of 'model', which is left out"


def _license(student: DecoderStudent | EncoderStudent | Seq2SeqStudent | SentenceStudent) -> Iterator[Rule]:
    if student.license is not None and student.model is None:
        yield "license", "'license' is the license of 'model', which is left out"


def _exactly_one(student: Student, *keys: str) -> Iterator[Rule]:
    given = [key for key in keys if getattr(student, key) is not None]
    if len(given) != 1:
        yield given[-1] if given else keys[0], f"give exactly one of {' and '.join(repr(key) for key in keys)}"


class DecoderStudent(Student):
    """A causal language model. The student starts with some of the teacher's layers, a checkpoint, or random
    weights.
    """

    kind: Literal["decoder"] = "decoder"
    layers: tuple[int, ...] | int | None = None
    """Layers of the teacher to keep: a list of indexes from 0, or a number of layers, which are spread evenly from the
    first to the last. 6 when `layers`, `model` and `config` are all left out."""
    model: ModelName | None = None
    """A checkpoint with its own tokenizer and chat template. Its name has one of the forms that `teacher.model`
    accepts. To learn from distributions, the tokenizer must be the teacher's, unless `train.across` aligns them."""
    license: str | None = None
    """License of `model`: an SPDX id, or a key of data/licenses.yaml. Without it, the audit says UNKNOWN, unless
    `model` is the teacher."""
    chat_template_path: ModelName | None = None
    """Chat template for `model`, for a checkpoint without a template, or to replace its own: a Jinja file, or a model
    whose template is used. The trained student keeps this template."""
    config: dict[str, Json] | None = None
    """Start with random weights. The configuration is the teacher's config.json with these keys changed, such as
    hidden_size."""
    lora: Lora | None = None
    """Train low-rank adapters instead of all weights."""

    def rules(self) -> Iterator[Rule]:
        yield from _at_most_one(self, "layers", "model", "config")
        yield from _template(self)
        yield from _license(self)


class ClassifierStudent(Student):
    """A multilayer perceptron on hashed word and character n-grams. A trained student needs only numpy to run."""

    kind: Literal["classifier"] = "classifier"
    buckets: Count = 16384
    """Number of features to which the n-grams are hashed."""
    hidden_size: Count = 64
    """Width of the hidden layer."""
    dropout: Share = 0.3
    """Share of the hidden layer's outputs that are dropped in training."""


class EncoderStudent(Student):
    """A transformers encoder with a classification head, from a checkpoint or with random weights."""

    kind: Literal["encoder"] = "encoder"
    model: ModelName | None = None
    """A checkpoint with its own tokenizer. Its name has one of the forms that `teacher.model` accepts. The model gets a
    new head with one output for each label."""
    license: str | None = None
    """License of `model`: an SPDX id, or a key of data/licenses.yaml. Without it, the audit says UNKNOWN, unless
    `model` is the teacher."""
    config: dict[str, Json] | None = None
    """Start with random weights. The keys are `model_type`, such as bert, and the keys of config.json whose values
    differ from the defaults of this type.
    """
    tokenizer: ModelName | None = None
    """The tokenizer for `config`: a hub id or folder; the teacher's when left out."""

    def rules(self) -> Iterator[Rule]:
        yield from _exactly_one(self, "model", "config")
        yield from _license(self)
        if self.config is not None and "model_type" not in self.config:
            yield "config", "'config' needs a 'model_type', such as bert"
        if self.model is not None and self.tokenizer is not None:
            yield "tokenizer", "a checkpoint has its own tokenizer: leave out 'tokenizer'"


class Seq2SeqStudent(Student):
    """An encoder that reads the prompt and a decoder that writes the completion. Encoder and decoder use the teacher's
    tokenizer.
    """

    kind: Literal["seq2seq"] = "seq2seq"
    model: ModelName | None = None
    """A checkpoint with its own tokenizer and chat template. Its name has one of the forms that `teacher.model`
    accepts. To learn from distributions, the tokenizer must be the teacher's, unless `train.across` aligns them."""
    license: str | None = None
    """License of `model`: an SPDX id, or a key of data/licenses.yaml. Without it, the audit says UNKNOWN, unless
    `model` is the teacher."""
    chat_template_path: ModelName | None = None
    """Chat template for `model`, for a checkpoint without a template, or to replace its own: a Jinja file, or a model
    whose template is used. The trained student keeps this template."""
    config: dict[str, Json] | None = None
    """Start with random weights. The keys are `model_type`, such as t5, and the keys of config.json whose values differ
    from the defaults of this type.
    """

    def rules(self) -> Iterator[Rule]:
        yield from _exactly_one(self, "model", "config")
        yield from _template(self)
        yield from _license(self)
        if self.config is not None and "model_type" not in self.config:
            yield "config", "'config' needs a 'model_type', such as t5"


class SentenceStudent(Student):
    """A sentence encoder, which computes one vector for each text. The student pools in the same way as the teacher.
    The student starts with some of the teacher's layers, a checkpoint, or random weights.
    """

    kind: Literal["sentence"] = "sentence"
    layers: tuple[int, ...] | int | None = None
    """Layers of the teacher to keep: a list of indexes from 0, or a number of layers, which are spread evenly. Half of
    the layers when `layers`, `model` and `config` are all left out."""
    model: ModelName | None = None
    """A checkpoint with its own tokenizer. Its name has one of the forms that `teacher.model` accepts."""
    license: str | None = None
    """License of `model`: an SPDX id, or a key of data/licenses.yaml. Without it, the audit says UNKNOWN, unless
    `model` is the teacher."""
    config: dict[str, Json] | None = None
    """Start with random weights. The configuration is the teacher's config.json with these keys changed, such as
    hidden_size."""
    distance: Literal["cosine", "mse"] = "cosine"
    """The distance between the student's vector and the teacher's vector that training minimizes. cosine: 1 − cosine.
    mse: the mean of the squared differences."""

    def rules(self) -> Iterator[Rule]:
        yield from _at_most_one(self, "layers", "model", "config")
        yield from _license(self)


@dataclass(frozen=True)
class Kind:
    """A kind of student.

    `section` is the class of its section of the recipe. `train` takes a `distill.job.Job`, trains a student, and
    returns a `synthgen.results.training.Training`. It writes the files that the other functions read into the job's
    folder. `check` takes a recipe and a prompt, and raises RecipeError when the student cannot learn. It runs before
    any request is sent. `open` takes a trained student's folder, the number of rows in a batch, and a torch device, and
    opens the student. `untrained` takes a Job and opens the student before its first step; None when the evaluation
    does not compare the untrained student. `writes_text` says whether the student generates completions token by token.
    `evaluate` takes a `distill.evaluation.subject.Subject`, measures the student, and returns an `Evaluation`.

    `not_stated` maps a dimension in DIMENSIONS to the reason why students of this kind cannot have it. The loss
    statement of such a student gives this reason.

    `exports` maps the name of a format in MODEL_FORMATS to the function that writes this kind of student in that
    format. A format needs an entry in `exports` only if its `ModelFormat.writes` has no entry for this kind.
    `not_exported` is a text for kinds without export formats, which says how to get the student in other formats.
    `files` are regular expressions for the names of the files that only this kind writes; `--fresh` deletes no other
    files. `library_name`, `pipeline_tag` (the hub's name of the task, "" for none) and `how_to_run` are shown in the
    model card. `loss_unit` and `loss_note` are shown with the plot of the loss.
    """

    section: type[Student]
    _: KW_ONLY
    train: Reference
    check: Reference | None = None
    open: Reference | None = None
    untrained: Reference | None = None
    learns_from: str = "completions"
    """The content that the rows must have: a value of `Strategy.rows`."""
    learns_from_distributions: bool = False
    """Whether the student learns from stored or live distributions over completion tokens."""
    accepts: tuple[str, ...] = ()
    """Which of the keys `kd_weight`, `rationale`, `online`, `teacher`, `mask_divergence`, `ensemble`, `across`,
    `hidden`, `relations` and `canaries` of `train` this kind accepts.
    """
    divergences: tuple[str, ...] | None = ()
    """Accepted values of `train.loss`. None means all values. () means no value, because the kind has its own loss."""
    distributed: bool = False
    """Whether several processes can train one student together, each on a share of every batch. `distill.arms` trains
    in this way. Each process calls `train`, so a distributed kind must write files only if `durable.writes()` is true.
    """
    copies_teacher: Callable[[Student], bool] = lambda student: False
    """Whether a student with this section starts with layers of the teacher. For a student with the teacher's layers,
    the teacher's weights are loaded, and the audit treats the teacher as a model whose weights initialize the student.
    """
    needs_teacher: Callable[[Student], bool] = lambda student: False
    """Whether a student with this section needs the tokenizer or the config of a local teacher, so that a server or a
    data set cannot be its teacher.
    """
    reads_plain_text: bool = False
    """Whether a checkpoint without a chat template reads the messages' texts, one after the other."""
    writes_text: bool = False
    scores_text: bool = False
    """Whether the student gives every text a likelihood, as causal language models do."""
    evaluate: Reference | None = None
    not_stated: Mapping[str, str] = field(default_factory=dict)
    exports: Mapping[str, Reference] = field(default_factory=dict)
    not_exported: str = ""
    files: tuple[str, ...] = ()
    library_name: str = "transformers"
    pipeline_tag: str = ""
    how_to_run: str = ""
    loss_unit: str = "nats"
    loss_note: str = ""


def _keeps_layers(student: Student) -> bool:
    """Whether a decoder or sentence student with this section starts with layers of the teacher."""
    assert isinstance(student, DecoderStudent | SentenceStudent)
    return student.model is None and student.config is None


def _has_no_checkpoint(student: Student) -> bool:
    """Whether a student with this section takes its tokenizer or its config from the teacher."""
    return getattr(student, "model", None) is None


def _has_no_tokenizer(student: Student) -> bool:
    """Whether an encoder with this section uses the teacher's tokenizer."""
    assert isinstance(student, EncoderStudent)
    return student.model is None and student.tokenizer is None


_NO_TEXT = "a student of this kind writes no text"
_OF_WRITERS = dict.fromkeys(("refusals", "diversity", "languages", "length"), _NO_TEXT)
_NO_LIKELIHOOD = {"bias": "the tests of bias need a student that gives every text a likelihood"}
_NO_LABELS = dict.fromkeys(
    ("accuracy", "likelihood", "calibration"), "a student of this kind computes vectors, and gives no answer to judge"
)
_ENTROPY = "The loss of the distilled student includes the entropy of the teacher, so it does not fall to zero."

KINDS: dict[str, Kind] = {
    "decoder": Kind(
        DecoderStudent,
        train="distill.students.decoder:train",
        check="distill.tokenizer:check_student",
        open="distill.students.decoder:open_student",
        untrained="distill.students.decoder:untrained",
        distributed=True,
        copies_teacher=_keeps_layers,
        needs_teacher=_has_no_checkpoint,
        learns_from="completions",
        learns_from_distributions=True,
        accepts=(
            "kd_weight",
            "rationale",
            "online",
            "teacher",
            "mask_divergence",
            "ensemble",
            "across",
            "hidden",
            "relations",
            "canaries",
        ),
        divergences=None,
        writes_text=True,
        scores_text=True,
        evaluate="distill.evaluation.texts:evaluate_decoder",
        pipeline_tag="text-generation",
        how_to_run='`transformers.pipeline("text-generation", model=folder, trust_remote_code=False)` runs it',
        loss_unit="nats a token",
        loss_note=_ENTROPY,
    ),
    "seq2seq": Kind(
        Seq2SeqStudent,
        train="distill.students.seq2seq:train",
        check="distill.tokenizer:check_student",
        open="distill.students.seq2seq:open_student",
        untrained="distill.students.seq2seq:untrained",
        distributed=True,
        needs_teacher=_has_no_checkpoint,
        reads_plain_text=True,
        learns_from="completions",
        learns_from_distributions=True,
        accepts=("kd_weight", "rationale", "teacher", "mask_divergence", "ensemble", "across"),
        divergences=None,
        writes_text=True,
        evaluate="distill.evaluation.texts:evaluate_seq2seq",
        not_stated=_NO_LIKELIHOOD,
        not_exported="transformers loads the student's folder directly",
        pipeline_tag="text-generation",
        how_to_run="`transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=False)` loads it",
        loss_unit="nats a token",
        loss_note=_ENTROPY,
    ),
    "encoder": Kind(
        EncoderStudent,
        train="distill.students.encoder:train",
        open="distill.students.encoder:open_student",
        untrained="distill.students.encoder:untrained",
        distributed=True,
        needs_teacher=_has_no_tokenizer,
        learns_from="label probabilities",
        accepts=("kd_weight",),
        divergences=None,
        evaluate="distill.evaluation.classifiers:evaluate_encoder",
        not_stated={**_OF_WRITERS, **_NO_LIKELIHOOD},
        pipeline_tag="text-classification",
        how_to_run='`transformers.pipeline("text-classification", model=folder, trust_remote_code=False)` runs it',
    ),
    "sentence": Kind(
        SentenceStudent,
        train="distill.students.sentence:train",
        open="distill.students.sentence:open_student",
        untrained="distill.students.sentence:untrained",
        distributed=True,
        copies_teacher=_keeps_layers,
        needs_teacher=lambda student: True,
        learns_from="texts",
        evaluate="distill.evaluation.similarity:evaluate_sentence",
        not_stated={**_NO_LABELS, **_OF_WRITERS, **_NO_LIKELIHOOD},
        not_exported="sentence-transformers loads the student's folder directly and can export it: "
        "SentenceTransformer(folder, backend='onnx')",
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        how_to_run="`sentence_transformers.SentenceTransformer(folder).encode(texts)` runs it",
    ),
    "classifier": Kind(
        ClassifierStudent,
        train="distill.students.classifier_train:train",
        open="distill.students.classifier:open_student",
        learns_from="label probabilities",
        accepts=("kd_weight",),
        divergences=("forward_kl",),
        evaluate="distill.evaluation.classifiers:evaluate_mlp",
        not_stated={**_OF_WRITERS, **_NO_LIKELIHOOD},
        library_name="synthgen-distill",
        pipeline_tag="text-classification",
        how_to_run="`distill.students.classifier.Classifier.load(folder).predict(texts)` runs it, on numpy alone",
    ),
}
